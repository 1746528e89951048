"""A second Python that has imported what takes long: a test's child then starts in no time.

    subprocess.run([*python(), "-m", "toolkit", "list"])  # instead of sys.executable; -c CODE and SCRIPT, too

torch alone takes seconds to import, in each of a hundred children. So a server imports it, and our package, which sees
nothing around it then, and forks: the child is a process of its own, with the environment, folder and streams of
who asked, and ends as every Python does. This file is also what runs in its stead: it passes on signals, and how the
child ended. Processes whose beginning is what is tested (imports, system calls, installed wheels) are started by
`sys.executable`. The workers of pytest-xdist share one server, and are forked from it themselves.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import NoReturn

PRELOADED = (
    "numpy", "torch", "torch._dynamo", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "PIL.Image", "matplotlib.figure",
    "pydantic", "rich.console", "rich.progress", "rich.table", "typer",
)  # fmt: skip
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LENGTH = 8  # bytes of a number on the socket
ADDRESS = f"toolkit-tests-{os.urandom(8).hex()}"  # in the abstract name space: no file
_servers: list[tuple[int, int]] = []  # its process, and the end of the pipe whose closing ends it
_shared: list[str] = []  # the address of one that somebody else started and ends


def python() -> list[str]:
    """The words that stand for `sys.executable`; the first call starts the server, unless one is shared."""
    if sys.platform != "linux":
        return [sys.executable]
    return [sys.executable, "-I", "-S", __file__, *(_shared or [start()])]


def start() -> str:
    """Starts the server where it was not, and returns its address."""
    if not _servers:
        _servers.append(_started())
    return ADDRESS


def share(address: str) -> None:
    """Asks the server of another process from now on."""
    _shared[:] = [address]


def end() -> None:
    """Ends the server and whatever it started."""
    while _servers:
        process, alive = _servers.pop()
        os.close(alive)
        os.waitpid(process, 0)


def _started() -> tuple[int, int]:
    reading, writing = os.pipe()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{ADDRESS}")
        listener.listen()
        for number in (reading, listener.fileno()):
            os.set_inheritable(number, True)
        words = [sys.executable, __file__, "serve", str(listener.fileno()), str(reading)]
        variables = os.environ | {"ORT_DISABLE_TELEMETRY": "1"}
        process = os.posix_spawn(sys.executable, words, variables, setsid=True)  # Ctrl-C comes by those who ask
    os.close(reading)
    return process, writing


def ask(address: str, words: list[str]) -> None:
    """In the stead of a child: has it forked, passes on signals, and ends as it ended."""
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # until it is known to whom
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(f"\0{address}")
        asked = json.dumps([words, os.getcwd(), dict(os.environ), sorted(os.sched_getaffinity(0))]).encode()
        socket.send_fds(server, [len(asked).to_bytes(LENGTH, "little")], [0, 1, 2])
        server.sendall(asked)
        child = _number(server)
        for number in PASSED_ON:
            signal.signal(number, lambda number, _: os.kill(child, number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        while not select.select([server], [], [], 0.1)[0]:
            pass  # a signal that comes just before a call that blocks is heard after it
        status = _number(server)
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


def _ready(*files: int) -> list[int]:
    return select.select(files, [], [])[0]


def _number(connection: socket.socket) -> int:
    return int.from_bytes(connection.recv(LENGTH, socket.MSG_WAITALL), "little")


def ours() -> list[str]:
    """Every module of the package but the one that is run."""
    import pkgutil

    import toolkit

    found = (module.name for module in pkgutil.walk_packages(toolkit.__path__, "toolkit."))
    return [name for name in found if name != "toolkit.__main__"]


def serve(listener: socket.socket, alive: int) -> list[str]:
    """Forks whenever it is asked to, until nobody can ask any more; returns in the child, with what it is to run."""
    gc.disable()  # while it imports: a sixth of that time
    for name in (*PRELOADED, *ours()):
        __import__(name)
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page
    gc.enable()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those who wait for children end by themselves
    while alive not in _ready(listener.fileno(), alive):
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return _answered(connection, alive)
        connection.close()
    os._exit(0)


def _answered(connection: socket.socket, alive: int) -> list[str]:
    """Forks the child, in which it returns; waits for it, and kills it where nobody waits any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, _, _ = socket.recv_fds(connection, LENGTH, 3)
    words, folder, variables, cores = json.loads(connection.recv(int.from_bytes(size, "little"), socket.MSG_WAITALL))
    if (child := os.fork()) == 0:
        connection.close()
        os.close(alive)
        if set(cores) != os.sched_getaffinity(0):
            os.sched_setaffinity(0, cores)
        _become(folder, variables, streams)
        return list(words)
    for number in streams:
        os.close(number)
    with suppress(BrokenPipeError):  # who asked was killed
        connection.sendall(child.to_bytes(LENGTH, "little"))
        _ready(os.pidfd_open(child), connection.fileno(), alive)
    os.kill(child, signal.SIGKILL)  # one that has ended keeps its exit code, and its number until it is waited for
    status = os.waitpid(child, 0)[1]
    with suppress(BrokenPipeError):
        connection.sendall(status.to_bytes(LENGTH, "little"))
    os._exit(0)


def _become(folder: str, variables: dict[str, str], streams: list[int]) -> None:
    """Environment, folder and streams of who asked, as a Python that was started so would have them.

    Raises:
        SystemExit: Python's own settings are others than the server's, which cannot be made good.
    """
    for number, given in enumerate(streams):
        os.dup2(given, number)
        os.close(given)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", 1 if os.isatty(1) else -1, closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    if _of_python(variables) != _of_python(dict(os.environ)):
        raise SystemExit(f"tests.warm cannot set {_of_python(variables)}: start sys.executable")
    for number in (signal.SIGTERM, signal.SIGHUP):  # who runs the tests under nohup ignores the second
        signal.signal(number, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)


def _of_python(variables: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.startswith("PYTHON")}


def run(first: str, *rest: str) -> None:
    """As `python FIRST REST...` does it."""
    if first == "-u":  # as execnet says; it reads and writes without buffers itself
        run(*rest)
    elif first == "-m":
        sys.path[0], sys.argv = os.getcwd(), list(rest)
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.path[0], sys.argv = "", ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
    else:
        sys.path[0], sys.argv = os.path.abspath(os.path.dirname(first)), [first, *rest]
        runpy.run_path(first, run_name="__main__")


def finish(code: object) -> NoReturn:
    """What Python does at its end, but for taking every imported module apart: that would copy every page of them."""
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else code is not None)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        import atexit
        import runpy
        import threading

        words = serve(socket.socket(fileno=int(sys.argv[2])), int(sys.argv[3]))
        try:
            run(*words)
        except SystemExit as ended:
            finish(ended.code)
        except KeyboardInterrupt:
            sys.excepthook(*sys.exc_info())
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            finish(1)
        finish(0)
    else:
        ask(sys.argv[1], sys.argv[2:])
