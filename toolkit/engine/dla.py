"""Layers on a Jetson's DLA: which TensorRT serves it, how INT8 gets there, and what the GPU does instead.

Up to 10.7 INT8 on the DLA is implicit: a weakly typed network and the ranges of `calib.cache`, through a calibrator
that only reads them. From 11.4.1 on it is by Q/DQ in a strongly typed network. In between no release serves a DLA
(NVIDIA's guide, "Working with DLA", edition 11.4.1). A TensorRT says by itself what it has: `Builder.num_DLA_cores`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from toolkit.engine.network import layers_of_network
from toolkit.errors import EngineError
from toolkit.runtime.driver import Driver
from toolkit.runtime.trt.module import NEEDS_NO_GPU, TensorRT

IMPLICIT, EXPLICIT = "calib.cache", "Q/DQ"


@dataclass(frozen=True)
class Dla:
    """What an engine for the DLA needs beside its ONNX file.

    Attributes:
        core: of `Builder.num_DLA_cores`; a runner sets it before it loads the plan.
        flags: names of builder flags of a weakly typed build; () for strong typing.
        calib_cache: the bytes of a `calib.cache` whose header is of this TensorRT's version; None without INT8 of that
            form.
    """

    core: int
    flags: tuple[str, ...] = ()
    calib_cache: bytes | None = None


def dla_form(tensorrt: TensorRT) -> str:
    """How INT8 reaches a DLA of this TensorRT: `IMPLICIT` where it has calibrators, else `EXPLICIT`."""
    return IMPLICIT if hasattr(tensorrt.module, "IInt8EntropyCalibrator2") else EXPLICIT


def why_no_dla(tensorrt: TensorRT) -> str:
    """Why this TensorRT cannot serve any DLA, whatever the device; empty where it depends on the device."""
    if tensorrt.kind == NEEDS_NO_GPU:
        return f"{tensorrt.name} takes the setting without a word and builds for the GPU"
    return "" if tensorrt.can_build else f"{tensorrt.name} cannot build"


def require_dla(tensorrt: TensorRT, builder: Any, driver: Driver, core: int, batch: tuple[int, int, int]) -> None:
    """A DLA core that is there, and a batch that it takes.

    Args:
        builder: a `trt.Builder`; None only where `why_no_dla` has an answer already.

    Raises:
        EngineError: this TensorRT or this device has no such core, or the batch is open.
    """
    reason = why_no_dla(tensorrt)
    if reason:
        raise EngineError("no engine for the DLA can be built here", found=reason, fix="leave `dla_core=` out")
    cores = int(builder.num_DLA_cores)
    if cores == 0:
        device = driver.devices[0].name if driver.devices else "this machine"
        raise EngineError(
            "no engine for the DLA can be built here",
            found=f"{tensorrt.name} reports no DLA core on {device}",
            allowed="a Xavier, an Orin NX or AGX Orin with TensorRT up to 10.7 (JetPack 5 and 6), or an AGX Orin with "
            "11.4.1 and later; Orin Nano and Thor have none",
            fix="leave `dla_core=` out",
        )
    if not 0 <= core < cores:
        raise EngineError("there is no such DLA core", found=core, allowed=", ".join(map(str, range(cores))))
    if len(set(batch)) != 1:
        raise EngineError(
            "the DLA takes no open batch", found=":".join(map(str, batch)), allowed="three times the same number",
            fix=f"`batch={(batch[1],) * 3}`",
        )  # fmt: skip
    most = int(builder.max_DLA_batch_size)
    if batch[0] > most:
        raise EngineError("the batch is too large for the DLA", found=batch[0], allowed=f"1 to {most}")


def put_on_dla(trt: Any, config: Any, network: Any, dla: Dla) -> dict[str, Any]:
    """Sets a config up for the DLA; returns what the sidecar says: the core, and the layers that the GPU keeps."""
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = dla.core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    if dla.calib_cache is not None:
        config.int8_calibrator = reading_calibrator(trt, dla.calib_cache)
    layers = layers_of_network(network)
    on_gpu = [str(layer.name) for layer in layers if not config.can_run_on_DLA(layer)]
    return {"core": dla.core, "layers": len(layers), "layers_on_gpu": on_gpu}


def reading_calibrator(trt: Any, calib_cache: bytes) -> Any:
    """A calibrator with ranges and without images. Made here: TensorRT 11 has no base class for it."""

    class ReadsTheCache(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> None:
            """No images: a cache that is refused must fail the build, not start a calibration on nothing."""

        def read_calibration_cache(self) -> bytes:
            return calib_cache

        def write_calibration_cache(self, cache: bytes) -> None:
            """The bundle's file stays as it is."""

    return ReadsTheCache()
