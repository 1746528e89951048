"""What a bundle's files say about themselves: is the INT8 file INT8, are its scales the record's, does FP16 overflow?

A gate cannot see these: fp32 passed off as INT8 keeps every answer. So they are looked at whenever `onnx` is here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.bundle.manifest import VARIANTS, Variant
from toolkit.bundle.reading import Bundle
from toolkit.calibration.methods import LEVELS, UNSIGNED_LEVELS
from toolkit.calibration.record import (
    NAMES,
    RECORD,
    Record,
    record_from_content,
    sha256_of_graph,
    sha256_of_preprocessing,
)
from toolkit.contracts import Float32, UInt8
from toolkit.graph.cpu_placement import cpu_placement
from toolkit.graph.edit import arrays_of
from toolkit.graph.int8_layers import weights_of_layers
from toolkit.graph.qdq_placement import layers_in_graph
from toolkit.quantization.scales import scales_of_pairs
from toolkit.quantization.whole_pixels import BYTE_PADS, with_whole_pixels
from toolkit.storage.files import Content, read_onnx
from toolkit.verification.hypotheses import Cause
from toolkit.verification.layers import first_nonfinite

if TYPE_CHECKING:
    import onnx

LARGEST_HALF = 65504.0  # the largest finite IEEE 754 binary16 number
TOLERANCE = 2e-3  # activation scales may be rounded up to FP16, by 0.1 % at most
# Weight scales lie between 0.7 and 1 times the largest |w| / 127, rounded up to FP16; the CPU file's may be wider. In a
# channel of nearly no weights the bias may ask for more, and FP16 has few digits: those say nothing.
WEIGHT_SCALES = (0.69, 1.01)
NEARLY_NONE = 1e-5
EXPORT_AGAIN = "`toolkit.export(options=ExportOptions(int8=True, fp16=True))` (measures and writes again)"


def causes_in_files(bundle: Bundle, precisions: tuple[str, ...], images_nhwc: UInt8) -> tuple[Cause, ...]:
    """Every fault that the ONNX files and the record of a bundle show by themselves.

    Args:
        images_nhwc: a few of them are run through the FP16 files with every tensor exposed.

    Raises:
        MissingPackage: onnx cannot be imported here. CalibrationError: the record cannot be read.
    """
    fp32 = read_onnx(bundle.onnx("fp32"))
    record = record_from_content(bundle.files.content(RECORD)) if RECORD in bundle.files else None
    whole = with_whole_pixels(fp32)[0] if any(VARIANTS[precision].is_int8 for precision in precisions) else fp32
    causes = [] if record is None else _stale(bundle, record, fp32)
    for precision in precisions:
        variant, content = VARIANTS[precision], bundle.onnx(precision)
        path, graph = content.path, fp32 if precision == "fp32" else read_onnx(content)
        # A user's ONNX file may hold float16 tensors of its own in what is the fp32 file here.
        if precision != "fp32" or bundle.manifest["model"].get("arch", {}).get("family") != "onnx":
            causes += _passed_off(path, variant, graph)
        if variant.is_int8:
            causes += _scales(path, variant, graph, record, (fp32, whole))
        if variant.half:
            causes += _overflow(path, graph, record) or not_finite(content, variant, images_nhwc)
    return tuple(causes)


def _stale(bundle: Bundle, record: Record, fp32: onnx.ModelProto) -> list[Cause]:
    """A record that was measured on another network, or with another preprocessing, than the bundle's."""
    here = {
        "graph_sha256": sha256_of_graph(fp32),
        "preprocessing_sha256": sha256_of_preprocessing(bundle.preprocessing.as_dict()),
    }
    changed = [NAMES[part] for part, value in here.items() if record.belongs_to.get(part) != value]
    key = (bundle.manifest.get("calibration") or {}).get("key", record.key)
    if key != record.key:
        changed.append("the record itself (the manifest names another key)")
    if not changed:
        return []
    evidence = f"changed since it was measured: {'; '.join(changed)}"
    return [Cause("the calibration record is stale", str(bundle.folder / RECORD), evidence, EXPORT_AGAIN)]


def _passed_off(path: Path, variant: Variant, model: onnx.ModelProto) -> list[Cause]:
    """A file whose content is of another precision than its name."""
    from onnx import TensorProto

    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    quantized = sum(made_by.get(node.input[0]) == "DequantizeLinear" for node in convolutions)
    halves = sum(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)
    if variant.is_int8 and convolutions and not quantized:
        name, evidence = "a float file is passed off as int8", f"none of {len(convolutions)} convolutions reads Q/DQ"
    elif variant.half and not halves:
        name, evidence = "an fp32 file is passed off as fp16", "it holds no float16 tensor"
    elif not variant.types and (quantized or halves):
        name = "a reduced file is passed off as fp32"
        evidence = f"{quantized} convolutions read Q/DQ, {halves} tensors are float16"
    else:
        return []
    return [Cause(name, str(path), evidence, EXPORT_AGAIN)]


