"""Stand-ins for full TensorRT, which needs a GPU: of each version only what a build calls, under the names it has.

Names and integers of the enums are those that were read off the wheels (`capabilities.json`); what the objects do is
what NVIDIA documents of them.
"""

from __future__ import annotations

import json
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

RECORDED = json.loads((Path(__file__).parent / "capabilities.json").read_text())


class Names:
    """An enum of pybind11's form: attributes and `__members__`; a name that a version lacks raises."""

    def __init__(self, **members: int) -> None:
        self.__dict__.update({name: Member(name, value) for name, value in members.items()})
        self.__members__ = dict(self.__dict__)


class Member(int):
    """A member of such an enum."""

    name: str

    def __new__(cls, name: str, value: int) -> Member:
        member = super().__new__(cls, value)
        member.name = name
        return member


class Layer(IntEnum):
    """trt.LayerType, as far as the build looks at it."""

    CONVOLUTION = 0
    QUANTIZE = 41


def tensor(name: str, dtype: str, *shape: int) -> Any:
    """An ITensor."""
    return SimpleNamespace(name=name, dtype=SimpleNamespace(name=dtype), shape=shape)


class Cache:
    """An ITimingCache: timings by kernel, behind the name of the device that they belong to."""

    def __init__(self, device: str, timings: dict[str, float]) -> None:
        self.device, self.timings = device, timings

    @staticmethod
    def from_bytes(data: bytes, device: str) -> Cache | None:
        """As create_timing_cache does: a new one of no bytes, None of bytes that are none."""
        if not data:
            return Cache(device, {})
        try:
            name, timings = json.loads(data[4:] if data.startswith(b"YTRT") else b"")
            return Cache(name, timings)
        except ValueError:
            return None

    def combine(self, other: Cache, ignore_mismatch: bool) -> bool:
        """Timings of both, its own first; False and nothing done where they are of another device."""
        if other.device != self.device and not ignore_mismatch:
            return False
        self.timings = {**other.timings, **self.timings}
        return True

    def serialize(self) -> bytes:
        """All of it, as bytes."""
        return b"YTRT" + json.dumps([self.device, self.timings]).encode()


