"""What TensorRT says of each layer's time: an IProfiler on an execution context that runs for nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def times_by_layer(trt: Any, context: Any, call: Callable[[], object], calls: int) -> dict[str, list[float]]:
    """Milliseconds of each layer in each of `calls` calls, by the name that TensorRT gave it, in the order of the run.

    With a profiler a context waits for every layer (`enqueue_emits_profile`, on unless it was turned off), so a call
    takes longer than without. A name that two layers share has the sum of both.

    Args:
        context: of an engine, not captured; it keeps the profiler and is to be closed afterwards.
        call: one call through the context, waited for.
    """
    heard: list[tuple[str, float]] = []

    class Listener(trt.IProfiler):  # type: ignore[misc]  # its base exists only once TensorRT is imported
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            heard.append((layer_name, ms))

    call()  # TensorRT puts off work until the first call with a shape
    listener = Listener()  # alive until the last call has returned
    context.profiler = listener
    found: dict[str, list[float]] = {}
    for number in range(calls):
        heard.clear()
        call()
        for name, ms in heard:
            found.setdefault(name, [0.0] * calls)[number] += ms
    return found
