"""`calib.cache`: the ranges as TensorRT 8 to 10 read them with implicit quantization, for old trtexec and for DLA.

The format is text: a header line `TRT-<version>-EntropyCalibration2`, then a line a tensor, its name, a colon, a blank
and the eight hex digits of its scale (amax / 127) as a big-endian float32. TensorRT names tensors as the ONNX file
does. No specification is published; a cache that TensorRT 8.2 wrote is in NVIDIA/TensorRT issue 2958. A header of
another version is refused ("Calibration table does not match calibrator algorithm type"): the target names it, as in
`toolkit export --target jetpack60`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from toolkit.calibration.record import Record, sha256_of_graph
from toolkit.errors import CalibrationError
from toolkit.quantization.scales import activation_scale

if TYPE_CHECKING:
    import onnx

CALIB_CACHE = "calib.cache"
JETPACK_6_TENSORRT: tuple[int, ...] = (10, 3, 0)  # of JetPack 6.1 and 6.2, the newest that still reads caches
QUANTIZED = ("Conv", "Add", "Relu")


def header(tensorrt: tuple[int, ...]) -> str:
    """`TRT-8601-...` for 8.6.1, `TRT-100300-...` for 10.3.0: NV_TENSORRT_VERSION of NvInferVersion.h."""
    major, minor, patch = tensorrt
    number = major * 10000 + minor * 100 + patch if major >= 10 else major * 1000 + minor * 100 + patch
    return f"TRT-{number}-EntropyCalibration2"


def cache_from_ranges(model: onnx.ModelProto, record: Record, tensorrt: tuple[int, ...] = JETPACK_6_TENSORRT) -> str:
    """The text of a calibration cache.

    Tensors of the record have its scales, bit for bit those of the Q/DQ files. Convolution and Add outputs in between,
    which DLA wants too, take the scale of the ReLU that alone reads them, else their largest value. Everything else
    (preprocessing, pool, head, logits) has no entry, so that TensorRT leaves it in floating point.

    Raises:
        CalibrationError: the record was measured on another graph, or a tensor name that the format cannot hold.
    """
    record.require_belongs_to({"graph_sha256": sha256_of_graph(model)})
    amax: dict[str, float] = {}
    outputs = [(node, name) for node in model.graph.node for name in node.output if name]  # a Split has several
    for node, name in reversed(outputs):
        readers = [other for other in model.graph.node if name in other.input]
        if name in record.amax:
            amax[name] = record.amax[name]
        elif node.op_type in QUANTIZED and not node.name.startswith("preprocess/"):
            behind = readers[0].output[0] if len(readers) == 1 and readers[0].op_type == "Relu" else name
            largest = record.largest.get(name, 0.0)  # of whole numbers nothing is measured: they are no activations
            amax[name] = amax.get(behind, largest)
    lines = [f"{name}: {_hex(activation_scale(amax[name]))}" for name in reversed(amax) if amax[name] > 0]
    bad = [name for name in amax if ":" in name or "\n" in name]
    if bad:
        raise CalibrationError("a tensor name does not fit a calib.cache", found=bad[0], allowed="no ':' in names")
    return "\n".join([header(tensorrt), *lines]) + "\n"


def _hex(scale: np.float32) -> str:
    return struct.pack(">f", float(scale)).hex()


def scales_from_cache(text: str) -> dict[str, np.float32]:
    """The scales in a calibration cache, by tensor name.

    Raises:
        CalibrationError: not a cache.
    """
    first, *lines = text.splitlines() or [""]
    try:
        if not first.startswith("TRT-"):
            raise ValueError(f"first line {first[:60]!r}")
        parts = [line.rpartition(": ") for line in lines if line]
        return {name: np.float32(struct.unpack(">f", bytes.fromhex(digits))[0]) for name, _, digits in parts}
    except (ValueError, struct.error) as error:
        raise CalibrationError("this is no calib.cache of TensorRT", found=error) from error
