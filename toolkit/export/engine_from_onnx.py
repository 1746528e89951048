"""Builds a TensorRT plan from an ONNX file: numpy and TensorRT alone, with RTX also on a machine without a GPU."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import BackendUnavailable, EngineError
from toolkit.export.resolver import WEAK_OPSET_LIMIT
from toolkit.files import os_errors, sha256_of_file, write_bytes, write_json
from toolkit.runtime.census import Census, census_from_log
from toolkit.runtime.driver import Driver, probe_driver
from toolkit.runtime.preflight import SIDECAR_FORMAT, sidecar_path
from toolkit.runtime.trt import NEEDS_NO_GPU, Log, TensorRT, find_tensorrt

Progress = Callable[[str, int, int], None]
Profile = dict[str, list[list[int]]]

# numpy's names, by TensorRT's: trt.nptype fails on some versions and types, and the integers move between majors.
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "FP8": "float8", "BOOL": "bool"}

_CURES = (
    ("Plugin not found", "TensorRT has no such operator: export the model without it"),
    ("for Turing", "leave SM75 out of the compute capabilities, or build the FP16 file"),
    ("ould not find any implementation", "raise workspace_mib: this often hides that memory ran out"),
    ("out of memory", "free GPU memory, or lower the largest batch"),
    ("must be of same type", "cast weights and biases together with their layer's input"),
    ("Failed to parse the ONNX model", "the file is cut short or no ONNX file: export it again"),
)


@dataclass(frozen=True)
class Engine:
    """A plan on disk, the sidecar beside it (`<path>.json`) and its layers, where the build log named them."""

    path: Path
    sidecar: dict[str, Any]
    census: Census | None


def engine_from_onnx(
    onnx: Path,
    destination: Path,
    *,
    batch: tuple[int, int, int] = (1, 8, 64),
    compute_capabilities: tuple[str, ...] = (),
    workspace_mib: int | None = None,
    on_progress: Progress | None = None,
) -> Engine:
    """Builds a plan and writes it whole, its bytes untouched, with `<destination>.json` beside it.

    The sidecar's hash of the model covers the ONNX file itself, not weights kept in files beside it.
    Ctrl-C ends the build at the next step (where TensorRT has a progress monitor) and leaves nothing behind.

    Args:
        batch: the smallest, the best served and the largest batch; inputs of a fixed size ignore it.
        compute_capabilities: for RTX, such as ("SM86", "SM89"); none makes a plan for all that it supports.
        workspace_mib: the scratch memory that a layer may use; None is TensorRT's default, all there is.
        on_progress: called with (phase, steps done, steps) from another thread.

    Raises:
        BackendUnavailable: no TensorRT that builds, or a full TensorRT without a driver.
        EngineError: an argument, the file, or a node of it is refused, or the build failed; with TensorRT's words.
    """
    onnx, destination = Path(onnx), Path(destination)
    _require_arguments(onnx, batch, workspace_mib)
    if destination.resolve() == onnx.resolve():
        raise EngineError("the engine would overwrite its ONNX file", found=destination, fix="name another file")
    driver = probe_driver()
    tensorrt = require_can_build(find_tensorrt(driver=driver), driver)
    _require_capabilities(tensorrt, driver, compute_capabilities)
    log, started, monitor = Log(tensorrt.module), time.perf_counter(), _Monitor(on_progress)
    build = _Build(tensorrt, log, onnx, batch, compute_capabilities, workspace_mib)
    plan, facts = _interruptible(lambda: build.run(monitor), monitor)
    census = census_from_log(message for _, message in log.lines)
    sidecar = {
        "format": SIDECAR_FORMAT,
        "tensorrt": {"kind": tensorrt.kind, "version": tensorrt.version},
        "builder": _builder(tensorrt, driver),
        "compute_capabilities": list(compute_capabilities),
        "onnx": {"file": onnx.name, "sha256": sha256_of_file(onnx)},
        "plan": {"sha256": hashlib.sha256(plan).hexdigest(), "bytes": len(plan)},
        **facts,
        "build_seconds": round(time.perf_counter() - started, 3),
        "census": None if census is None else census.as_dict(),
        "census_reason": None if census is not None else f"{tensorrt.name} lists no layers in its build log",
    }
    _write_both(destination, plan, sidecar)
    return Engine(destination, sidecar, census)


def _write_both(destination: Path, plan: bytes, sidecar: dict[str, Any]) -> None:
    """Plan and sidecar, or neither: a plan without its sidecar could not be trusted."""
    write_bytes(destination, plan)
    try:
        write_json(sidecar_path(destination), sidecar)
    except BaseException:
        with contextlib.suppress(OSError):
            destination.unlink()
        raise


def network_flags(trt: Any) -> int:
    """The argument of create_network: strong typing wherever it exists, explicit batch on 8.x."""
    flags = trt.NetworkDefinitionCreationFlag
    name = "STRONGLY_TYPED" if hasattr(flags, "STRONGLY_TYPED") else "EXPLICIT_BATCH"
    return 1 << int(getattr(flags, name))


def precision_flags(trt: Any, network: Any) -> tuple[str, ...]:
    """Names of the builder flags that let a weakly typed network (8.x) keep the types of its file.

    A file with QuantizeLinear needs INT8, and FP16 for the rest; one with float16 tensors needs FP16. Strongly typed
    networks refuse such flags.
    """
    if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        return ()
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    if any(layer.type == trt.LayerType.QUANTIZE for layer in layers):
        return ("FP16", "INT8")
    outputs = (layer.get_output(i) for layer in layers for i in range(layer.num_outputs))
    inputs = (network.get_input(i) for i in range(network.num_inputs))
    return ("FP16",) if any(tensor.dtype == trt.DataType.HALF for tensor in (*inputs, *outputs)) else ()


def profile_from_network(network: Any, batch: tuple[int, int, int]) -> Profile:
    """{input: [min, opt, max]} with shapes as lists, the batch put where the network leaves axis 0 open.

    Raises:
        EngineError: another axis is open too.
    """
    profile = {}
    for tensor in (network.get_input(i) for i in range(network.num_inputs)):
        shape = [int(n) for n in tensor.shape]
        if any(n < 0 for n in shape[1:]):
            raise EngineError(
                f"input {tensor.name} is dynamic in more than its batch",
                found=shape,
                allowed="one open axis, the first",
                fix="export the model with fixed height, width and channels",
            )
        profile[tensor.name] = [[n if size < 0 else size for size in shape] for n in batch]
    return profile


def require_can_build(tensorrt: TensorRT, driver: Driver) -> TensorRT:
    """The same TensorRT, if it can build here.

    Raises:
        BackendUnavailable: it is a runtime only, or full TensorRT and there is no driver.
    """
    if not tensorrt.can_build:
        raise BackendUnavailable(
            f"{tensorrt.name} runs engines but cannot build them",
            allowed="tensorrt or tensorrt-rtx",
            fix="pip install 'trt-edge-toolkit[trt]'",
        )
    if tensorrt.kind != NEEDS_NO_GPU and not driver.available:  # its Builder may end the process
        raise BackendUnavailable(
            f"{tensorrt.name} builds engines only on a machine with a GPU",
            found=driver.reason,
            allowed="an NVIDIA driver with a GPU, or TensorRT-RTX, which builds without",
            fix="pip install 'trt-edge-toolkit[rtx]', or run this on the device",
        )
    return tensorrt


def allowed_capabilities(trt: Any, driver: Driver) -> tuple[str, ...]:
    """Names that this TensorRT takes as compute capabilities; none for full TensorRT. CURRENT needs a GPU."""
    members = getattr(getattr(trt, "ComputeCapability", None), "__members__", {})
    unusable = {"NONE"} if driver.available else {"NONE", "CURRENT"}
    return tuple(name for name in members if name not in unusable)


def _require_arguments(onnx: Path, batch: tuple[int, int, int], workspace_mib: int | None) -> None:
    with os_errors(onnx, "read"), onnx.open("rb") as stream:
        empty = not stream.read(1)
    if empty:
        raise EngineError(f"{onnx} is empty", found="0 bytes", allowed="an ONNX file", fix="export it again")
    if len(batch) != 3 or not 1 <= batch[0] <= batch[1] <= batch[2]:
        raise EngineError(
            "the batch range is not one", found=batch, allowed="1 <= min <= opt <= max, such as (1, 8, 64)"
        )
    if workspace_mib is not None and workspace_mib < 1:
        raise EngineError("workspace_mib is too small", found=workspace_mib, allowed="at least 1 MiB, or None")


def _require_capabilities(tensorrt: TensorRT, driver: Driver, names: tuple[str, ...]) -> None:
    allowed = allowed_capabilities(tensorrt.module, driver)
    unknown = [name for name in names if name not in allowed]
    if not unknown and len(set(names)) == len(names):
        return
    raise EngineError(
        f"{tensorrt.name} cannot build for these compute capabilities",
        found=", ".join(unknown or names),
        allowed=f"each once: {', '.join(allowed)}" if allowed else "none: it builds for the GPU that it runs on",
    )


@dataclass(frozen=True)
class _Build:
    """One build, in the order in which TensorRT wants it."""

    tensorrt: TensorRT
    log: Log
    onnx: Path
    batch: tuple[int, int, int]
    compute_capabilities: tuple[str, ...]
    workspace_mib: int | None

    def run(self, monitor: _Monitor) -> tuple[bytes, dict[str, Any]]:
        """The plan's bytes and the part of the sidecar that the network knows. `is None`: empty ones are falsy."""
        trt = self.tensorrt.module
        builder = trt.Builder(self.log.logger)
        network = builder.create_network(network_flags(trt))
        if network is None:
            raise self.failure("TensorRT made no network")
        parser = trt.OnnxParser(network, self.log.logger)
        self.parse(parser, network)
        profile = profile_from_network(network, self.batch)
        config = self.configured(builder, network, profile)
        if hasattr(config, "progress_monitor") and hasattr(trt, "IProgressMonitor"):
            config.progress_monitor = monitor.for_tensorrt(trt)
        flags = [name for name, flag in trt.BuilderFlag.__members__.items() if config.get_flag(flag)]
        plan = builder.build_serialized_network(network, config)
        monitor.raise_what_stopped_it()
        if plan is None:
            raise self.failure(f"{self.tensorrt.name} did not build {self.onnx.name}")
        return bytes(plan), {
            "flags": flags,
            "profile": profile,
            "inputs": [_tensor(network.get_input(i)) for i in range(network.num_inputs)],
            "outputs": [_tensor(network.get_output(i)) for i in range(network.num_outputs)],
        }

    def parse(self, parser: Any, network: Any) -> None:
        """Fills the network from the file, external data included."""
        parsed = parser.parse_from_file(str(self.onnx))
        errors = [_parser_error(parser.get_error(i)) for i in range(parser.num_errors)]
        if not parsed:
            raise self.failure(f"{self.tensorrt.name} refuses {self.onnx.name}", tuple(errors))
        if network.num_inputs == 0 or network.num_outputs == 0:  # bytes that are not ONNX parse as an empty network
            raise EngineError(
                f"{self.onnx} is not an ONNX model",
                found=f"{network.num_inputs} inputs, {network.num_outputs} outputs",
                allowed="a whole ONNX file",
                fix="export it again",
            )
        weak = not hasattr(self.tensorrt.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
        opset = self.log.opset()
        if weak and opset is not None and opset > WEAK_OPSET_LIMIT:
            raise EngineError(
                f"{self.tensorrt.name} would read {self.onnx.name} wrongly",
                found=f"opset {opset}",
                allowed=f"opset {WEAK_OPSET_LIMIT} or older",
                fix="build the bundle's model.onnx or export with a lower opset",
            )

    def configured(self, builder: Any, network: Any, profile: Profile) -> Any:
        """The builder's config: profile, types, memory, targets."""
        trt, config = self.tensorrt.module, builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # makes the log and the inspector name layers
        for name in precision_flags(trt, network):
            config.set_flag(getattr(trt.BuilderFlag, name))
        if self.workspace_mib is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, self.workspace_mib << 20)
        if self.compute_capabilities:
            config.num_compute_capabilities = len(self.compute_capabilities)
            for i, name in enumerate(self.compute_capabilities):
                config.set_compute_capability(getattr(trt.ComputeCapability, name), i)
        ranges = builder.create_optimization_profile()
        for name, shapes in profile.items():
            ranges.set_shape(name, *(tuple(shape) for shape in shapes))
        if config.add_optimization_profile(ranges) < 0:
            raise self.failure(f"{self.tensorrt.name} refuses the batch range {self.batch}")
        return config

    def failure(self, what: str, words: tuple[str, ...] = ()) -> EngineError:
        """An EngineError with the first three things that TensorRT said, and the cure where one is known."""
        said = (words or self.log.errors())[:3]
        cure = next((cure for sign, cure in _CURES for line in said if sign in line), None)
        return EngineError(what, found="\n           ".join(said) or "TensorRT said nothing", fix=cure)


