"""One build, in the order in which TensorRT wants it: network, parser, profile, config, plan, layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.engine.dla import Dla, put_on_dla, require_dla
from toolkit.engine.failure import failure, parser_words
from toolkit.engine.monitor import Monitor
from toolkit.engine.network import (
    Profile,
    ends_as_dict,
    has_strong_typing,
    network_flags,
    precision_flags,
    profile_from_network,
    share_profile,
)
from toolkit.engine.resolver import WEAK_OPSET_LIMIT
from toolkit.engine.timing_cache import (
    keep_timing_cache,
    timing_cache_file,
    use_timing_cache,
    why_no_timing_cache,
)
from toolkit.errors import EngineError
from toolkit.runtime.driver import Driver
from toolkit.runtime.trt.layer_report import LayerReport, layer_report_from_log, layer_report_of_plan
from toolkit.runtime.trt.module import (
    NEEDS_NO_GPU,
    ONE_AT_A_TIME,
    Log,
    TensorRT,
    cuda_does_not_start,
    require_cuda_starts,
)


@dataclass(frozen=True)
class BuildSettings:
    """What a build may be told beside its file; every default is TensorRT's own.

    Attributes:
        compute_capabilities: for RTX, such as ("SM86", "SM89"); none makes a plan for all that it supports.
        workspace_mib: the scratch memory that a layer may use; None is TensorRT's default, all there is.
        optimization_level: 0 (builds fastest) to 5 (tries most); None is TensorRT's default, 3.
        compatible: "version" (the plan also loads in later versions), "hardware" (also on other GPUs from Ampere on).
        dla: layers go to a DLA where it takes them.
        timing_cache: the folder of timing caches; None neither reads nor keeps any.
    """

    compute_capabilities: tuple[str, ...] = ()
    workspace_mib: int | None = None
    optimization_level: int | None = None
    compatible: str | None = None
    dla: Dla | None = None
    timing_cache: Path | None = None


@dataclass(frozen=True)
class Build:
    """One build, in the order in which TensorRT wants it."""

    tensorrt: TensorRT
    driver: Driver
    log: Log
    onnx: Path
    batch: tuple[int, int, int]
    told: BuildSettings
    failed_log: Path
    notes: list[str] = field(default_factory=list)

    def run(self, monitor: Monitor) -> tuple[bytes, LayerReport | None, dict[str, Any]]:
        """The plan's bytes, its layers, and the part of the sidecar that the build knows.

        Raises:
            BackendUnavailable: TensorRT cannot start CUDA. EngineError: it refuses the file, or builds nothing.
        """
        if self.tensorrt.kind != NEEDS_NO_GPU and self.tensorrt.release >= (9,):  # the Builder of 8.x says it itself
            require_cuda_starts(self.tensorrt, self.driver)
        with ONE_AT_A_TIME:
            return self._run(monitor)

    def _run(self, monitor: Monitor) -> tuple[bytes, LayerReport | None, dict[str, Any]]:
        trt, dla = self.tensorrt.module, self.told.dla
        try:
            builder = trt.Builder(self.log.logger)
        except TypeError as error:  # the binding's word for a null pointer
            raise cuda_does_not_start(self.tensorrt, self.driver, self.log.last() or str(error)) from error
        if dla is not None:
            require_dla(self.tensorrt, builder, self.driver, dla.core, self.batch)
        network = builder.create_network(network_flags(trt, weak=dla is not None and bool(dla.flags)))
        if network is None:  # `is None`: an empty network is falsy
            raise self.failure("TensorRT made no network")
        parser = trt.OnnxParser(network, self.log.logger)
        self.parse(parser, network)
        profile = profile_from_network(network, self.batch)
        config = self.configured(builder, network, profile)
        on_dla = None if dla is None else self.on_dla(config, network, dla)
        timings = self.timings(config)
        if hasattr(config, "progress_monitor") and hasattr(trt, "IProgressMonitor"):
            config.progress_monitor = monitor.for_tensorrt(trt)
        flags = [name for name, flag in trt.BuilderFlag.__members__.items() if config.get_flag(flag)]
        plan = builder.build_serialized_network(network, config)
        monitor.raise_what_stopped_it()
        if plan is None:
            raise self.failure(f"{self.tensorrt.name} did not build {self.onnx.name}")
        if timings is not None:
            self.note(keep_timing_cache(config, timings, self.log))
        layer_report, reason = self.layer_report(bytes(plan), profile)
        self.note(f"{self.onnx.name}: the engine's layers are unknown: {reason}" if reason else "")
        return bytes(plan), layer_report, {
            "flags": flags,
            "profile": profile,
            **ends_as_dict(network),
            "dla_core": None if dla is None else dla.core,
            "dla": on_dla,
            "workspace_mib": self.told.workspace_mib,
            "optimisation_level": getattr(config, "builder_optimization_level", None),
            "compatible": self.told.compatible,
            "timing_cache": None if timings is None else timings.name,
            "census_reason": reason or None,
        }  # fmt: skip

    def note(self, sentence: str) -> None:
        """Keeps a sentence for people; an empty one says nothing."""
        if sentence:
            self.notes.append(sentence)

    def parse(self, parser: Any, network: Any) -> None:
        """Fills the network from the file, external data included."""
        flags: Any = getattr(self.tensorrt.module, "OnnxParserFlag", None)
        if self.told.compatible and hasattr(flags, "NATIVE_INSTANCENORM"):
            parser.set_flag(flags.NATIVE_INSTANCENORM)  # such plans hold no plugins; off by default only on 8.6
        if not parser.parse_from_file(str(self.onnx)):
            raise self.failure(f"{self.tensorrt.name} refuses {self.onnx.name}", parser_words(parser, self.log))
        if network.num_inputs == 0 or network.num_outputs == 0:  # bytes that are not ONNX parse as an empty network
            raise EngineError(
                f"{self.onnx} is not an ONNX model",
                found=f"{network.num_inputs} inputs, {network.num_outputs} outputs",
                allowed="a whole ONNX file",
                fix="export it again",
            )
        weak, opset = not has_strong_typing(self.tensorrt.module), self.log.opset()
        if weak and opset is not None and opset > WEAK_OPSET_LIMIT:
            raise EngineError(
                f"{self.tensorrt.name} would read {self.onnx.name} wrongly",
                found=f"opset {opset}",
                allowed=f"opset {WEAK_OPSET_LIMIT} or older",
                fix="build the bundle's model.onnx, model.fp16.onnx or model.int8.onnx, or export with a lower opset",
            )
        taken_for_int8 = tuple(message for _, message in self.log.lines if "UINT8 zero_point" in message)
        if taken_for_int8:  # 10 and later parse such a file and clip what is above 127
            raise self.failure(f"{self.tensorrt.name} would read {self.onnx.name} wrongly", taken_for_int8[:1])

    def configured(self, builder: Any, network: Any, profile: Profile) -> Any:
        """The builder's config: profile, types, memory, targets."""
        trt, told, config = self.tensorrt.module, self.told, builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # makes the log and the inspector name layers
        for name in told.dla.flags if told.dla and told.dla.flags else precision_flags(trt, network):
            config.set_flag(getattr(trt.BuilderFlag, name))
        share_profile(trt, config)
        if told.workspace_mib is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, told.workspace_mib << 20)
        if told.optimization_level is not None:
            self.set_level(config, told.optimization_level)
        if told.compatible == "version":
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        if told.compatible == "hardware":
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        if told.compute_capabilities:
            config.num_compute_capabilities = len(told.compute_capabilities)
            for i, name in enumerate(told.compute_capabilities):
                config.set_compute_capability(getattr(trt.ComputeCapability, name), i)
        ranges = builder.create_optimization_profile()
        for name, shapes in profile.items():
            ranges.set_shape(name, *(tuple(shape) for shape in shapes))
        if config.add_optimization_profile(ranges) < 0:
            raise self.failure(f"{self.tensorrt.name} refuses the batch range {self.batch}")
        return config

    def set_level(self, config: Any, level: int) -> None:
        """Sets the optimization level; 8.5 has none, and a name that does not exist would be set without a word."""
        if not hasattr(config, "builder_optimization_level"):
            raise EngineError(
                f"{self.tensorrt.name} has no optimization levels",
                allowed="8.6 and later",
                fix="leave `optimization_level=` out",
            )
        config.builder_optimization_level = level

    def on_dla(self, config: Any, network: Any, dla: Dla) -> dict[str, Any]:
        """Puts layers on the DLA and says which stay on the GPU."""
        facts = put_on_dla(self.tensorrt.module, config, network, dla)
        on_gpu: list[str] = facts["layers_on_gpu"]
        named = ", ".join(on_gpu[:6]) + (", ..." if len(on_gpu) > 6 else "")
        self.note(
            f"DLA core {dla.core} takes {facts['layers'] - len(on_gpu)} of {facts['layers']} layers"
            + (f"; the GPU keeps {len(on_gpu)}: {named}" if on_gpu else "")
        )
        return facts

    def timings(self, config: Any) -> Path | None:
        """The timing cache of this device, given to the config; None where none is kept."""
        if self.told.timing_cache is None or why_no_timing_cache(self.tensorrt, self.driver):
            return None
        file = timing_cache_file(self.told.timing_cache, self.tensorrt, self.driver)
        self.note(use_timing_cache(config, file, self.log))
        return file

    def layer_report(self, plan: bytes, profile: Profile) -> tuple[LayerReport | None, str]:
        """The plan's layers: RTX lists them in its log, full TensorRT in its inspector; else None and why."""
        listed, reason = layer_report_from_log(message for _, message in self.log.lines)
        if listed is not None or self.tensorrt.kind == NEEDS_NO_GPU:
            return listed, reason
        core = None if self.told.dla is None else self.told.dla.core
        return layer_report_of_plan(self.tensorrt.module, self.log.logger, plan, profile, core)

    def failure(self, what: str, words: tuple[str, ...] = ()) -> EngineError:
        """What to raise: cause, cure, TensorRT's words and its log, which is kept."""
        return failure(what, self.log, words, self.failed_log, self.driver.available)
