"""What the toolkit asks of CUDA, as a protocol that cuda-python and pycuda both keep.

Every call but `enter` belongs between `enter` and `leave` of the same thread: a context is current for a thread, not
for a process. Copies and graph launches return before they are done; `synchronize` waits. Nothing here picks a GPU: it
is the first one that the driver shows (CUDA_VISIBLE_DEVICES chooses), as TensorRT takes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from toolkit.contracts import UInt8


@dataclass
class Stream:
    """A stream of one implementation: `handle` is its CUstream as an integer, `raw` its object, None once released."""

    handle: int
    raw: Any


@dataclass(frozen=True)
class Pinned:
    """Page-locked host memory: `bytes` is all of it as uint8 (N,), `address` where it begins, `raw` its owner.

    `mapped` is the address that kernels read and write it at; 0 where it was not asked for.
    """

    bytes: UInt8
    address: int
    raw: Any
    mapped: int = 0


class Cuda(Protocol):
    """CUDA on one GPU through its primary context, which torch and TensorRT use too.

    Attributes:
        name: package and version, such as "cuda-python 13.5.0".
        has_graphs: stream capture and CUDA graphs can be used through it.
        reason: why this implementation and not the other, one clause.
        integrated: the GPU works in the host's memory, as on a Jetson, so that nothing need be copied.
        lets_go: other threads of Python run while one waits in a call.
    """

    name: str
    has_graphs: bool
    reason: str
    integrated: bool
    lets_go: bool

    def enter(self) -> bool:
        """Makes the primary context current in this thread; the answer goes to `leave`."""
        ...

    def leave(self, entered: bool) -> None:
        """Makes current what was current before `enter`."""
        ...

    def allocate(self, size_bytes: int) -> int:
        """Device memory; its address, aligned to 256 bytes at least."""
        ...

    def release(self, address: int) -> None:
        """Gives back what `allocate` gave."""
        ...

    def allocate_pinned(self, size_bytes: int, mapped: bool = False) -> Pinned:
        """Page-locked host memory, which copies can read and write while the host goes on; `mapped`: kernels, too."""
        ...

    def release_pinned(self, pinned: Pinned) -> None:
        """Gives back what `allocate_pinned` gave; its array must not be touched again."""
        ...

    def copy_in(self, device: int, pinned: Pinned, size_bytes: int, stream: Stream) -> None:
        """The first bytes of pinned memory to the device, in the stream's order."""
        ...

    def copy_out(self, pinned: Pinned, device: int, size_bytes: int, stream: Stream) -> None:
        """Device memory to the first bytes of pinned memory, in the stream's order."""
        ...

    def copy_across(self, device: int, source: int, size_bytes: int, stream: Stream) -> None:
        """Device memory to device memory, in the stream's order."""
        ...

    def stream(self) -> Stream:
        """A stream that does not wait for the legacy default stream."""
        ...

    def release_stream(self, stream: Stream) -> None:
        """Gives back a stream on which nothing runs."""
        ...

    def synchronize(self, stream: Stream) -> None:
        """Waits until all that was put into the stream is done; errors of that work are raised here."""
        ...

    def event(self) -> Any:
        """An event that takes the time."""
        ...

    def release_event(self, event: Any) -> None:
        """Gives back an event."""
        ...

    def record(self, event: Any, stream: Stream) -> None:
        """Puts the event into the stream."""
        ...

    def elapsed_ms(self, before: Any, after: Any) -> float:
        """Milliseconds between two recorded events that have passed."""
        ...

    def begin_capture(self, stream: Stream) -> None:
        """From here on what is put into the stream is written down instead of done. Other threads are not held up."""
        ...

    def end_capture(self, stream: Stream) -> Any:
        """What was written down since `begin_capture`, as a graph that can be launched."""
        ...

    def abandon_capture(self, stream: Stream) -> None:
        """Ends a capture that went wrong; raises nothing."""
        ...

    def launch(self, graph: Any, stream: Stream) -> None:
        """Puts all of a graph into the stream at once."""
        ...

    def release_graph(self, graph: Any) -> None:
        """Gives back a graph that is not running."""
        ...

    def close(self) -> None:
        """Gives the primary context back; everything else must be given back before. May be called twice."""
        ...