class _Monitor:
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


def _interruptible(work: Callable[[], tuple[bytes, dict[str, Any]]], monitor: _Monitor) -> tuple[bytes, dict[str, Any]]:
    """Does the work in a thread, so that Ctrl-C reaches Python here and never inside TensorRT's callbacks."""
    with ThreadPoolExecutor(1, thread_name_prefix="engine-build") as pool:
        future = pool.submit(work)
        try:
            while not wait([future], timeout=0.1).done:  # a signal that another thread took is noticed here
                pass
        except KeyboardInterrupt:
            monitor.stop.set()
            wait([future])
            raise
        return future.result()


def _parser_error(error: Any) -> str:
    """The parser's words with the ONNX node's name, which 8.x gives only by number."""
    name = error.node_name() if hasattr(error, "node_name") else ""
    text = str(error)
    return text if not name or name in text else f"node {name}: {text}"


def _tensor(tensor: Any) -> dict[str, Any]:
    name = tensor.dtype.name
    return {"name": tensor.name, "dtype": _DTYPES.get(name, name.lower()), "shape": [int(n) for n in tensor.shape]}


def _builder(tensorrt: TensorRT, driver: Driver) -> dict[str, Any]:
    """Where the plan was made: engines of full TensorRT belong to this GPU model."""
    device = driver.devices[0] if driver.devices else None
    portable = "portable, built without a GPU" if device is None else "portable"
    return {
        "device": None if device is None else device.name,
        "compute_capability": None if device is None else device.compute_capability,
        "machine": platform.machine(),
        "note": portable if tensorrt.kind == NEEDS_NO_GPU else "for this GPU model and TensorRT version only",
    }
