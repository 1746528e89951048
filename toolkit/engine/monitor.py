"""Watching a build and stopping it: TensorRT's phases as one bar, Ctrl-C without a crash in its callbacks."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

from toolkit.errors import EngineError

Progress = Callable[[str, int, int], None]
Answer = TypeVar("Answer")
WHOLE = 100  # steps of the bar that `overall` fills


class Monitor:
    """Hears of progress and asks the build to stop. Exceptions never pass through TensorRT: they wait here."""

    def __init__(self, on_progress: Progress | None) -> None:
        self.on_progress = on_progress
        self.stop = threading.Event()
        self.steps: dict[str, int] = {}
        self.error: BaseException | None = None

    def report(self, phase: str, done: int) -> bool:
        """Passes one step on; False asks TensorRT to give up."""
        if self.on_progress is not None and not self.stop.is_set():
            try:
                self.on_progress(phase, done, self.steps.get(phase, done))
            except BaseException as error:
                self.error = error
                self.stop.set()
        return not self.stop.is_set()

    def raise_what_stopped_it(self) -> None:
        """Raises what the caller's function raised, now that TensorRT has let go."""
        if self.error is not None:
            raise self.error
        if self.stop.is_set():  # nobody sees this: `interruptible` is about to raise KeyboardInterrupt
            raise EngineError("the build was stopped")

    def for_tensorrt(self, trt: Any) -> Any:
        """An IProgressMonitor made here, because its base class exists only once TensorRT is imported."""
        report, steps = self.report, self.steps

        class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)

            def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
                steps[phase_name] = num_steps
                report(phase_name, 0)

            def phase_finish(self, phase_name: str) -> None:
                report(phase_name, steps.get(phase_name, 0))

            def step_complete(self, phase_name: str, step: int) -> bool:
                return report(phase_name, step + 1)

        return Monitor()


def overall(on_done: Callable[[int], None]) -> Progress:
    """Turns TensorRT's nested phases into one number of `WHOLE` that never falls.

    A phase that starts while others are open is taken for a part of one step of the last of them.
    """
    open_phases: dict[str, tuple[int, int]] = {}
    reached = [0]

    def hear(phase: str, done: int, steps: int) -> None:
        open_phases[phase] = (done, max(steps, 1))
        part, weight = 0.0, 1.0
        for finished, of in open_phases.values():
            part += weight * min(finished / of, 1.0)
            weight /= of
        if steps <= done:
            del open_phases[phase]
        reached[0] = max(reached[0], min(int(WHOLE * part), WHOLE))
        on_done(reached[0])

    return hear


def interruptible(work: Callable[[], Answer], monitor: Monitor) -> Answer:
    """Does the work in a thread, so that Ctrl-C reaches Python here and never inside TensorRT's callbacks."""

    def released() -> Answer:
        try:
            return work()
        except BaseException as error:
            _release_locals(error)
            raise

    with ThreadPoolExecutor(1, thread_name_prefix="engine-build") as pool:
        future = pool.submit(released)
        try:
            while not wait([future], timeout=0.1).done:  # a signal that another thread took is noticed here
                pass
        except KeyboardInterrupt:
            monitor.stop.set()
            wait([future])
            raise
        return future.result()


def _release_locals(error: BaseException) -> None:
    """Lets go of what the failed frames hold, here and now.

    A builder that an exception keeps alive is destroyed at some garbage collection, which holds Python's lock and waits
    for TensorRT's, while another build holds TensorRT's and waits for Python's to log a line: both wait for ever.
    """
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__
