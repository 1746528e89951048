"""The one seam to an inference engine: uint8 images in, float32 logits out."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

from toolkit.contracts import Float32, UInt8


class Runner(Protocol):
    """Anything that answers images with logits. Runners are context managers; `close` may be called twice.

    Attributes:
        name: the backend, such as "ort".
        description: engine, version, device and file, for people.
    """

    name: str
    description: str

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
