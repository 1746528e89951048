"""Claims about ONNX files from anywhere: what can be normalized answers as it did, the rest is refused in words."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from toolkit.calibration.ranges import ranges_from_images
from toolkit.errors import ToolkitError
from toolkit.exporting.user_onnx import Opened, Pixels, default_name, opened_from_file
from toolkit.graph.fp16 import fp16_from_onnx
from toolkit.graph.qdq_placement import layers_in_graph
from toolkit.graph.user.floats import OwnTypes, require_same_in_own_types
from toolkit.quantization.ort_cpu import cpu_from_ranges
from toolkit.quantization.qdq import qdq_from_ranges
from toolkit.runtime.ort.runner import OrtRunner

PIXELS = Pixels(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
IMAGES = np.random.default_rng(3).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)


def classifier(
    *,
    opset: int = 17,
    batch: Any = "N",
    nhwc: bool = False,
    auto_pad: str = "",
    norm: bool = True,
    tail: str = "flatten",
    softmax: bool = False,
    listed: bool = False,
    odd: bool = False,
    around: tuple[int, ...] = (),
) -> onnx.ModelProto:
    """Two convolutions and a head over 16x16x3, written as exporters write them. `listed`: initializers are inputs."""
    draws = np.random.default_rng(0)
    weights = {
        "w1": draws.standard_normal((8, 3, 3, 3)) * 0.2,
        "w2": draws.standard_normal((16, 8, 3, 3)) * 0.15,
        "scale": draws.uniform(0.5, 1.5, 8),
        "shift": draws.standard_normal(8),
        "mean": draws.standard_normal(8) * 0.1,
        "var": draws.uniform(0.5, 2, 8),
        "head": draws.standard_normal((5, 16)),
        "bias": draws.standard_normal(5),
    }
    name = "serving_default:0 input" if odd else "x"
    pads = {"auto_pad": auto_pad} if auto_pad else {"pads": [1, 1, 1, 1]}
    nodes = [helper.make_node("Transpose", [name], ["t"], perm=[0, 3, 1, 2])] if nhwc else []
    nodes.append(helper.make_node("Conv", ["t" if nhwc else name, "w1"], ["c1"], strides=[2, 2], **pads))
    if norm:
        nodes.append(helper.make_node("BatchNormalization", ["c1", "scale", "shift", "mean", "var"], ["n1"]))
    nodes += [
        helper.make_node("Relu", ["n1" if norm else "c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "" if odd else "second", **pads),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
        *_tail(tail, opset, weights, batch),
        helper.make_node("Gemm", ["flat", "head", "bias"], ["raw"], transB=1),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["raw"], ["answer"], axis=1))
    if around:
        weights["around"] = np.array(around)
        nodes[-1].output[0] = "row"
        nodes.append(helper.make_node("Reshape", ["row", "around"], ["raw"]))
    shape = [batch, 16, 16, 3] if nhwc else [batch, 3, 16, 16]
    tensors = [
        numpy_helper.from_array(v if v.dtype == np.int64 else v.astype(np.float32), k) for k, v in weights.items()
    ]
    used = {n for node in nodes for n in node.input}
    tensors = [tensor for tensor in tensors if tensor.name in used]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
    if listed:
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in tensors]
    answer = [batch, *around[1:]] if around else [batch, 5]
    out = helper.make_tensor_value_info("answer" if softmax else "raw", TensorProto.FLOAT, answer)
    graph = helper.make_graph(nodes, "net", inputs, [out], tensors)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3 if listed else 10 if opset > 21 else 8
    )


def _tail(kind: str, opset: int, weights: dict[str, Any], batch: Any) -> list[onnx.NodeProto]:
    """From (N, 16, 1, 1) to (N, 16), as torch writes `view(x.size(0), -1)`, as it flattens, or to a fixed size."""
    if kind == "flatten":
        return [helper.make_node("Flatten", ["p"], ["flat"], axis=1)]
    if kind == "fixed":
        weights["sizes"] = np.array([batch, 16])
        return [helper.make_node("Reshape", ["p", "sizes"], ["flat"])]
    weights |= {"zero": np.array(0), "rest": np.array([-1])}
    unsqueeze = (["first"], {"axes": [0]}) if opset < 13 else (["first", "axes"], {})
    if opset >= 13:
        weights["axes"] = np.array([0])
    return [
        helper.make_node("Shape", ["p"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["first"], axis=0),
        helper.make_node("Unsqueeze", unsqueeze[0], ["row"], **unsqueeze[1]),
        helper.make_node("Concat", ["row", "rest"], ["sizes"], axis=0),
        helper.make_node("Reshape", ["p", "sizes"], ["flat"]),
    ]


def opened(model: onnx.ModelProto, folder: Path, pixels: Pixels = PIXELS) -> Opened:
    path = folder / "theirs.onnx"
    path.write_bytes(model.SerializeToString())
    return opened_from_file(path, pixels)


VARIANTS: dict[str, dict[str, Any]] = {
    **{f"opset {opset}": {"opset": opset} for opset in (9, 11, 13, 17, 18, 21, 23, 25)},
    "a batch of one": {"batch": 1},
    "a batch of one, reshaped to it": {"batch": 1, "tail": "fixed"},
    "a batch of four": {"batch": 4},
    "Shape, Gather, Reshape": {"tail": "shape"},
    "Shape, Gather, Reshape of old": {"tail": "shape", "opset": 11},
    "NHWC": {"nhwc": True},
    "SAME_UPPER": {"auto_pad": "SAME_UPPER"},
    "SAME_LOWER": {"auto_pad": "SAME_LOWER"},
    "VALID": {"auto_pad": "VALID"},
    "a row between sizes of 1": {"around": (0, 1, 5, 1)},
    "Softmax": {"softmax": True},
    "Softmax of old": {"softmax": True, "opset": 11},
    "initializers listed as inputs": {"listed": True, "opset": 9},
    "odd names": {"odd": True},
    "no BatchNorm": {"norm": False},
    "everything at once": {"opset": 11, "batch": 1, "nhwc": True, "auto_pad": "SAME_UPPER", "tail": "shape",
                           "softmax": True, "odd": True},
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_a_normalized_file_answers_as_it_did_in_any_batch(variant: dict[str, Any], tmp_path: Path) -> None:
    found = opened(classifier(**variant), tmp_path)
    found.require_same(IMAGES)
    theirs = _answers_as_it_came(classifier(**{**variant, "softmax": False}), variant)
    with OrtRunner(found.graph.SerializeToString()) as runner:
        whole = runner.logits(IMAGES[:7])
        alone = np.concatenate([runner.logits(IMAGES[i : i + 1]) for i in range(7)])
    assert np.abs(whole - theirs).max() < 1e-4
    assert np.abs(alone - theirs).max() < 1e-4
    assert found.graph.opset_import[0].version == 17
    assert not any(node.op_type in ("BatchNormalization", "Softmax", "Shape") for node in found.graph.graph.node)


def _answers_as_it_came(model: onnx.ModelProto, variant: dict[str, Any]) -> Any:
    """Logits of seven images by the file itself, pixels normalized by hand."""
    values = ((IMAGES[:8] / 255 - np.array(PIXELS.mean)) / np.array(PIXELS.std)).astype(np.float32)
    values = values if variant.get("nhwc") else values.transpose(0, 3, 1, 2)
    step = variant.get("batch", 8)
    with OrtRunner(model.SerializeToString()) as runner:
        calls = range(0, 8, 8 if step == "N" else step)
        width = 8 if step == "N" else step
        answers = [
            runner.session.run(None, {runner.input: np.ascontiguousarray(values[i : i + width])})[0] for i in calls
        ]
    return np.concatenate(answers)[:7].reshape(7, -1)


@pytest.mark.parametrize("variant", ["opset 9", "NHWC", "SAME_UPPER", "odd names", "everything at once"])
def test_int8_quantizes_every_convolution_of_a_normalized_file(variant: str, tmp_path: Path) -> None:
    found = opened(classifier(**VARIANTS[variant]), tmp_path)
    record = ranges_from_images(found.graph, IMAGES, found.preprocessing, method="minmax")
    quantized = qdq_from_ranges(found.graph, record)
    makers = {name: node.op_type for node in quantized.graph.node for name in node.output}
    convolutions = [node for node in quantized.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == len(layers_in_graph(found.graph)) == 2
    assert all(makers[name] == "DequantizeLinear" for node in convolutions for name in node.input[:2])
    with OrtRunner(found.graph.SerializeToString()) as fp32, OrtRunner(quantized.SerializeToString()) as int8:
        expected, got = fp32.logits(IMAGES), int8.logits(IMAGES)
    assert np.linalg.norm(got - expected) / np.linalg.norm(expected) < 0.05


@pytest.mark.parametrize("variant", [{}, {"nhwc": True}], ids=["NCHW", "NHWC"])
def test_the_cpu_form_reads_the_bytes_of_the_images(variant: dict[str, Any], tmp_path: Path) -> None:
    found = opened(classifier(**variant), tmp_path)
    record = ranges_from_images(found.graph, IMAGES, found.preprocessing, method="minmax")
    graph = cpu_from_ranges(found.graph, record).graph
    (first,) = (node for node in graph.node if graph.input[0].name in node.input)
    assert first.op_type == "Pad"
    assert not {"Cast", "Mul"} & {node.op_type for node in graph.node}


@pytest.mark.slow
def test_a_file_of_torchs_dynamo_exporter_answers_as_it_did_and_is_quantized(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="torch's dynamo exporter needs onnxscript (the dev group)")
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8)
    norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    layers = (nn.Conv2d(3, 8, 3, 2, 1, bias=False), norm, nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU())
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)).eval()
    path, example = tmp_path / "dynamo.onnx", torch.rand(2, 3, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the exporter says of its own parts
        shapes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(net, (example,), path, dynamo=True, dynamic_shapes=shapes, verbose=False)
    found = opened_from_file(path, PIXELS)
    assert found.file.opset >= 18
    found.require_same(IMAGES)
    values = ((IMAGES[:7] / 255 - np.array(PIXELS.mean)) / np.array(PIXELS.std)).astype(np.float32)
    with torch.inference_mode(), OrtRunner(found.graph.SerializeToString()) as runner:
        expected = net(torch.from_numpy(values.transpose(0, 3, 1, 2).copy())).numpy()
        assert np.abs(runner.logits(IMAGES[:7]) - expected).max() < 1e-4
    record = ranges_from_images(found.graph, IMAGES, found.preprocessing, method="minmax")
    quantized = qdq_from_ranges(found.graph, record)
    makers = {name: node.op_type for node in quantized.graph.node for name in node.output}
    convolutions = [node for node in quantized.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 2
    assert all(makers[name] == "DequantizeLinear" for node in convolutions for name in node.input[:2])


def test_pixels_to_255_are_the_same_model_said_otherwise(tmp_path: Path) -> None:
    in_255 = Pixels(mean=(102.0, 127.5, 153.0), std=(51.0, 63.75, 76.5), scale="0-255")
    one, other = (opened(classifier(), tmp_path, pixels) for pixels in (PIXELS, in_255))
    assert one.preprocessing.mean == pytest.approx(other.preprocessing.mean)
    assert one.preprocessing.std == pytest.approx(other.preprocessing.std)


def test_what_no_engine_asks_for_is_not_asked_for(tmp_path: Path) -> None:
    model = classifier()
    model.graph.name = ""
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.graph.input.append(helper.make_tensor_value_info("training", TensorProto.BOOL, []))
    model.graph.initializer.append(numpy_helper.from_array(np.full(3, np.nan, np.float32), "unread"))
    found = opened(model, tmp_path)
    found.require_same(IMAGES)
    assert found.graph.graph.node == opened(classifier(), tmp_path).graph.graph.node


class Turned(nn.Module):
    """The batch stands second for a while: a file that is written for a batch of two has it there as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.relu(self.conv(x)).permute(1, 0, 2, 3)
        logits: Tensor = self.fc(maps.reshape(8, x.shape[0], -1).mean(2).t())
        return logits


