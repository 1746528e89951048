"""Ctrl-C, SIGTERM and SIGHUP: heard by Python where it runs, by a thread while a library hears nothing.

A handler of Python runs between two steps of Python; a call of ONNX Runtime may take minutes. The system writes each
signal into a pipe at once: a thread reads it, and ends the process where Python has not heard it within seconds. What
was half-written is then swept away by the next command, as after SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOPS = (signal.SIGTERM, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))  # a closed terminal is one, too
STOPPED_BY: list[int] = []  # signals that Python heard in this run, Ctrl-C among them
PATIENCE = 3.0  # seconds until a call that hears nothing is given up


def listen() -> None:
    """Makes Ctrl-C and what else stops a command a KeyboardInterrupt; who was started with nohup stays deaf."""
    STOPPED_BY.clear()
    for number in (signal.SIGINT, *STOPS):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def close_ears() -> None:
    """All is done: a late Ctrl-C must not turn that into a failure."""
    for number in (signal.SIGINT, *STOPS):
        signal.signal(number, signal.SIG_IGN)


def stopped_by() -> int:
    """The first signal that was heard, here or in one of several training processes; 0 where there was none."""
    return next(iter([*STOPPED_BY, *_heard_in_training()]), 0)


@contextmanager
def ended_where_deaf(last_words: Callable[[], object]) -> Iterator[None]:
    """Ends the process after `last_words`, where the block does not hear a signal within `PATIENCE`."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: _leave(writing))
    watcher = threading.Thread(target=_watch, args=(reading, last_words), name="signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
        watcher.join()
        os.close(reading)


def _leave(writing: int) -> None:
    """A fork's signals are not its parent's: they must not go into the pipe."""
    with contextlib.suppress(ValueError):  # a fork of another thread has no such pipe
        if (now := signal.set_wakeup_fd(-1)) != writing:
            signal.set_wakeup_fd(now)


def _watch(reading: int, last_words: Callable[[], object]) -> None:
    seen = 0
    while numbers := os.read(reading, 4096):  # nothing: all writers have closed it
        stops = [number for number in numbers if number in (signal.SIGINT, *STOPS)]
        until = time.monotonic() + PATIENCE
        while stops and _heard() == seen:
            if time.monotonic() > until:
                last_words()
                os._exit(1 if stops[0] == signal.SIGINT else 128 + stops[0])
            time.sleep(0.05)
        if select.select([reading], [], [], 0)[0] and not os.read(reading, 4096):  # two that Python heard as one
            return
        seen = _heard()


def _heard() -> int:
    return len(STOPPED_BY) + len(_heard_in_training())


def _heard_in_training() -> list[int]:
    return list(getattr(sys.modules.get("toolkit.training.distributed"), "HEARD", []))


def _stop(number: int, frame: object) -> None:
    STOPPED_BY.append(number)
    raise KeyboardInterrupt  # so that half-written folders are cleared away