def _scales(
    path: Path, variant: Variant, model: onnx.ModelProto, record: Record | None, sources: tuple[Any, Any]
) -> list[Cause]:
    """Activation scales that are not the record's, and weight scales that do not fit their channels.

    Args:
        sources: the fp32 graph, and the same with whole pixels.
    """
    arrays, on_cpu = arrays_of(model.graph), not variant.for_tensorrt
    ranges = {} if record is None else {**record.largest, **record.amax, **(record.cpu if on_cpu else {})}
    weights = _weights_on_cpu(sources[BYTE_PADS in arrays]) if on_cpu else _weights(sources)
    shared = _shared_on_cpu(sources[BYTE_PADS in arrays]) if on_cpu else set()
    seen, causes = set(), []
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.input[1] in seen:
            continue
        seen.add(node.input[1])
        scale, zero = arrays.get(node.input[1]), arrays.get(node.input[2])
        tensor = node.input[1].removesuffix("_scale")
        if scale is None or zero is None:
            continue
        if scale.size > 1 and tensor in weights:
            causes += _of_weights(path, tensor, scale.astype(np.float32), weights[tensor], on_cpu)
        elif scale.size == 1 and tensor in ranges and tensor not in shared:
            levels = UNSIGNED_LEVELS if on_cpu and not zero.any() else LEVELS
            causes += _of_activation(path, tensor, float(scale.item()), ranges[tensor] / levels)
    return causes


def _weights(sources: tuple[Any, Any]) -> dict[str, Float32]:
    """The weights that the scales of TensorRT's files belong to, by name, output channels first."""
    return dict(pair for source in sources for pair in weights_of_layers(source).values())


def _weights_on_cpu(source: onnx.ModelProto) -> dict[str, Float32]:
    """The same for the CPU file, which names weights after the layer."""
    return {f"{layer}/weight": rows for layer, (_, rows) in weights_of_layers(source).items()}


def _shared_on_cpu(source: onnx.ModelProto) -> set[str]:
    """Tensors of the CPU file that have the range of another one."""
    return set(cpu_placement(source, frozenset(layers_in_graph(source))).shares)


def _of_activation(path: Path, tensor: str, scale: float, wanted: float) -> list[Cause]:
    if wanted <= 0 or abs(scale / wanted - 1) <= TOLERANCE:
        return []
    evidence = f"scale of '{tensor}' is {scale:.4g}, {scale / wanted:.2f} times the record's {wanted:.4g}"
    return [Cause("a layer's scale is not the record's", str(path), evidence, EXPORT_AGAIN)]


def _of_weights(path: Path, tensor: str, scales: Float32, weights: Float32, on_cpu: bool) -> list[Cause]:
    if len(weights) != len(scales):
        return []
    widest = np.abs(weights.reshape(len(weights), -1)).max(axis=1).astype(np.float32) / LEVELS
    usable = widest > NEARLY_NONE
    scales, widest = scales[usable], widest[usable]
    least = WEIGHT_SCALES[0] * widest
    if on_cpu or weights.ndim == 2:
        widest = np.maximum(widest, scales_of_pairs(weights)[usable])
    most = WEIGHT_SCALES[1] * widest
    wrong = (scales < least) | (scales > most)
    if not wrong.any():
        return []
    ordered = np.sort(scales)
    permuted = bool((ordered >= np.sort(least)).all() and (ordered <= np.sort(most)).all())
    factor = float(np.median(scales[wrong] / widest[wrong]))
    if permuted:
        name = "per-channel scales are permuted"
        evidence = f"{int(wrong.sum())} of {len(weights)} scales of '{tensor}' belong to other channels"
    else:
        name = "a layer's scale does not fit its weights"
        evidence = f"{int(wrong.sum())} of {len(weights)} scales of '{tensor}' are about {factor:.2f} times too large"
    return [Cause(name, str(path), evidence, EXPORT_AGAIN)]


def _overflow(path: Path, model: onnx.ModelProto, record: Record | None) -> list[Cause]:
    """Weights that became infinite in FP16, and activations that the record saw beyond its range."""
    for name, value in arrays_of(model.graph).items():
        if value.dtype == np.float16 and not np.isfinite(value).all():
            return [_overflows(path, f"weight '{name}' holds infinity: it is beyond {LARGEST_HALF:g}")]
    for name, largest in ({} if record is None else record.largest).items():
        if not largest <= LARGEST_HALF:  # NaN too
            return [_overflows(path, f"'{name}' reached {largest:.4g} when it was calibrated, FP16 ends at 65504")]
    return []


def _overflows(path: Path, evidence: str) -> Cause:
    return Cause("FP16 overflows", str(path), evidence, "use fp32 or int8, whose other layers are float32")


def not_finite(file: Content, variant: Variant, images_nhwc: UInt8) -> list[Cause]:
    """The first node whose output is not finite when each is stored in its own type.

    ONNX Runtime's CPU provider computes FP16 files in float32 and keeps it up between nodes; an exposed tensor is FP16
    all the same, as it is in a TensorRT engine.
    """
    found = first_nonfinite(file, images_nhwc)
    if found is None:
        return []
    node, largest = found
    evidence = f"'{node}' is the first node with NaN or infinity; what it reads reaches {largest:.4g}"
    if variant.half:
        return [_overflows(file.path, evidence)]
    return [Cause("an activation is not finite", str(file.path), evidence, "`toolkit.verify(layers=True)`")]