def test_what_is_advised_for_a_batch_that_is_fixed_works(tmp_path: Path) -> None:
    net, path = Turned().eval(), tmp_path / "theirs.onnx"

    def export(**more: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            names: dict[str, Any] = {"input_names": ["pictures"], "output_names": ["scores"]}
            torch.onnx.export(net, (torch.rand(2, 3, 16, 16),), path, dynamo=False, **names, **more)

    export()
    with pytest.raises(ToolkitError, match="works for a batch of 2 only") as caught:
        opened_from_file(path, PIXELS).require_same(IMAGES)
    export(**eval(f"dict({str(caught.value.fix).partition(': ')[2]})"))
    opened_from_file(path, PIXELS).require_same(IMAGES)


def _in(kind: int, model: onnx.ModelProto) -> onnx.ModelProto:
    """The same file with numbers of another type."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = kind
    return model


def _of_bytes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A file that normalizes the bytes of its images itself."""
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) * 255 for values in (PIXELS.mean, PIXELS.std))
    model.graph.initializer.extend([numpy_helper.from_array(mean, "mean255"), numpy_helper.from_array(std, "std255")])
    own = [
        helper.make_node("Transpose", ["bytes"], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["turned"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["floats", "mean255"], ["centered"]),
        helper.make_node("Div", ["centered", "std255"], ["x"]),
    ]
    for node in reversed(own):
        model.graph.node.insert(0, node)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("bytes", TensorProto.UINT8, ["N", 16, 16, 3]))
    return model


