"""The one seam to an inference engine: uint8 images in, float32 logits out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, runtime_checkable

from toolkit.contracts import Float32, UInt8


class Runner(Protocol):
    """Anything that answers images with logits. Runners are context managers; `close` may be called twice.

    Attributes:
        name: the backend, such as "ort".
        description: engine, version, device and file, for people.
    """

    name: str

    @property
    def description(self) -> str: ...

    def logits(self, images_nhwc: UInt8) -> Float32:
        """Images uint8 (N, H, W, C) to logits float32 (N, classes), a fresh array."""
        ...

    def close(self) -> None:
        """Gives back what the engine holds."""
        ...

    def __enter__(self) -> Runner: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True)
class Phases:
    """Milliseconds of one call's parts, each without the others.

    Attributes:
        h2d_ms, gpu_ms, d2h_ms: copy in, compute and copy out on a device that is kept busy, between events of its
            stream: no launch of the host lies inside.
        enqueue_ms: what the host takes to put the compute into the stream (trtexec's "Enqueue Time").
    """

    h2d_ms: float
    gpu_ms: float
    d2h_ms: float
    enqueue_ms: float


@dataclass(frozen=True)
class LayerTime:
    """A layer of a network as an engine computes it, fused with others perhaps, in a run that times each by itself.

    Attributes:
        kind: ONNX Runtime's operator; empty where the engine says nothing but a name.
        ms: of one call, the mean over all that were made.
    """

    name: str
    kind: str
    ms: float


class TimesLayers(Protocol):
    """What a runner offers whose engine times its layers; in calls of their own, because that makes them slower."""

    def layer_times(self, images_nhwc: UInt8, calls: int) -> tuple[LayerTime, ...]:
        """Each layer's time over so many calls, in the order in which they run."""
        ...


class TimesPhases(Protocol):
    """What a runner on a device offers beside `Runner`."""

    def phases(self, images_nhwc: UInt8) -> Phases:
        """Answers the images as `logits` does, and says how long each part of it took on the device."""
        ...

    def without_graph(self) -> Runner:
        """The same engine, each call enqueued anew instead of replayed from a CUDA graph."""
        ...

    def allow_streams(self, count: int) -> None:
        """Lets so many calls of different threads run on the device at once."""
        ...


@runtime_checkable
class WarmsUp(Protocol):
    """What a runner offers that makes things at its first calls; `streams` are the calls that it runs at once."""

    @property
    def streams(self) -> int: ...

    def warm_up(self, batches: Sequence[int], streams: int) -> None:
        """Makes them now, for calls of these sizes, so many at once."""
        ...


class ClosesItself:
    """The context-manager half of a runner."""

    def close(self) -> None:
        """Nothing to give back, unless a runner says otherwise."""

    def __enter__(self):  # type: ignore[no-untyped-def]  # returns the subclass; typing.Self needs 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
