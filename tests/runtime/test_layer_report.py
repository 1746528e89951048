"""Claims about what an engine is made of."""

from __future__ import annotations

from toolkit.runtime.trt.layer_report import (
    LayerReport,
    layer_report_from_dict,
    layer_report_from_inspector,
    warnings_of_layer_report,
)

RTX_INT8 = LayerReport(
    (("correlation", "Int8", "Float", 6), ("kgen", "Float", "Int8", 3), ("kgen", "Int8+Float", "Int8", 1))
)
FUSED = LayerReport((("convolution", "Int8+Int8", "Int8", 6), ("Reformat", "Int8", "Int8", 2)))


def test_a_layer_report_comes_back_from_its_sidecar() -> None:
    assert layer_report_from_dict(RTX_INT8.as_dict()) == RTX_INT8
    assert layer_report_from_dict(None) is None


def test_layers_that_only_convert_are_counted() -> None:
    assert RTX_INT8.conversions == 3
    assert FUSED.conversions == 2


def test_int8_that_does_not_pay_is_said() -> None:
    assert warnings_of_layer_report(FUSED, quantized=True) == ()
    assert "6 of 6 int8 convolutions write floating point" in warnings_of_layer_report(RTX_INT8, quantized=True)[0]
    mixed = LayerReport((("convolution", "Int8", "Int8", 4), ("convolution", "Half", "Half", 2)))
    assert warnings_of_layer_report(mixed, quantized=True) == ("2 of 6 convolutions run in floating point.",)
    none = LayerReport((("convolution", "Half", "Half", 2),))
    assert "No convolution reads int8" in warnings_of_layer_report(none, quantized=True)[0]
    assert warnings_of_layer_report(none, quantized=False) == ()


# Synthetic, by the schemas that NVIDIA documents ("Engine Inspector"; "TensorRT 10.x to 11.x, IEngineInspector").
# 8.6 and 10 put the type into words; the words are those of NVIDIA's own example and of public listings.
INT8_32 = "Thirty-two wide channel vectorized row major Int8 format"
OLD = {
    "Layers": [
        {"Name": "Reformatting CopyNode for Input Tensor 0 to conv1", "LayerType": "Reformat",
         "Origin": "QDQ", "Inputs": [{"Name": "x", "Format/Datatype": "Row major linear FP16 format"}],
         "Outputs": [{"Name": "q", "Format/Datatype": INT8_32}]},
        {"Name": "conv1 + relu1", "LayerType": "CaskConvolution", "ParameterType": "Convolution",
         "Inputs": [{"Name": "q", "Format/Datatype": INT8_32}], "Outputs": [{"Name": "a", "Format/Datatype": INT8_32}],
         "Metadata": "[ONNX Layer: conv1/Conv]\x1e[ONNX Layer: relu1/Relu]"},
        {"Name": "conv2 + add", "LayerType": "CaskConvolution", "ParameterType": "Convolution",
         "Inputs": [{"Name": "a", "Format/Datatype": "Row major linear FP32"},
                    {"Name": "x", "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}],
         "Outputs": [{"Name": "b", "Format/Datatype": "Row major linear FP32"}],
         "Metadata": "[ONNX Layer: conv2/Conv]"},
    ],
    "Bindings": ["images", "logits"],
}  # fmt: skip
NEW = {
    "Layers": [
        {"Name": "conv1_myl0_1", "LayerType": "convolution",
         "Metadata": "[ONNX Layer: conv1/Conv][ONNX Layer: relu1/Relu]",
         "Inputs": [{"Name": "q", "Dimensions": [-1, 8, 8, 8], "Strides": [512, 1, 64, 8], "Datatype": "Int8",
                     "Format": "(NHWC) Channel major format"}],
         "Outputs": [{"Name": "a", "Datatype": "Half", "Format": "(NHWC) Channel major format"}]},
        {"Name": "kgen_2", "LayerType": "kgen", "Metadata": "", "Inputs": [{"Name": "a", "Datatype": "Half"}],
         "Outputs": [{"Name": "logits", "Datatype": "Float"}]},
    ],
    "I/O Tensors": [{"Name": "images", "IOMode": "Input", "DataType": "UInt8"}],
}  # fmt: skip


def test_the_inspector_of_8_6_and_10_is_read_from_its_words() -> None:
    layers = layer_report_from_inspector(OLD)
    assert layers is not None
    assert set(layers.kinds) == {
        ("Reformat", "Half", "Int8", 1), ("convolution", "Int8", "Int8", 1), ("convolution", "Float+Half", "Float", 1),
    }  # fmt: skip
    assert (
        layers.convolutions(),
        layers.convolutions("Int8"),
        layers.reformats,
        layers.conversions,
    ) == (2, 1, 1, 1)
    assert layers.fused == (("conv1 + relu1", ("conv1/Conv", "relu1/Relu")),)
    assert warnings_of_layer_report(layers, quantized=True) == ("1 of 2 convolutions run in floating point.",)


def test_the_inspector_of_11_is_read_from_its_fields() -> None:
    layers = layer_report_from_inspector(NEW)
    assert layers is not None
    assert set(layers.kinds) == {("convolution", "Int8", "Half", 1), ("kgen", "Half", "Float", 1)}
    assert layers.fused == (("conv1_myl0_1", ("conv1/Conv", "relu1/Relu")),)
    assert "write floating point" in warnings_of_layer_report(layers, quantized=True)[0]


def test_layers_of_a_dla_are_counted_as_such() -> None:
    layer = {"Name": "{ForeignNode[conv1...conv6]}", "LayerType": "DLA", "Inputs": [], "Outputs": []}
    layers = layer_report_from_inspector({"Layers": [layer]})
    assert layers is not None
    assert (layers.on_dla, layers.convolutions()) == (1, 0)


def test_an_engine_that_kept_no_details_has_no_layer_report() -> None:
    assert layer_report_from_inspector({"Layers": ["conv1 + relu1", "fc"], "Bindings": []}) is None
    assert layer_report_from_inspector({"Layers": []}) is None
    assert layer_report_from_inspector({}) is None


def test_what_was_fused_comes_back_from_its_sidecar_and_older_sidecars_have_none() -> None:
    layers = layer_report_from_inspector(OLD)
    assert layers is not None
    document = layers.as_dict()
    assert layer_report_from_dict(document) == layers
    del document["fused"]
    assert layer_report_from_dict(document) == LayerReport(layers.kinds)