class Trt:
    """A TensorRT of one version.

    Args:
        version: a key of capabilities.json.
        opset: what the parser logs of the file.
        cores: DLA cores of the device.
        errors: what the parser finds; then nothing is parsed.
        says: (severity, message) that the build logs.
        layers: what the engine inspector answers; None makes engines that do not load.
    """

    def __init__(
        self,
        version: str,
        *,
        opset: int = 17,
        cores: int = 0,
        errors: tuple[Any, ...] = (),
        says: tuple[tuple[str, str], ...] = (),
        layers: dict[str, Any] | None = None,
    ) -> None:
        recorded = RECORDED[version]
        self.__version__ = version if version.count(".") == 2 else f"{version}.0"
        self.LayerType, self.DataType = Layer, SimpleNamespace(HALF="half")
        self.ProfilingVerbosity, self.LayerInformationFormat = SimpleNamespace(DETAILED=2), SimpleNamespace(JSON=1)
        self.MemoryPoolType = SimpleNamespace(WORKSPACE=0)
        self.opset, self.cores, self.errors, self.says, self.layers = opset, cores, errors, says, layers
        self.layer, self.created = Layer.CONVOLUTION, -1
        self.plan: bytes | None = b"plan"
        self.on_dla, self.calibrated, self.loaded_on = ("conv1",), b"", -1
        self.parser_flags: set[int] = set()
        for name, members in recorded.items():
            if name != "module":
                setattr(self, name, Names(**members))
        for name in recorded["module"]:
            if name.startswith("I"):
                setattr(self, name, type(name, (), {}))
        self.ILogger, self.EngineInspector = type("ILogger", (), {}), object
        self.OnnxParserFlag = SimpleNamespace(NATIVE_INSTANCENORM=0)
        self.config = Config(self)
        if "IProgressMonitor" in recorded["module"]:
            self.config.progress_monitor = None
        if "IInt8EntropyCalibrator2" in recorded["module"]:
            self.config.int8_calibrator = None

    def Builder(self, logger: Any) -> Any:
        self.logger = logger
        return SimpleNamespace(
            num_DLA_cores=self.cores,
            max_DLA_batch_size=4096,
            create_network=self.network,
            create_builder_config=lambda: self.config,
            create_optimization_profile=lambda: SimpleNamespace(set_shape=lambda *shapes: None),
            build_serialized_network=self.build,
        )

    def network(self, flags: int) -> Any:
        """A convolution between images and logits, and the layer in front that no DLA takes."""
        self.created = flags
        output = SimpleNamespace(dtype="float")
        layers = [
            SimpleNamespace(name=name, type=self.layer, num_outputs=1, get_output=lambda i: output)
            for name in ("preprocess", "conv1")
        ]
        images, logits = tensor("images", "UINT8", -1, 8, 8, 3), tensor("logits", "FLOAT", -1, 4)
        counts = {"num_inputs": 1, "num_outputs": 1, "num_layers": 2}
        gets = {"get_input": lambda i: images, "get_output": lambda i: logits, "get_layer": layers.__getitem__}
        return SimpleNamespace(**counts, **gets)

    def build(self, network: Any, config: Any) -> bytes | None:
        """Reads the calibration cache as TensorRT does, times a kernel, reports progress, logs what it is to say."""
        if getattr(config, "int8_calibrator", None) is not None:
            self.calibrated = config.int8_calibrator.read_calibration_cache()
            assert config.int8_calibrator.get_batch(["images"]) is None
        monitor = getattr(config, "progress_monitor", None)
        if monitor is not None:
            monitor.phase_start("Building engine", None, 2)
            monitor.step_complete("Building engine", 0)
            monitor.phase_finish("Building engine")
        config.cache.timings[f"conv {len(config.cache.timings)}"] = 1.0
        for severity, message in self.says:
            self.logger.log(SimpleNamespace(name=severity), message)
        return self.plan

    def OnnxParser(self, network: Any, logger: Any) -> Any:
        logger.log(SimpleNamespace(name="INFO"), f"Opset version:    {self.opset}")
        for severity, message in self.says if self.errors else ():
            logger.log(SimpleNamespace(name=severity), message)
        return SimpleNamespace(
            parse_from_file=lambda path: not self.errors,
            num_errors=len(self.errors),
            get_error=self.errors.__getitem__,
            set_flag=self.parser_flags.add,
        )

    def Runtime(self, logger: Any) -> Any:
        return Runtime(self)


class Config:
    """An IBuilderConfig; what not every version has is set by `Trt`."""

    progress_monitor: Any
    int8_calibrator: Any

    def __init__(self, trt: Trt) -> None:
        self.trt, self.cache = trt, Cache("Orin", {})
        self.set: set[int] = set()
        self.previews: dict[int, bool] = {}
        self.profiling_verbosity, self.builder_optimization_level = 0, 3
        self.default_device_type, self.DLA_core, self.hardware_compatibility_level = 0, -1, 0

    def set_flag(self, flag: int) -> None:
        self.set.add(flag)

    def set_preview_feature(self, feature: int, on: bool) -> None:
        self.previews[feature] = on

    def get_flag(self, flag: int) -> bool:
        return flag in self.set

    def set_memory_pool_limit(self, pool: int, size: int) -> None:
        self.pool = (pool, size)

    def add_optimization_profile(self, profile: Any) -> int:
        return 0

    def can_run_on_DLA(self, layer: Any) -> bool:
        return layer.name in self.trt.on_dla

    def create_timing_cache(self, data: bytes) -> Cache | None:
        return Cache.from_bytes(data, "Orin")

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return True

    def get_timing_cache(self) -> Cache:
        return self.cache


class Runtime:
    """A trt.Runtime whose engines answer the inspector only once a context has concrete shapes."""

    DLA_core = -1
    engine_host_code_allowed = False

    def __init__(self, trt: Trt) -> None:
        self.trt = trt

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        self.trt.loaded_on = self.DLA_core
        if self.trt.layers is None:
            return None
        shapes: dict[str, tuple[int, ...]] = {}
        inspector = SimpleNamespace(execution_context=None)
        unknown = json.dumps({"Layers": ["conv1"], "Bindings": ["images", "logits"]})
        inspector.get_engine_information = lambda form: (
            json.dumps(self.trt.layers) if inspector.execution_context is not None and shapes else unknown
        )
        return SimpleNamespace(
            create_execution_context=lambda: SimpleNamespace(set_input_shape=shapes.__setitem__),
            create_engine_inspector=lambda: inspector,
        )