OTHER_TYPES: dict[str, Any] = {
    "half precision written as float32": (_in(TensorProto.FLOAT16, classifier()), PIXELS, 0.01),
    "double precision written as float32": (_in(TensorProto.DOUBLE, classifier()), PIXELS, 1e-5),
    "bytes taken as the same numbers in float32": (_of_bytes(classifier()), Pixels(), 1e-5),
}


@pytest.mark.parametrize("note", OTHER_TYPES)
def test_a_file_of_another_type_is_read_as_the_same_in_float32(note: str, tmp_path: Path) -> None:
    model, pixels, near = OTHER_TYPES[note]
    found = opened(model, tmp_path, pixels)
    checks = found.require_same(IMAGES)
    assert found.file.own is not None
    assert found.file.own.note == note
    if "double" not in note:  # which ONNX Runtime has no convolution for
        assert 0 <= checks["own_types"]["relative_l2"] < near
    theirs = _answers_as_it_came(classifier(), {})
    with OrtRunner(found.graph.SerializeToString()) as runner:
        assert np.abs(runner.logits(IMAGES[:7]) - theirs).max() < 10 * near


def test_a_file_that_takes_bytes_is_told_nothing_of_its_pixels(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match="takes pixels as they are"):
        opened(_of_bytes(classifier()), tmp_path, PIXELS)


