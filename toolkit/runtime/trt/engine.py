"""A plan in memory, checked before TensorRT sees it: its tensors, its range of batches, its execution contexts.

Only calls that TensorRT has had from 8.6 to 11 and in RTX are made here; where a version has something of its own, it
is looked for by name and not by version.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.contracts import UInt8
from toolkit.errors import EngineError
from toolkit.runtime.cuda import Cuda, open_cuda
from toolkit.runtime.cuda.libcuda import choose_wait, keep_primary_context
from toolkit.runtime.driver import probe_driver
from toolkit.runtime.trt.causes import OUT_OF_MEMORY, cause_of
from toolkit.runtime.trt.module import NEEDS_NO_GPU, ONE_AT_A_TIME, Log, TensorRT, require_cuda_starts
from toolkit.runtime.trt.preflight import Plan, plan_of_file, require_runs_here, tensorrt_for_plan

# numpy's names by TensorRT's; trt.nptype fails on some versions and types. BF16 is read as bits.
DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "BF16": "uint16", "INT8": "int8", "UINT8": "uint8", "INT32": "int32",
    "INT64": "int64", "BOOL": "bool",
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """An input or output: TensorRT's name of its type, and its shape behind the batch."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def item_bytes(self) -> int:
        """Bytes of one image's part."""
        return math.prod(self.shape) * np.dtype(DTYPES[self.dtype]).itemsize

    def view(self, memory: UInt8, count: int) -> NDArray[Any]:
        """The parts of `count` images at the beginning of some bytes."""
        items: NDArray[Any] = memory[: count * self.item_bytes].view(DTYPES[self.dtype])
        return items.reshape(count, *self.shape)


class ProfileTaken(EngineError):
    """Another execution context holds the plan's profile: before TensorRT 10 one profile serves one context."""


