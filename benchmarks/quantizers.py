"""Where each quantizer puts Q/DQ, node by node: ours, ONNX Runtime's (as for TensorRT, and its defaults), ModelOpt's.

    python -m benchmarks.quantizers [--model resnet20] [--images 64]

A cell says what a node reads through DequantizeLinear: x its image, w its weights, b its bias; of an Add how many of
its two inputs. TensorRT refuses a quantized bias; it fuses Conv + Add where the shortcut alone is quantized, and
a pair between a Conv and its Relu or Add makes two kernels of one (NVIDIA's guide "Working with Quantized Types").
Where TensorRT-RTX is installed every file is built. ModelOpt joins where it can be imported
(nvidia-modelopt[onnx]). `--model` is a name in models/ or an architecture, which then has random weights.
Prints a table on stderr, JSON on stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.calibration import export, images_like_photographs
from benchmarks.int8_accuracy import TENSORRT, graph_of_onnxruntime
from toolkit.calibration.ranges import ranges_from_images
from toolkit.contracts import preprocessing_from_dict
from toolkit.errors import ToolkitError
from toolkit.quantization.qdq import qdq_from_ranges

if TYPE_CHECKING:
    import onnx

WEIGHTED = ("Conv", "Gemm", "MatMul")


def ours(file: Path, images: Any) -> bytes:
    """The toolkit's `model.int8.onnx`."""
    import onnx

    model = onnx.load(file)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    preprocessing = preprocessing_from_dict(json.loads(metadata["toolkit.preprocessing"]))
    record = ranges_from_images(model, images, preprocessing, method="mse")
    return qdq_from_ranges(model, record).SerializeToString()


def onnxruntime_defaults(file: Path, images: Any) -> bytes:
    """ONNX Runtime's quantizer as it is called without options."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter([images])

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch}

    with tempfile.TemporaryDirectory() as folder:
        quantize_static(file, f"{folder}/q.onnx", Reader())
        return Path(folder, "q.onnx").read_bytes()


def modelopt(file: Path, images: Any) -> bytes:
    """ModelOpt's INT8 with float32 between, on its defaults otherwise."""
    from modelopt.onnx.quantization import quantize  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as folder:
        quantize(
            str(file), "int8", {"images": images}, output_path=f"{folder}/q.onnx",
            calibration_eps=["cpu"], high_precision_dtype="fp32",
        )  # fmt: skip
        return Path(folder, "q.onnx").read_bytes()


QUANTIZERS: dict[str, Callable[[Path, Any], bytes]] = {
    "toolkit": ours,
    "onnxruntime for TensorRT": lambda file, images: graph_of_onnxruntime(file, images, "MinMax", "QInt8", **TENSORRT),
    "onnxruntime defaults": onnxruntime_defaults,
    "modelopt": modelopt,
}


def cells_of(model: onnx.ModelProto) -> dict[str, str]:
    """{node: what it reads quantized} of every Conv, Gemm, MatMul and Add, in the order of the graph."""
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    cells = {}
    for node in model.graph.node:
        read = [makers.get(name) == "DequantizeLinear" for name in node.input]
        if node.op_type in WEIGHTED:
            cells[node.name] = " ".join(mark for mark, there in zip("xwb", read, strict=False) if there) or "float"
        elif node.op_type == "Add" and len(node.input) == 2:
            cells[node.name] = f"{sum(read)} of 2"
    return cells


def facts_of(model: onnx.ModelProto, onnx_bytes: bytes, folder: Path) -> dict[str, Any]:
    """Counts of a whole file, and what TensorRT-RTX says to it."""
    nodes = list(model.graph.node)
    makers = {name: node for node in nodes for name in node.output}
    between = [
        node for node in nodes
        if node.op_type == "QuantizeLinear" and node.input[0] in makers
        and makers[node.input[0]].op_type == "Conv"
        and _read_by(nodes, node.output[0], "DequantizeLinear", "Relu")
    ]  # fmt: skip
    biases = [
        node for node in nodes
        if node.op_type in WEIGHTED and len(node.input) > 2
        and makers.get(node.input[2]) is not None and makers[node.input[2]].op_type == "DequantizeLinear"
    ]  # fmt: skip
    return {
        "quantize": sum(node.op_type == "QuantizeLinear" for node in nodes),
        "dequantize": sum(node.op_type == "DequantizeLinear" for node in nodes),
        "quantized_biases": len(biases),
        "pairs_between_conv_and_relu": len(between),
        "quantized_logits": makers[model.graph.output[0].name].op_type == "DequantizeLinear",
        "kib": round(len(onnx_bytes) / 1024),
        "tensorrt_rtx": _built(onnx_bytes, folder),
    }


def _read_by(nodes: list[Any], tensor: str, first: str, then: str) -> bool:
    """Whether `first` reads a tensor, and `then` what that writes."""
    written = [node.output[0] for node in nodes if node.op_type == first and tensor in node.input]
    return any(node.op_type == then and set(written) & set(node.input) for node in nodes)


def _built(onnx_bytes: bytes, folder: Path) -> str:
    from toolkit.engine.engine_from_onnx import engine_from_onnx
    from toolkit.errors import BackendUnavailable

    file = folder / "built.onnx"
    file.write_bytes(onnx_bytes)
    try:
        engine = engine_from_onnx(file, folder / "built.plan")
        layer_report = engine.layer_report
    except BackendUnavailable as error:
        return f"not here: {error.what}"
    except ToolkitError as error:
        return f"refused: {(error.found or error.what).splitlines()[0][:90]}"
    if layer_report is None:
        return f"built; layers unknown: {engine.sidecar['census_reason']}"
    return f"{layer_report.convolutions('Int8')} of {layer_report.convolutions()} read int8"


def compare(file: Path, images: Any, folder: Path) -> dict[str, Any]:
    """{quantizer: cells and facts}; one that cannot run here has its reason."""
    import onnx

    found: dict[str, Any] = {}
    for name, quantize in QUANTIZERS.items():
        logging.getLogger().setLevel(logging.ERROR)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                content = quantize(file, images)
        except ImportError as error:
            found[name] = {"unavailable": str(error).splitlines()[0]}
            continue
        model = onnx.load_from_string(content)
        found[name] = {"nodes": cells_of(model), **facts_of(model, content, folder)}
    return found


def show(found: dict[str, Any]) -> None:
    """The table: a line a node, then a line a fact."""
    there = [name for name, entry in found.items() if "unavailable" not in entry]
    for name in found.keys() - there:
        print(f"not here: {name}: {found[name]['unavailable']}", file=sys.stderr)
    rows = [("node", *there)]
    rows += [(node, *(found[name]["nodes"].get(node, "?") for name in there)) for node in found[there[0]]["nodes"]]
    rows += [(fact, *(str(found[name][fact]) for name in there)) for fact in found[there[0]] if fact != "nodes"]
    for row in rows:
        print(f"{row[0]:<36}" + "".join(f"{cell[:44]:<46}" for cell in row[1:]), file=sys.stderr)


def main() -> None:
    """Quantizes, counts and prints."""
    parser = argparse.ArgumentParser(description="Where each quantizer puts Q/DQ, node by node.")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--images", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = export(options.model, Path(folder))
        import onnx

        shape = onnx.load(file).graph.input[0].type.tensor_type.shape
        found = compare(file, images_like_photographs(options.images, shape.dim[3].dim_value), Path(folder))
    show(found)
    print(json.dumps({"model": options.model, "quantizers": found}))


if __name__ == "__main__":
    main()
