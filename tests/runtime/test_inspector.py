"""Claims about the engine inspector: its text is read as TensorRT writes it, and where layers miss, it is said why."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from toolkit.runtime.trt.layer_report import layer_report_from_log, layer_report_from_text, layer_report_of_plan

INT8 = "Thirty-two wide channel vectorized row major Int8 format"
LAYER = {
    "Name": "conv1 + relu1",
    "LayerType": "CaskConvolution",
    "Inputs": [{"Name": "q", "Format/Datatype": INT8}],
    "Outputs": [{"Name": "a", "Format/Datatype": INT8}],
    "Metadata": "[ONNX Layer: conv1/Conv]\x1e[ONNX Layer: relu1/Relu]",
}


def _text(*layers: object) -> str:
    return json.dumps({"Layers": list(layers), "Bindings": ["images", "logits"]})


def test_names_with_a_raw_control_character_between_are_read() -> None:
    raw = _text(LAYER).replace("\\u001e", "\x1e")
    with pytest.raises(ValueError, match="control character"):
        json.loads(raw)  # as TensorRT writes it, it is no JSON by the letter
    layer_report, reason = layer_report_from_text(raw)
    assert reason == ""
    assert layer_report is not None
    assert layer_report.convolutions("Int8") == 1
    assert layer_report.fused == (("conv1 + relu1", ("conv1/Conv", "relu1/Relu")),)


def _typed(words: str) -> dict[str, Any]:
    return {**LAYER, "Inputs": [{"Name": "q", "Format/Datatype": words}]}


@pytest.mark.parametrize(
    ("words", "type_"),
    [
        ("Four wide channel vectorized row major INT8 format (kCHW4)", "Int8"),  # in the library of 8.6.0
        ("Channel major UInt8 format", "UInt8"),  # in the library of 10.6.0
        ("Channel major FP16 format where channel % 8 == 0", "Half"),
        ("Row major linear FP32", "Float"),
        ("Row major linear BF16", "BFloat16"),
    ],
)
def test_a_type_is_read_from_its_words(words: str, type_: str) -> None:
    layer_report, _ = layer_report_from_text(_text(_typed(words)))
    assert layer_report is not None
    assert layer_report.kinds[0][1] == type_


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "returned no text"),
        ("", "returned no text"),
        ("conv1 + relu1", "is no JSON"),
        (_text(LAYER)[:-5], "is no JSON"),
        ("[]", "lists no layers"),
        ('{"Layers": "none"}', "lists no layers"),
        (_text(), "lists no layers"),
        (_text("conv1 + relu1"), "lists bare names"),
        (_text(_typed("N/A due to dynamic shapes")), "names no types"),
    ],
)
def test_a_list_that_says_nothing_has_a_reason(text: object, said: str) -> None:
    layer_report, reason = layer_report_from_text(text)
    assert layer_report is None
    assert said in reason


@pytest.mark.parametrize("layer", [{}, {"Inputs": ["q"], "Outputs": None}, {"Inputs": [{}], "Metadata": 3}])
def test_fields_of_another_form_raise_nothing(layer: dict[str, Any]) -> None:
    layer_report, reason = layer_report_from_text(_text(layer))
    assert (layer_report is None) == (reason != "")


def _module(engine: Any) -> Any:
    """A TensorRT whose runtime loads any plan as this engine."""
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda plan: engine)
    form = SimpleNamespace(JSON=1)
    return SimpleNamespace(EngineInspector=object, LayerInformationFormat=form, Runtime=lambda logger: runtime)


def test_a_shape_that_its_own_profile_does_not_take_is_the_reason() -> None:
    context = SimpleNamespace(set_input_shape=lambda name, shape: False)
    trt = _module(SimpleNamespace(create_execution_context=lambda: context))
    layer_report, reason = layer_report_of_plan(trt, None, b"plan", {"images": [[1, 8], [4, 8], [8, 8]]}, None)
    assert layer_report is None
    assert reason == "TensorRT refuses the shape (4, 8) of images, of its own profile"


def test_a_layer_of_an_unknown_form_in_a_build_log_is_named_and_not_left_out() -> None:
    line = "Name: a, LayerType: kgen, Inputs: [], Constants: [], Outputs: [], TacticName: t, Metadata: [ONNX Layer: x]"
    layer_report, reason = layer_report_from_log([f"Layers:\n{line}\x1e[ONNX Layer: y]\nI/O Tensors:\n"])
    assert reason == ""
    assert layer_report is not None
    assert layer_report.fused == (("a", ("x", "y")),)
    layer_report, reason = layer_report_from_log([f"Layers:\n{line}\nName: b, Kind: of another form\n"])
    assert layer_report is None
    assert "Name: b, Kind: of another form" in reason