class LoadedEngine:
    """A deserialized plan with what it needs to run, shared by runners and closed by the last of them.

    Attributes:
        input: the images. outputs: the logits first.
        wait: how a thread waits for the GPU in this process's CUDA context: "auto", "spin", "yield" or "block".
        smallest, largest: images in one call.
        scratch_bytes: memory that an execution context works in and that contexts may share, if not at once.

    Raises:
        EngineError: the plan is not whole, not for this machine, or not a classifier's. BackendUnavailable: no driver,
            no TensorRT, one that cannot start CUDA, or no CUDA for Python.
    """

    def __init__(
        self, plan: Path | Plan, cuda: str = "auto", rebuild: str = "`toolkit.build(BUNDLE)`", wait: str = "auto"
    ) -> None:
        driver = probe_driver()
        checked = plan if isinstance(plan, Plan) else plan_of_file(plan, rebuild)
        sidecar, data = checked.sidecar, checked.data
        self.tensorrt: TensorRT = tensorrt_for_plan(sidecar, driver)
        require_runs_here(checked.path, sidecar, self.tensorrt, driver, rebuild)
        self.plan, self.rebuild, self.device = checked.path, rebuild, driver.devices[0].name
        self._sha256 = str(sidecar["plan"]["sha256"])
        self._choice, self._wait = cuda, wait
        self.wait = choose_wait(wait)
        self.flags: tuple[str, ...] = tuple(sidecar["flags"])
        self.log = Log(self.tensorrt.module)
        self._lock, self._users = threading.Lock(), 1
        self.cuda: Cuda = open_cuda(cuda, driver)
        keep_primary_context()
        entered = self.cuda.enter()
        try:
            require_cuda_starts(self.tensorrt, driver)
            with ONE_AT_A_TIME:
                self._runtime, self._engine = self._deserialized(data, sidecar.get("dla_core"))
            self.input, self.outputs = self._tensors()
            self.smallest, self.largest = self._batches(self.input)
            size = getattr(self._engine, "device_memory_size_v2", None)  # 0 is an answer
            self.scratch_bytes = int(self._engine.device_memory_size if size is None else size)
        except BaseException:
            self._runtime = self._engine = None
            self.cuda.leave(entered)
            self.cuda.close()
            raise
        self.cuda.leave(entered)

    def _deserialized(self, data: bytes, dla_core: int | None) -> tuple[Any, Any]:
        runtime = self.tensorrt.module.Runtime(self.log.logger)
        if "VERSION_COMPATIBLE" in self.flags and hasattr(runtime, "engine_host_code_allowed"):
            runtime.engine_host_code_allowed = True  # the plan carries a lean runtime; its hash was checked
        if dla_core is not None:
            runtime.DLA_core = dla_core  # before the plan is read, or it runs on core 0
        engine = runtime.deserialize_cuda_engine(data)
        if engine is None:
            del runtime  # the error's traceback would keep it, and a later collection may wait for a build's lock
            raise self.failure(f"{self.tensorrt.name} cannot read {self.plan.name}")
        return runtime, engine

    def _tensors(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name).name == "INPUT"]
        outputs = [name for name in names if name not in inputs]
        images = [self._tensor(name, tuple(engine.get_tensor_shape(name))) for name in inputs]
        if len(images) != 1 or not outputs or images[0].dtype not in ("UINT8", "FLOAT", "HALF", "INT32"):
            raise EngineError(
                f"{self.plan.name} is not a classifier's engine",
                found=f"inputs {[f'{t.name} {t.dtype}' for t in images]}, outputs {outputs}",
                allowed="one input of images, logits as the first output",
            )
        return images[0], tuple(self._tensor(name, self._shape_of_output(name, images[0])) for name in outputs)

    def _tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        dtype = self._engine.get_tensor_dtype(name).name
        on_device = self._engine.get_tensor_location(name).name == "DEVICE"
        if dtype not in DTYPES or min(shape[1:], default=0) < 0 or not on_device:
            raise EngineError(f"{self.plan.name} has a tensor that no image fits", found=f"{name} {dtype} {shape}")
        return Tensor(name, dtype, tuple(int(length) for length in shape[1:]))

    def _shape_of_output(self, name: str, images: Tensor) -> tuple[int, ...]:
        """Also of one that TensorRT knows only once it is told a batch, such as behind a Reshape to (0, -1)."""
        shape = tuple(self._engine.get_tensor_shape(name))
        if min(shape[1:], default=0) >= 0:
            return shape
        context = self._engine.create_execution_context()
        if context is None or context.set_input_shape(images.name, (self._batches(images)[0], *images.shape)) is False:
            raise self.failure(f"{self.plan.name} does not say what shape {name} has")
        return tuple(context.get_tensor_shape(name))

    def _batches(self, images: Tensor) -> tuple[int, int]:
        """Of the first optimization profile; an engine of fixed size takes that size only."""
        fixed = int(self._engine.get_tensor_shape(images.name)[0])
        if fixed >= 0:
            return fixed, fixed
        low, _, high = self._engine.get_tensor_profile_shape(images.name, 0)
        return int(low[0]), int(high[0])

    @property
    def is_rtx(self) -> bool:
        """TensorRT-RTX, which captures graphs of its own unless its engine leaves memory to the caller."""
        return self.tensorrt.kind == NEEDS_NO_GPU

    @property
    def leaves_memory_to_caller(self) -> bool:
        """Built with RTX's REQUIRE_USER_ALLOCATION: only then may somebody else capture it."""
        return "REQUIRE_USER_ALLOCATION" in self.flags

    @property
    def shares_memory(self) -> bool:
        """Contexts can be given memory to work in: TensorRT's guide wants one context a graph, and memory is scarce."""
        if self.scratch_bytes == 0 or (self.is_rtx and not self.leaves_memory_to_caller):
            return False
        return self._user_managed is not None or hasattr(self._engine, "create_execution_context_without_device_memory")

    @property
    def _user_managed(self) -> Any:
        """The strategy of 10.3 and later; None before, where a context is made without memory."""
        trt = self.tensorrt.module
        if not hasattr(trt.IExecutionContext, "set_device_memory"):
            return None
        return getattr(getattr(trt, "ExecutionContextAllocationStrategy", None), "USER_MANAGED", None)

    def new_context(self, scratch: int, stream: int, own_graphs: bool) -> Any:
        """An execution context of the first profile.

        Args:
            scratch: address of `scratch_bytes` of device memory, or 0: the context has memory of its own.
            stream: handle of the stream that it will run in.
            own_graphs: RTX captures and replays by itself.

        Raises:
            ProfileTaken: this plan has no room for a second one. EngineError: TensorRT made none, in its words.
        """
        with self._lock:
            context = self._rtx_context(scratch, own_graphs) if self.is_rtx else self._context(scratch)
            if context is None:
                raise self.failure(f"{self.tensorrt.name} made no execution context of {self.plan.name}")
            if scratch and self._user_managed is not None:
                context.set_device_memory(scratch, self.scratch_bytes)
            elif scratch:
                context.device_memory = scratch
            if context.active_optimization_profile < 0 and self._profile_is_taken(context, stream):
                raise ProfileTaken(f"the profile of {self.plan.name} serves one execution context", fix=self.rebuild)
            return context

    def _profile_is_taken(self, context: Any, stream: int) -> bool:
        """Where it is the binding raises; up to 10.12 it does so without Python's lock, and crashes.

        A plan whose profile may be shared gives it to every context from the start (8.6.1 and 10.6.0 on an H200).
        """
        if not self.is_rtx and self.tensorrt.release < (10, 13):
            return True
        try:
            return context.set_optimization_profile_async(0, stream) is False
        except RuntimeError:
            return True

    def _context(self, scratch: int) -> Any:
        if not scratch:
            return self._engine.create_execution_context()  # no argument: two overloads would take a None
        if self._user_managed is not None:
            return self._engine.create_execution_context(self._user_managed)
        return self._engine.create_execution_context_without_device_memory()

    def _rtx_context(self, scratch: int, own_graphs: bool) -> Any:
        trt, config = self.tensorrt.module, self._engine.create_runtime_config()
        if scratch:
            config.set_execution_context_allocation_strategy(self._user_managed)
        if hasattr(config, "cuda_graph_strategy"):
            strategy = trt.CudaGraphStrategy
            config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE if own_graphs else strategy.DISABLED
        return self._engine.create_execution_context(config)

    def failure(self, what: str) -> EngineError:
        """An EngineError with the last three things that TensorRT complained of, and what mends them."""
        said = self.log.errors()[-3:]
        full = cause_of(said) is OUT_OF_MEMORY  # seen on an H200: a plan that finds no room is said to be unreadable
        return EngineError(
            f"{what}: the GPU has no memory left for it" if full else what,
            found="\n           ".join(said) or "TensorRT said nothing",
            fix="end other programs that use the GPU, or open fewer engines" if full else self.rebuild,
        )

    def shared(self) -> LoadedEngine:
        """The same engine for one more user."""
        with self._lock:
            self._users += 1
        return self

    def again(self) -> LoadedEngine:
        """The plan deserialized once more, for an engine that has no room for another execution context.

        Raises:
            EngineError: the file is another one by now.
        """
        plan = plan_of_file(self.plan, self.rebuild)
        if plan.sidecar["plan"]["sha256"] != self._sha256:
            raise EngineError(f"{self.plan} was replaced since it was loaded", fix="load the bundle again")
        return LoadedEngine(plan, self._choice, self.rebuild, self._wait)

    def close(self) -> None:
        """One user less; the last one gives back engine, runtime and the primary context, in that order."""
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            entered = self.cuda.enter()
            with ONE_AT_A_TIME:
                self._engine = None
                self._runtime = None
            self.cuda.leave(entered)
            self.cuda.close()
