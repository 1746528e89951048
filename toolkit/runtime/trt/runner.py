"""TensorRT engines as runners: images in host or device memory, CUDA graphs, several threads at once."""

from __future__ import annotations

import atexit
import ctypes
import os
import statistics
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.contracts import Float32, UInt8
from toolkit.errors import DataError, EngineError, ToolkitError
from toolkit.runtime.cuda import CudaOutOfMemory
from toolkit.runtime.cuda.device_images import DeviceImages, device_images
from toolkit.runtime.runner import ClosesItself, LayerTime, Phases
from toolkit.runtime.trt.engine import LoadedEngine
from toolkit.runtime.trt.graphs import graph_use
from toolkit.runtime.trt.preflight import Plan
from toolkit.runtime.trt.stream_slot import StreamSlot

CONTEXTS = 4
_AT_EXIT_S = 2.0
_UINT8 = np.dtype(np.uint8)  # compared for every call; the type itself would be converted each time


class TrtRunner(ClosesItself):
    """Runs a plan on this machine's first GPU; safe to call from several threads.

    A batch above the plan's largest is split. Memory and streams are made once and used again; a batch size that comes
    a second time is captured as a CUDA graph and replayed from then on.

    Args:
        engine: a plan with its sidecar beside it, as `toolkit build` leaves them, or both as they were read.
        graph: use CUDA graphs.
        cuda: "cuda-python", "pycuda" (no CUDA graphs), or "auto": the first of them that is installed.
        contexts: calls that may run on the GPU at once; further threads wait. Made when they are needed.
        rebuild: what to do where the plan cannot be used.
        wait: how threads wait for the GPU: "spin" wakes at once and keeps a core busy, "block" sleeps, "auto" leaves it
            to CUDA, which on a Jetson may sleep. It holds for the whole process, and the first engine decides.

    Attributes:
        description: TensorRT, GPU, plan, CUDA package, and whether CUDA graphs are used, or why not.

    Raises:
        EngineError: the plan is cut short, changed, or for another machine. BackendUnavailable: no driver, no TensorRT,
            or no CUDA for Python. CudaOutOfMemory and other CudaErrors: by their names.
    """

    name = "trt"

    def __init__(
        self,
        engine: Path | Plan,
        *,
        graph: bool = True,
        cuda: str = "auto",
        contexts: int = CONTEXTS,
        rebuild: str = "`toolkit.build(BUNDLE)`",
        wait: str = "auto",
    ) -> None:
        if contexts < 1:
            raise ToolkitError("a runner needs a context", found=contexts, allowed="at least 1")
        plan = engine if isinstance(engine, Plan) else Path(engine)
        self._start(LoadedEngine(plan, cuda, rebuild, wait), graph, contexts)

    def _start(self, engine: LoadedEngine, graph: bool, contexts: int) -> None:
        self._engine, self._process = engine, os.getpid()
        self._graphs = graph_use(engine, graph)
        self._shape, self._smallest, self._largest = engine.input.shape, engine.smallest, engine.largest
        self._changed, self._closed = threading.Condition(), False
        self._queue: list[object] = []  # who waits for a slot, in order; while anybody does, all others queue up, too
        self._most, self._fewer = contexts, ""
        try:
            self._slots = [StreamSlot(engine, self._graphs)]
        except BaseException:
            engine.close()
            raise
        self._free = list(self._slots)
        self._finalizer = weakref.finalize(self, _give_back, self._slots, engine, self._process)
        self._finalizer.atexit = False  # a thread may be in a call then: `_at_exit` looks
        _open.add(self)

    @property
    def graph(self) -> str:
        """Either "on", or "off" and why, or that TensorRT-RTX has its own; it may go off at a capture that fails."""
        return str(self._graphs)

    @property
    def device(self) -> str:
        """The GPU's name."""
        return self._engine.device

    @property
    def description(self) -> str:
        """For people and logs."""
        engine = self._engine
        return (
            f"{engine.tensorrt.name} on {engine.device}, {engine.plan.name}, "
            f"batch {self._smallest} to {self._largest}, {engine.cuda.name} ({engine.cuda.reason}), "
            f"wait {engine.wait}, CUDA graphs {self.graph}{self._fewer}"
        )

    @property
    def streams(self) -> int:
        """Calls that may run on the GPU at once, each in an execution context and a stream of its own."""
        return self._most

    def allow_streams(self, count: int) -> None:
        """As many from now on as `contexts` of a new runner; those that are there already stay."""
        if count < 1:
            raise ToolkitError("a runner needs a stream", found=count, allowed="at least 1")
        self._most = max(count, len(self._slots))

    def logits(self, images_nhwc: Any) -> Float32:
        """Logits float32 (N, classes), a fresh array.

        Args:
            images_nhwc: uint8 (N, H, W, C): a numpy array, or memory of this GPU with `__cuda_array_interface__` or
                DLPack, which is read where it lies, after what its stream has been given before.

        Raises:
            DataError: another form, another GPU's memory, or fewer images than the plan takes.
            CudaError, EngineError: the call failed, by name. ToolkitError: closed, or used after a fork.
        """
        if os.getpid() != self._process:
            raise _forked()
        if type(images_nhwc) is not np.ndarray:
            return self._of_anything(images_nhwc)
        if images_nhwc.dtype != _UINT8 or images_nhwc.shape[1:] != self._shape:
            raise self._refused(f"{images_nhwc.dtype} {images_nhwc.shape}")
        if not self._smallest <= len(images_nhwc) <= self._largest:
            return self._in_parts(images_nhwc)
        slot = (None if self._queue else self._popped()) or self._take()
        try:
            return slot.logits(images_nhwc)
        finally:
            self._give(slot)

    def phases(self, images_nhwc: Any) -> Phases:
        """Milliseconds of the call's parts on the device: copy in, compute, copy out; of images that one call takes.

        With graphs, compute is a graph of its own. Copy in is empty for images in device memory.
        """
        if os.getpid() != self._process:
            raise _forked()
        images = device_images(images_nhwc)
        shape = np.shape(images_nhwc) if images is None else images.shape
        if shape[1:] != self._shape or not self._smallest <= shape[0] <= self._largest:
            raise self._refused(str(shape))
        slot = self._take()
        try:
            return slot.phases(np.asarray(images_nhwc) if images is None else images)
        finally:
            self._give(slot)

    def layer_times(self, images_nhwc: UInt8, calls: int) -> tuple[LayerTime, ...]:
        """Each layer's mean time over so many calls, as TensorRT's profiler tells it, in the order in which they run.

        The calls go through an execution context of their own, without graphs; with its profiler TensorRT waits for
        every layer, so that they take longer than calls elsewhere.

        Args:
            images_nhwc: as many as one call takes.

        Raises:
            DataError: more, fewer, or of another form. EngineError, CudaError: the calls failed, by name.
        """
        if images_nhwc.shape[1:] != self._shape or not self._smallest <= len(images_nhwc) <= self._largest:
            raise self._refused(f"{images_nhwc.dtype} {images_nhwc.shape}")
        with self.without_graph() as runner:
            slot = runner._take()
            try:
                found = slot.layer_times(images_nhwc, calls)
            finally:
                runner._give(slot)
        return tuple(LayerTime(name, "", statistics.mean(ms)) for name, ms in found.items())

    def warm_up(self, batches: Sequence[int] = (1,), streams: int = CONTEXTS) -> None:
        """Makes slots, execution contexts and graphs now, so that the first calls under load are as fast as later ones.

        Args:
            batches: sizes that will be called; one above the plan's largest is split as a call is.
            streams: calls that may run at once; `allow_streams` is called with it.

        Raises:
            DataError: a batch below the plan's smallest.
        """
        self.allow_streams(streams)
        sizes = sorted({stop - start for batch in batches for start, stop in self._cuts(batch)})
        taken: list[StreamSlot] = []
        try:
            with self._changed:
                self._require_open()
                while len(taken) < self._most and (slot := self._at_once()):
                    taken.append(slot)
            for slot in taken:
                for size in sizes:
                    for _ in range(3):  # the first has no graph, the second captures it, the third replays it
                        slot.logits(np.zeros((size, *self._shape), np.uint8))
        finally:
            for slot in taken:
                self._give(slot)

    def without_graph(self) -> TrtRunner:
        """The same engine, each call enqueued anew; closed on its own, before or after this one."""
        self._require_open()
        runner = TrtRunner.__new__(TrtRunner)
        try:
            runner._start(self._engine.shared(), False, self._most)
        except EngineError:  # no room for a second context: before TensorRT 10 that is the rule
            runner._start(self._engine.again(), False, self._most)
        return runner

    def close(self) -> None:
        """Waits for calls that run, then gives everything back. May be called twice, and does nothing after a fork."""
        if self._closed or os.getpid() != self._process:
            return
        with self._changed:
            already, self._closed = self._closed, True
            # For ever: nobody takes a slot past it, and whoever waits is told that it is closed.
            self._queue.append(None)
            self._changed.notify_all()
            for _ in () if already else self._slots:
                while self._popped() is None:
                    self._changed.wait()
        if not already:
            _open.discard(self)
            self._finalizer()

    def _of_anything(self, images: Any) -> Float32:
        found = images if isinstance(images, DeviceImages) else device_images(images)
        return self.logits(np.asarray(images)) if found is None else self._of_device(found)

    def _of_device(self, found: DeviceImages) -> Float32:
        if found.shape == self._shape:
            found = replace(found, shape=(1, *found.shape))
        if found.shape[1:] != self._shape:
            raise self._refused(str(found.shape))
        if self._engine.input.dtype != "UINT8":
            raise self._refused(f"uint8 on the GPU, and the engine reads {self._engine.input.dtype}")
        if not self._smallest <= found.shape[0] <= self._largest:
            return self._in_parts(found)
        slot = self._take()
        try:
            return slot.logits_of_device(found)
        finally:
            self._give(slot)

    def _in_parts(self, images: UInt8 | DeviceImages) -> Float32:
        """Batches that the plan takes, in order; no images give no rows."""
        parts = [np.zeros((0, *self._engine.outputs[0].shape), np.float32)]
        for start, stop in self._cuts(images.shape[0]):
            part = images.part(start, stop) if isinstance(images, DeviceImages) else images[start:stop]
            parts.append(self._of_device(part) if isinstance(part, DeviceImages) else self.logits(part))
        return np.concatenate(parts)

    def _cuts(self, count: int) -> list[tuple[int, int]]:
        """Where to cut: the largest batches and a rest; a rest that is too small takes some of the batch before."""
        if count == 0:
            return []
        stops = [*range(self._largest, count, self._largest), count]
        if len(stops) > 1 and stops[-1] - stops[-2] < self._smallest:
            stops[-2] = count - self._smallest
        cuts = list(zip([0, *stops[:-1]], stops, strict=True))
        if any(stop - start < self._smallest for start, stop in cuts):
            raise DataError(
                f"{self._engine.plan.name} takes no batch this small",
                found=f"{count} images",
                allowed=f"{self._smallest} to {self._largest} in a call, or multiples",
                fix=f"build it for smaller batches: `toolkit.build(BUNDLE, batch=(1, 8, {self._largest}))`",
            )
        return cuts

    def _take(self) -> StreamSlot:
        """A slot that nobody uses: a free one, a new one, or one that is given back; first come, first served.

        Without an order, threads that call in a loop would take each slot again before a waiting one has woken up.
        """
        with self._changed:
            ticket = object()
            self._queue.append(ticket)
            try:
                while True:
                    self._require_open()
                    if self._queue[0] is ticket and (slot := self._at_once()):
                        return slot
                    self._changed.wait()
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _at_once(self) -> StreamSlot | None:
        """A free slot or a new one, without waiting; `_changed` is held."""
        return self._popped() or (self._another() if len(self._slots) < self._most else None)

    def _popped(self) -> StreamSlot | None:
        """A free slot; `logits` takes one without asking anybody, so looking first would not do."""
        try:
            return self._free.pop()
        except IndexError:
            return None

    def _another(self) -> StreamSlot | None:
        """One more slot, unless the plan or the memory has no room for it: then there are as many as there are."""
        try:
            self._slots.append(StreamSlot(self._engine, self._graphs))
            return self._slots[-1]
        except (EngineError, CudaOutOfMemory) as error:
            self._most, self._fewer = len(self._slots), f", {len(self._slots)} at once: {error.what}"
            return None

    def _give(self, slot: StreamSlot) -> None:
        self._free.append(slot)
        if self._queue:
            with self._changed:
                self._changed.notify_all()

    def _let_nobody_in(self) -> None:
        """Every call waits from now on, for ever; those that run are waited for, but no longer than `_AT_EXIT_S`."""
        end = time.monotonic() + _AT_EXIT_S
        with self._changed:
            self._queue.insert(0, None)
            while len(self._free) < len(self._slots) and time.monotonic() < end:
                self._changed.wait(0.01)

    def _require_open(self) -> None:
        if self._closed:
            raise ToolkitError("this runner is closed", fix="open the engine again")

    def _refused(self, found: str) -> DataError:
        height, width, channels = (*self._shape, 0, 0, 0)[:3]
        return DataError(
            f"{self._engine.plan.name} does not take these images",
            found=found,
            allowed=f"uint8 (N, {height}, {width}, {channels})",
        )


