"""One call at a time through an engine: a stream, its buffers, and a CUDA graph for each batch size that comes back.

A graph holds copy in, kernels and copy out; to replay it is one call of CUDA. TensorRT's guide ("CUDA graphs") wants an
execution context for each graph, untouched from its capture on, so every graph has one; those of a slot never run at
once and work in the same memory. What is asked for the first time runs without a graph, in a context kept for that.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from toolkit.contracts import Float32, UInt8
from toolkit.errors import DataError, EngineError
from toolkit.runtime.cuda import CudaError
from toolkit.runtime.cuda.device_images import DeviceImages
from toolkit.runtime.cuda.libcuda import Held, device_of_address, wait_for_stream
from toolkit.runtime.runner import Phases
from toolkit.runtime.trt.buffers import Buffers
from toolkit.runtime.trt.engine import LoadedEngine
from toolkit.runtime.trt.graphs import Execution, GraphUse, Key, Replay
from toolkit.runtime.trt.layer_times import times_by_layer
from toolkit.runtime.trt.module import ONE_AT_A_TIME

MOST_GRAPHS = 32  # a slot's; some 100 KB of device memory each for a ResNet
MOST_ADDRESSES = 8  # of a caller's device memory that get graphs; images at further ones are copied, on the device
_ALIGNMENT = 256  # bytes, of every address that TensorRT takes


class StreamSlot:
    """A stream with its buffers and contexts. Not for two threads at once.

    Raises:
        CudaError, EngineError: what failed, by name; `ProfileTaken` where the engine has no room for another slot.
    """

    def __init__(self, engine: LoadedEngine, graphs: GraphUse) -> None:
        self.engine, self.cuda, self.graphs = engine, engine.cuda, graphs
        self._replays: dict[Key, Replay] = {}
        self._seen: set[Key] = set()
        self._alone = False  # the profile serves one context only
        self._buffers, self._scratch = Buffers(engine), 0
        self._loose: Execution | None = None
        self._events: list[Any] = []
        self._stream: Any = None
        entered = self.cuda.enter()
        try:
            self._stream = self.cuda.stream()
            self._events = [self.cuda.event() for _ in range(5)]
            if engine.shares_memory:
                self._scratch = self.cuda.allocate(engine.scratch_bytes)
            self._loose = self._execution()
        except BaseException:
            self._give_back()
            raise
        finally:
            self.cuda.leave(entered)

    def logits(self, images_nhwc: UInt8) -> Float32:
        """Logits of as many images of the right form as one call takes."""
        cuda = self.cuda
        entered = cuda.enter()
        try:
            replay = self._replays.get((len(images_nhwc), 0))
            if replay is None:
                return self._first_time(len(images_nhwc), 0, images_nhwc)
            replay.pixels[...] = images_nhwc
            cuda.launch(replay.whole, self._stream)
            cuda.synchronize(self._stream)
            return replay.fresh()
        finally:
            cuda.leave(entered)

    def logits_of_device(self, images: DeviceImages) -> Float32:
        """The same for images in this GPU's memory, read where they lie."""
        cuda = self.cuda
        entered = cuda.enter()
        try:
            count, address = self._ready(images)
            replay = self._replays.get((count, address))
            if replay is None:
                return self._first_time(count, address, None)
            cuda.launch(replay.whole, self._stream)
            cuda.synchronize(self._stream)
            return replay.fresh()
        finally:
            cuda.leave(entered)

    def phases(self, images: UInt8 | DeviceImages) -> Phases:
        """Answers the images and takes the time of each part on the device, and of the launch on the host.

        Raises:
            EngineError: the device cannot be kept busy meanwhile, so that there is no time to take.
        """
        if not self.cuda.lets_go:
            raise EngineError(f"{self.cuda.name} cannot take the GPU's time", found=self.cuda.reason)
        entered = self.cuda.enter()
        try:
            key = (len(images), 0) if isinstance(images, np.ndarray) else self._ready(images)
            pixels = images if isinstance(images, np.ndarray) else None
            self._first_time(*key, pixels)
            replay = self._replay(key)
            execution = replay.execution if replay else self._loose_for(key)
            if replay and replay.compute is None:
                replay.compute = self._captured(lambda: self._enqueue(execution))
            return self._timed(key, execution, replay.compute if replay else None)
        finally:
            self.cuda.leave(entered)

    def _timed(self, key: Key, execution: Execution, graph: Any) -> Phases:
        """Computes twice on a device that is held back until all is enqueued, and takes the second interval."""
        cuda, stream, (start, loaded, warm, done, stored) = self.cuda, self._stream, self._events

        def compute() -> None:
            if graph is None:
                self._enqueue(execution)
            else:
                cuda.launch(graph, stream)

        with Held(stream) as held:
            cuda.record(start, stream)
            self._copy_in(key)
            cuda.record(loaded, stream)
            compute()
            cuda.record(warm, stream)
            began = time.perf_counter()
            compute()
            enqueue_ms = 1000 * (time.perf_counter() - began)
            cuda.record(done, stream)
            self._buffers.copy_out(key[0], stream)
            cuda.record(stored, stream)
        cuda.synchronize(stream)
        if not held.in_time:
            raise EngineError(f"{self.engine.tensorrt.name} waits for the GPU while it enqueues: its GPU time has gaps")
        h2d_ms, gpu_ms = cuda.elapsed_ms(start, loaded), cuda.elapsed_ms(warm, done)
        return Phases(h2d_ms, gpu_ms, cuda.elapsed_ms(done, stored), enqueue_ms)

    def layer_times(self, images: UInt8, calls: int) -> dict[str, list[float]]:
        """Milliseconds of each layer in each call, see `times_by_layer`; the slot is to be closed afterwards.

        Raises:
            EngineError: its calls would be replayed from a graph, of which TensorRT tells no layers.
        """
        if self.graphs.own or not self.graphs.off:
            raise EngineError("layers are timed without CUDA graphs", found=f"CUDA graphs {self.graphs}")
        assert self._loose is not None
        entered = self.cuda.enter()
        try:
            context, key = self._loose.context, (len(images), 0)
            return times_by_layer(self.engine.tensorrt.module, context, lambda: self._first_time(*key, images), calls)
        finally:
            self.cuda.leave(entered)

    def close(self) -> None:
        """Gives back graphs, contexts, memory, events and the stream; nothing may run in it."""
        entered = self.cuda.enter()
        try:
            self._give_back()
        finally:
            self.cuda.leave(entered)

    def _ready(self, images: DeviceImages) -> Key:
        """How many images, and an address that TensorRT can read from once the owner's stream has written them.

        An address that is not aligned, or is one of too many, is copied from, into the slot's own buffer.
        """
        key = (images.shape[0], images.address)
        known = key in self._replays
        if not known and key not in self._seen:
            self._require_device(images)
        if images.stream is not None and images.stream != self._stream.handle:
            wait_for_stream(self._stream, images.stream)
        if known or not (images.address % _ALIGNMENT or self._is_one_too_many(images.address)):
            return key
        self._reserve(key[0])
        self._buffers.copy_across(key[0], images.address, self._stream)
        return key[0], self._buffers.addresses[0]

    def _is_one_too_many(self, address: int) -> bool:
        addresses = {seen for _, seen in self._seen if seen not in (0, address)}
        return len(addresses) >= MOST_ADDRESSES

    def _require_device(self, images: DeviceImages) -> None:
        found = device_of_address(images.address)
        if found != 0 or images.ordinal not in (None, 0):
            where = "memory that CUDA does not know" if found is None else f"GPU {found}"
            raise DataError(
                "these images are not in the memory of the GPU that the engine runs on",
                found=where,
                allowed=f"GPU 0, {self.engine.device}",
                fix="copy them to that GPU, or to the host, or choose the GPU with CUDA_VISIBLE_DEVICES",
            )

    def _first_time(self, count: int, address: int, images: UInt8 | None) -> Float32:
        """A call that has no graph yet; the second of its kind captures one."""
        self._reserve(count)
        key = (count, address)
        replay = self._replay(key)
        if images is not None:
            self._buffers.pixels(count)[...] = images
        if replay is not None:
            self.cuda.launch(replay.whole, self._stream)
        else:
            self._put(key, self._loose_for(key))
        self.cuda.synchronize(self._stream)
        return self._buffers.fresh(count)()

    def _replay(self, key: Key) -> Replay | None:
        """The graph of a call that comes back; None at first sight and where graphs are off."""
        if self.graphs.own or self.graphs.off or key in self._replays:
            return self._replays.get(key)
        known = key in self._seen
        if self._alone:  # the one context would be captured anew at every change: only for what comes twice in a row
            self._seen.clear()
        self._seen.add(key)
        if not known:
            return None
        if len(self._replays) == MOST_GRAPHS:
            self.graphs.full = MOST_GRAPHS
            return None
        return self._new_replay(key)

    def _new_replay(self, key: Key) -> Replay | None:
        """Captures a call; what speaks against it twice turns graphs off for good, and says so."""
        try:
            try:
                return self._replay_of(key)
            except CudaError:  # a garbage collection in this thread that frees device memory breaks a capture
                with _uncollected():
                    return self._replay_of(key)
        except (CudaError, EngineError) as error:
            self.graphs.off = f"the capture failed: {error.what}" + (f" ({error.found})" if error.found else "")
            return None

    def _replay_of(self, key: Key) -> Replay:
        execution = self._execution_of_graph()
        self._bind(execution, key)
        self._enqueue(execution)  # TensorRT puts off work until the first call after a change of shape
        self.cuda.synchronize(self._stream)
        self._require_capturable(execution)
        whole = self._captured(lambda: self._put(key, execution))
        execution.graph_of = key
        self._replays[key] = Replay(execution, self._buffers.pixels(key[0]), self._buffers.fresh(key[0]), whole)
        return self._replays[key]

    def _captured(self, work: Callable[[], None]) -> Any:
        self.cuda.begin_capture(self._stream)
        try:
            work()
        except BaseException:
            self.cuda.abandon_capture(self._stream)
            raise
        return self.cuda.end_capture(self._stream)

    def _require_capturable(self, execution: Execution) -> None:
        asks = getattr(execution.context, "is_stream_capturable", None)  # RTX only
        if asks is not None and not asks(self._stream.handle):
            raise EngineError("TensorRT-RTX says that this engine cannot be captured")

    def _execution(self) -> Execution:
        return Execution(self.engine.new_context(self._scratch, self._stream.handle, self.graphs.own))

    def _execution_of_graph(self) -> Execution:
        """A context of the graph's own; the one there is, where the profile serves no second one."""
        if not self._alone:
            try:
                return self._execution()
            except EngineError:  # ProfileTaken, or TensorRT made none: the call must not fail for that
                self._alone = self.graphs.alone = True
        assert self._loose is not None
        return self._loose

    def _loose_for(self, key: Key) -> Execution:
        assert self._loose is not None
        self._bind(self._loose, key)
        return self._loose

    def _bind(self, execution: Execution, key: Key) -> None:
        """Sets shape and addresses, unless they are set; a graph that was captured from the context is dropped."""
        if execution.bound == key:
            return
        if execution.graph_of is not None:
            self._drop(self._replays.pop(execution.graph_of))
        execution.bound, context, engine = None, execution.context, self.engine
        count, addresses = key[0], [key[1] or self._buffers.addresses[0], *self._buffers.addresses[1:]]
        done = [context.set_input_shape(engine.input.name, (count, *engine.input.shape))]
        done += [
            context.set_tensor_address(tensor.name, address)
            for tensor, address in zip((engine.input, *engine.outputs), addresses, strict=True)
        ]
        if False in done:
            raise engine.failure(f"{engine.plan.name} takes no batch of {count}")
        for tensor in engine.outputs:
            shape = tuple(int(length) for length in context.get_tensor_shape(tensor.name))
            if shape != (count, *tensor.shape):
                raise EngineError(f"{engine.plan.name} gives {tensor.name} another shape", found=shape)
        execution.bound = key

    def _put(self, key: Key, execution: Execution) -> None:
        self._copy_in(key)
        self._enqueue(execution)
        self._buffers.copy_out(key[0], self._stream)

    def _copy_in(self, key: Key) -> None:
        if key[1] == 0:
            self._buffers.copy_in(key[0], self._stream)

    def _enqueue(self, execution: Execution) -> None:
        if execution.context.execute_async_v3(self._stream.handle) is False:
            execution.bound = None
            raise self.engine.failure(f"{self.engine.tensorrt.name} did not run {self.engine.plan.name}")

    def _reserve(self, count: int) -> None:
        """Room for `count` images; graphs of what had less room are dropped."""
        if count > self._buffers.capacity:
            self._forget()
            self._buffers.grow(count)

    def _drop(self, replay: Replay) -> None:
        replay.execution.graph_of = None
        for graph in (replay.whole, replay.compute):
            if graph is not None:
                with suppress(CudaError):
                    self.cuda.release_graph(graph)

    def _forget(self) -> None:
        """Drops everything that names the buffers."""
        while self._replays:
            self._drop(self._replays.popitem()[1])
        self._seen.clear()
        if self._loose is not None:
            self._loose.bound = None

    def _give_back(self) -> None:
        """All of it, as far as CUDA lets go: after a fault of the GPU it does not, and the process's end does."""
        if self._stream is None:
            return
        with suppress(CudaError):
            self.cuda.synchronize(self._stream)
        with ONE_AT_A_TIME:
            self._forget()
            self._loose = None
        self._buffers.release()
        if self._scratch:
            with suppress(CudaError):
                self.cuda.release(self._scratch)
        while self._events:
            with suppress(CudaError):
                self.cuda.release_event(self._events.pop())
        with suppress(CudaError):
            self.cuda.release_stream(self._stream)
        self._stream = None


@contextmanager
def _uncollected() -> Iterator[None]:
    """Collects garbage now, and not again before the end."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
