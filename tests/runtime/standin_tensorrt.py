"""A stand-in for TensorRT's runtime on the stand-in libcuda: the calls and the rules of each generation, no GPU.

A "plan" is an ONNX file behind a line of JSON (`plan_from_onnx`); `execute_async_v3` puts a kernel into the stream
that computes it with ONNX Runtime on the addresses that were set. So capture, replay and a forgotten wait are
real. What TensorRT's guide forbids is written down in `violations`, because the real one would only misbehave: a replay
of a graph whose context was changed, capturing before a first call with the new shape, one context in two threads.
Which names exist in which version was read off the wheels.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import threading
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np

violations: list[str] = []
computed: list[int] = []  # batch sizes in the order in which they were computed
constructed: list[str] = []  # Runtimes that were made
TYPES = {"tensor(float)": "FLOAT", "tensor(float16)": "HALF", "tensor(uint8)": "UINT8", "tensor(int64)": "INT64"}
NUMPY = {"FLOAT": "float32", "HALF": "float16", "BF16": "uint16", "UINT8": "uint8", "INT64": "int64"}

LAYERS = (("stem/conv + stem/relu", 0.5), ("reformat", 0.125), ("fc", 0.25), ("reformat", 0.125))  # ms an image

_cuda = ctypes.CDLL("libcuda.so.1")
_HostFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_work: dict[int, Any] = {}
_numbers = itertools.count(1)


_perform = _HostFunction(lambda number: _work[number]())


def plan_from_onnx(onnx: bytes, smallest: int = 1, largest: int = 8, scratch: int = 4096, works: bool = True) -> bytes:
    """A plan that the stand-in runs; one that does not `work` leaves its output as it is, at no cost."""
    head = {"smallest": smallest, "largest": largest, "scratch": scratch, "works": works}
    return json.dumps(head).encode() + b"\n" + onnx


def module(
    version: str = "10.3.0",
    shared_profile: bool | str = True,
    output: str | None = None,
    tells_output: bool = True,
    cuda_fails: int = 0,
) -> Any:
    """A module as `import tensorrt` gives it: "8.6.1", "10.3.0", "11.4.0", or "1.7.1" for TensorRT-RTX.

    Args:
        shared_profile: a profile serves several contexts, as from TensorRT 10 on; "one context" makes no second one.
        output: the type that the output is given as, such as "HALF".
        tells_output: the engine knows the output's shape before it is told a batch.
        cuda_fails: TensorRT's CUDA does not start, with this error; what it gives then ends the process if it is used.
    """
    major = int(version.partition(".")[0])
    flags = {"TF32": 7} | ({"FP16": 0, "INT8": 1} if major in (8, 10) else {})
    trt = SimpleNamespace(__version__=version, ILogger=_Logger, BuilderFlag=SimpleNamespace(**flags))
    trt.IProfiler = _Profiler
    trt.IExecutionContext = type("IExecutionContext", (_Context,), {} if major == 8 else {"set_device_memory": _memory})
    if major != 8:
        trt.ExecutionContextAllocationStrategy = SimpleNamespace(STATIC="STATIC", USER_MANAGED="USER_MANAGED")
    if major == 1:
        trt.CudaGraphStrategy = SimpleNamespace(DISABLED="DISABLED", WHOLE_GRAPH_CAPTURE="WHOLE_GRAPH_CAPTURE")
    if cuda_fails:
        trt.Builder, trt.Runtime = _cannot_start(trt, major, cuda_fails)
        return trt
    if major == 8:
        trt.Builder = lambda logger: object()
    trt.Runtime = lambda logger: _Runtime(trt, logger, major, shared_profile, output, tells_output)
    return trt


class _Logger:
    pass


class _Profiler:
    """What a program derives from to hear of layers; the bindings refuse one that was not made so."""

    def __init__(self) -> None:
        self.made = True

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        raise NotImplementedError("a program overrides it")


def _cannot_start(trt: Any, major: int, code: int) -> tuple[Any, Any]:
    """Builder and Runtime where CUDA does not start, as seen with 8.6, 10.6, 10.15 and 11.2 and an old driver."""

    class Dead:
        def __init__(self, logger: Any) -> None:
            constructed.append(trt.__version__)
            logger.log(_named("WARNING" if major == 8 else "ERROR"), f"CUDA initialization failure with error: {code}")
            if major == 8:
                violations.append("a Runtime of 8.6 without CUDA, which ends the process")

        def __getattr__(self, name: str) -> Any:
            violations.append(f"{name} of a Runtime without CUDA, which ends the process")
            raise AttributeError(name)

        def __del__(self) -> None:
            violations.append("a Runtime without CUDA was freed, which ends the process")

    def builder(logger: Any) -> Any:
        if major != 8:
            violations.append("a Builder without CUDA, which ends the process in 10.6")
        logger.log(_named("WARNING"), f"CUDA initialization failure with error: {code}")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    return builder, Dead


def _named(name: str) -> Any:
    return SimpleNamespace(name=name)


class _Runtime:
    def __init__(self, trt: Any, logger: Any, major: int, shared: bool | str, output: str | None, tells: bool) -> None:
        constructed.append(trt.__version__)
        self.trt, self.logger, self.major, self.shared, self.output, self.tells = (
            trt,
            logger,
            major,
            shared,
            output,
            tells,
        )
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        head, newline, onnx = plan.partition(b"\n")
        if not newline:
            self.logger.log(_named("ERROR"), "Serialization assertion plan->header.magicTag failed")
            return None
        return _Engine(self, json.loads(head), onnx)


class _Engine:
    num_io_tensors = 2

    def __init__(self, runtime: _Runtime, head: dict[str, Any], onnx: bytes) -> None:
        import onnxruntime

        from toolkit.runtime.ort.quirks import keep_float_biases

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        keep_float_biases(options)  # as TensorRT does
        self.runtime, self.head = runtime, head
        self.session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self.tensors = {t.name: t for t in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.names: list[str] = list(self.tensors)
        self.profile_holder: Any = lambda: None
        setattr(self, "device_memory_size" if runtime.major == 8 else "device_memory_size_v2", head["scratch"])
        if runtime.major == 8:
            self.create_execution_context_without_device_memory = lambda: self.create_execution_context("USER_MANAGED")
        if runtime.major == 1:
            self.create_runtime_config = _RuntimeConfig

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> Any:
        return _named("INPUT" if name == self.names[0] else "OUTPUT")

    def get_tensor_location(self, name: str) -> Any:
        return _named("DEVICE")

    def get_tensor_dtype(self, name: str) -> Any:
        output = self.runtime.output if name == self.names[1] else None
        return _named(output or TYPES[self.tensors[name].type])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = self.full_shape(name)
        return shape if name == self.names[0] or self.runtime.tells else (-1,) * len(shape)

    def full_shape(self, name: str) -> tuple[int, ...]:
        return tuple(n if isinstance(n, int) else -1 for n in self.tensors[name].shape)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert name == self.names[0], "for outputs it gives dims that cannot be read"
        smallest, largest = self.head["smallest"], self.head["largest"]
        return [(n, *self.get_tensor_shape(name)[1:]) for n in (smallest, smallest, largest)]

    def create_execution_context(self, strategy: Any = "STATIC") -> Any:
        if self.runtime.shared == "one context" and self.profile_holder() is not None:
            self.runtime.logger.log(_named("ERROR"), "No room for another execution context")
            return None
        return self.runtime.trt.IExecutionContext(self, strategy)


class _RuntimeConfig:
    """Of TensorRT-RTX: `create_execution_context` takes it."""

    cuda_graph_strategy = "DISABLED"
    strategy = "STATIC"

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy


class _Context:
    def __init__(self, engine: _Engine, strategy: Any) -> None:
        self.engine, self.config = engine, strategy if isinstance(strategy, _RuntimeConfig) else None
        self.needs_memory = (self.config.strategy if self.config else strategy) == "USER_MANAGED"
        self.device_memory = 0
        self.addresses: dict[str, int] = {}
        self.batch = self.changes = self.warm = 0
        self.busy = threading.Lock()
        self.profiler: Any = None
        first = engine.profile_holder() is None or engine.runtime.shared is True
        self.active_optimization_profile = 0 if first else -1
        if first:
            engine.profile_holder = weakref.ref(self)

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        """Raises where the profile is taken; the bindings up to 10.12 do so without Python's lock, and crash."""
        self.engine.runtime.logger.log(_named("ERROR"), "Profile 0 has been chosen by another IExecutionContext")
        version = tuple(int(part) for part in self.engine.runtime.trt.__version__.split(".")[:2])
        if (8, 0) <= version < (10, 13):
            violations.append("asked for a taken profile, which ends the process")
        raise RuntimeError("Error in set optimization profile async.")

    def is_stream_capturable(self, stream: int) -> bool:
        return self.needs_memory

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert type(shape) is tuple
        assert all(type(n) is int for n in shape), "numpy's integers are not promised to convert"
        head = self.engine.head
        if not head["smallest"] <= shape[0] <= head["largest"] or shape[1:] != self.engine.full_shape(name)[1:]:
            self.engine.runtime.logger.log(_named("ERROR"), f"Static dimension mismatch: {shape}")
            return False
        self.batch, self.changes = shape[0], self.changes + 1
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.batch, *self.engine.full_shape(name)[1:])

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert type(address) is int
        if address % 256:
            self.engine.runtime.logger.log(_named("ERROR"), f"Address of {name} is not aligned")
            return False
        self.addresses[name], self.changes = address, self.changes + 1
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        if self.active_optimization_profile < 0 or (self.needs_memory and not self.device_memory):
            self.engine.runtime.logger.log(_named("ERROR"), "No profile or no memory")
            return False
        if not self.busy.acquire(blocking=False):
            violations.append("one context in two threads")
        capturing = ctypes.c_int()
        assert _cuda.cuStreamIsCapturing(ctypes.c_void_p(stream_handle), ctypes.byref(capturing)) == 0
        if capturing.value and self.warm != self.changes:
            violations.append("captured before a first call with the new shape and addresses")
        self.warm = self.changes
        code = self._put(stream_handle, bool(capturing.value))
        if self.profiler is not None:
            self._report(stream_handle, bool(capturing.value))
        self.busy.release()
        return bool(code == 0)

    def _report(self, stream: int, capturing: bool) -> None:
        """As `enqueue_emits_profile` does, which is on: waits for the stream, then tells every layer."""
        if capturing:
            violations.append("captured a context that has a profiler")
        assert isinstance(self.profiler, _Profiler)
        assert self.profiler.made
        assert _cuda.cuStreamSynchronize(ctypes.c_void_p(stream)) == 0
        for name, ms in LAYERS:
            self.profiler.report_layer_time(name, ms * self.batch)

    def _put(self, stream: int, capturing: bool) -> int:
        if not self.engine.head["works"]:
            return int(_cuda.stub_kernel(ctypes.c_void_p(stream), _cuda.stub_nothing, None))
        number, batch, changes, addresses = next(_numbers), self.batch, self.changes, dict(self.addresses)

        def work() -> None:
            if capturing and changes != self.changes:
                violations.append("a graph was replayed whose context had been changed")
            self._compute(batch, addresses)
            if not capturing:
                del _work[number]

        _work[number] = work
        return int(_cuda.stub_kernel(ctypes.c_void_p(stream), _perform, ctypes.c_void_p(number)))

    def _compute(self, batch: int, addresses: dict[str, int]) -> None:
        source, target = self.engine.names
        computed.append(batch)
        images = self._memory(source, batch, addresses)
        logits = self.engine.session.run([target], {source: images})[0]
        into = self._memory(target, batch, addresses)
        into[...] = logits.view(np.uint32) >> 16 if self.engine.runtime.output == "BF16" else logits

    def _memory(self, name: str, batch: int, addresses: dict[str, int]) -> Any:
        kind = self.engine.get_tensor_dtype(name).name
        dtype: Any = np.dtype(NUMPY[kind])
        shape = (batch, *self.engine.full_shape(name)[1:])
        size_bytes = int(np.prod(shape)) * dtype.itemsize
        if not _cuda.stub_is_device(ctypes.c_uint64(addresses[name]), ctypes.c_size_t(size_bytes)):
            violations.append(f"{name} lies outside device memory")
            return np.zeros(shape, dtype)
        memory = (ctypes.c_uint8 * size_bytes).from_address(addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)


def _memory(self: Any, address: int, size_bytes: int) -> None:
    assert size_bytes >= self.engine.head["scratch"]
    self.device_memory = address