def test_a_file_that_answers_otherwise_in_its_own_type_is_refused() -> None:
    half, other = _in(TensorProto.FLOAT16, classifier()), classifier(norm=False)
    values = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    with pytest.raises(ToolkitError, match="answers otherwise in float32 than in its own half precision"):
        require_same_in_own_types("theirs.onnx", OwnTypes(half, "FLOAT16", False), other, values)


def _second_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("r2", TensorProto.FLOAT, None))


def _second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("extra", TensorProto.FLOAT, [1]))
    model.graph.node.append(helper.make_node("Add", ["raw", "extra"], ["more"]))
    model.graph.output[0].name = "more"


def _custom(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain = "com.acme"
    model.opset_import.append(helper.make_opsetid("com.acme", 1))


def _open_size(model: onnx.ModelProto) -> None:
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"size{axis}"


def _quantized(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "QLinearConv"


def _detection(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("NonMaxSuppression", ["raw", "raw"], ["boxes"]))


def _features(model: onnx.ModelProto) -> None:
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("r2", TensorProto.FLOAT, ["N", 16, 8, 8]))


def _rank_two(model: onnx.ModelProto) -> None:
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 768]))


def _integers(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT8


def _no_shape(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")


def _sequence(model: onnx.ModelProto) -> None:
    value = helper.make_tensor_sequence_value_info("raw", TensorProto.FLOAT, None)
    model.graph.output[0].CopyFrom(value)


def _external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def _outside(model: onnx.ModelProto) -> None:
    _external(model)
    model.graph.initializer[0].external_data[0].value = "../weights.bin"


def _too_new(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


FAULTS = {
    "has 2 outputs": _second_output,
    "has 2 inputs": _second_input,
    "not in the ONNX standard": _custom,
    "leaves the size of its images open": _open_size,
    "quantized already": _quantized,
    "is a detection model": _detection,
    "is not a classifier": _features,
    "takes no images": _rank_two,
    "holds no floats": _integers,
    "is not a tensor": _sequence,
    "has no shape": _no_shape,
    "which is missing": _external,
    "from outside its folder": _outside,
    "has an opset that cannot be read": _too_new,
}


@pytest.mark.parametrize("words", FAULTS)
def test_what_cannot_be_normalized_is_refused_in_words(words: str, tmp_path: Path) -> None:
    model = classifier()
    FAULTS[words](model)
    with pytest.raises(ToolkitError, match=words) as found:
        opened(model, tmp_path)
    assert found.value.found


@pytest.mark.parametrize("content", [b"", b"not ONNX", classifier().SerializeToString()[:-400]])
def test_a_file_that_is_not_whole_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes(content)
    with pytest.raises(ToolkitError, match=r"cut\.onnx"):
        opened_from_file(tmp_path / "cut.onnx", PIXELS)


@pytest.mark.parametrize(
    "pixels",
    [
        Pixels(mean=(0.5,)),
        Pixels(mean=(123.0,), std=(58.0,)),
        Pixels(mean=(0.5,), std=(0.2,), scale="0-255"),
        Pixels(scale="0-1024"),
        Pixels(layout="chwn"),
        Pixels(layout="nhwc"),
        Pixels(size=(32, 32, 3)),
    ],
)
def test_pixels_that_do_not_fit_are_refused(pixels: Pixels, tmp_path: Path) -> None:
    with pytest.raises(ToolkitError):
        opened(classifier(), tmp_path, pixels)


def test_a_size_that_is_open_can_be_said(tmp_path: Path) -> None:
    model = classifier()
    _open_size(model)
    found = opened(model, tmp_path, Pixels(PIXELS.mean, PIXELS.std, size=(16, 16, 3)))
    found.require_same(IMAGES)


def test_a_name_that_no_folder_can_have_becomes_one_that_it_can() -> None:
    assert default_name(Path("/models/my net (v2).onnx")) == "my-net-v2"
    assert default_name(Path("....onnx")) == "model"


def _with_chosen_answer(operator: str, outputs: list[str]) -> onnx.ModelProto:
    """Logits, and what chooses one of them behind, as further outputs."""
    model = classifier()
    inputs = ["raw", "most"] if operator == "TopK" else ["raw"]
    model.graph.node.append(helper.make_node(operator, inputs, outputs, axis=1))
    model.graph.initializer.append(numpy_helper.from_array(np.array([2], np.int64), "most"))
    kinds = [TensorProto.FLOAT, TensorProto.INT64][-len(outputs) :]
    model.graph.output.extend(
        helper.make_tensor_value_info(name, kind, None) for name, kind in zip(outputs, kinds, strict=True)
    )
    return model


def test_what_only_another_output_needs_is_left_out(tmp_path: Path) -> None:
    model = _with_chosen_answer("ArgMax", ["chosen"])
    with pytest.raises(ToolkitError, match="has 2 outputs") as found:
        opened(model, tmp_path)
    assert found.value.fix == "`output_name='raw'`"
    graph = opened(model, tmp_path, replace(PIXELS, output="raw")).graph
    assert "ArgMax" not in {node.op_type for node in graph.graph.node}
    onnx.checker.check_model(fp16_from_onnx(graph), full_check=True)


def test_a_file_that_only_chooses_among_its_answers_is_told_so(tmp_path: Path) -> None:
    model = _with_chosen_answer("TopK", ["best", "chosen"])
    del model.graph.output[0]
    with pytest.raises(ToolkitError, match="has 2 outputs") as found:
        opened(model, tmp_path)
    assert "without what chooses an answer" in str(found.value.fix)
