"""Claims about the forked Python that tests use: whoever starts it sees what Python itself would have shown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_leftovers import wait_until
from tests.warm import ours, python

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is Python itself")]
PROGRAMS = [
    "import os, sys; print(sys.argv, sys.path[0], os.getcwd(), os.environ['MINE'], sys.stdin.read(), __name__)",
    "import sys; print('é', file=sys.stderr); sys.exit(3)",
    "import sys; sys.exit('words')",
    "import atexit, threading; threading.Thread(target=lambda: print('thread')).start(); atexit.register(print, 'end')",
    "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "print('unflushed'); raise SystemExit",
]


def ends(*command: str, folder: Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that is told something."""
    environment = os.environ | {"MINE": "ours"}
    done = subprocess.run(command, cwd=folder, env=environment, input="told", capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_ends_as_python_does(program: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(program)
    for words in (["-u", "-c", program, "a", "b"], ["program.py", "a"], ["-m", "program", "b"]):
        expected = ends(sys.executable, *words, folder=tmp_path)
        assert ends(*python(), *words, folder=tmp_path) == expected


def test_ours_was_imported_whole_and_remembers_no_more_than_where_it_lies(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "found = {name: module for name, module in sys.modules.items() if name.partition('.')[0] == 'toolkit'}\n"
        "kept = {f'{name}.{key}' for name, module in found.items() for key, value in vars(module).items()\n"
        "        if hasattr(value, 'cache_info') and value.cache_info().currsize}\n"
        "print(sorted(found), sorted(kept))"
    )
    assert ends(*python(), "-c", program, folder=tmp_path) == (
        0,
        f"{sorted(['toolkit', *ours()])} ['toolkit.lazy._source']\n",
        "",
    )


def test_an_error_is_a_traceback_and_a_setting_of_python_is_refused(tmp_path: Path) -> None:
    code, _, said = ends(*python(), "-c", "1 / 0", folder=tmp_path)
    assert (code, said.splitlines()[-1]) == (1, "ZeroDivisionError: division by zero")
    done = subprocess.run([*python(), "-c", ""], env=os.environ | {"PYTHONHASHSEED": "1"}, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert b"start sys.executable" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_reaches_it(number: signal.Signals) -> None:
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    command = [*python(), "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        child = Path("/proc") / process.stdout.readline().strip()
        process.send_signal(number)
        assert process.wait(30) == -number
    wait_until(lambda: not child.exists(), "it was left running")