def _give_back(slots: list[StreamSlot], engine: LoadedEngine, process: int) -> None:
    """Slots, then the engine. In a forked child CUDA does not work: there they are kept, so that nothing calls it."""
    if os.getpid() != process:
        _keep(slots, engine)
        return
    failed: list[Exception] = []
    while slots:
        try:
            slots.pop().close()
        except Exception as error:  # the others and the engine are closed all the same
            failed.append(error)
    engine.close()
    if failed:
        raise failed[0]


def _keep(*things: Any) -> None:
    """Lets nothing free them any more: the end of the process does."""
    for thing in things:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


_open: weakref.WeakSet[TrtRunner] = weakref.WeakSet()


@atexit.register
def _at_exit() -> None:
    """Closes what a program forgot to close, before Python takes TensorRT apart in any order.

    Not while another thread lives, which may be in a call or make the next one: daemon threads run on until the very
    end, and what is freed under them corrupts the heap. Then everything is kept, and whoever calls from now on waits:
    TensorRT's bindings take Python's lock in a destructor, where a thread that is ended aborts the process.
    """
    alone = len(threading.enumerate()) == 1
    for runner in list(_open):
        if os.getpid() != runner._process:  # after a fork: a lock may be held by a thread that is not here
            _keep(runner)
        elif alone and len(runner._free) == len(runner._slots):
            with suppress(Exception):
                runner.close()
        else:
            _keep(runner)
            runner._let_nobody_in()


def _forked() -> ToolkitError:
    return ToolkitError(
        "this runner was opened before the process forked, and CUDA does not work on in the child",
        fix="open the engine in each worker, or start them with multiprocessing's 'spawn'",
    )
