"""Claims about classifiers of every family, whichever way they come: the same answers, every file, every engine."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.zoo.made import RTX, Made, answers_of, engine_of, form_of, made_of
from tests.zoo.readers import READ_ALIKE, UNREADABLE, readings_of
from tests.zoo.walk import walked
from tests.zoo.ways import NETS, OPEN, REFUSED, WAYS, graph_of, images, settled
from toolkit.compare.parity import parity_without_labels, relative_l2
from toolkit.contracts import Float32
from toolkit.errors import ModelError
from toolkit.graph.qdq_placement import layers_in_graph
from toolkit.quantization.calib_cache import cache_from_ranges, scales_from_cache
from toolkit.quantization.sensitivity import sensitivities_of_layers

Answers = dict[str, Float32]
TABLE = Path(__file__).parents[2] / "docs" / "zoo.md"
# The relative L2 that a file may be away from the network, and the share of images that it must answer as that does.
LIMITS = {"fp32": (1e-4, 1.0), "fp16": (0.01, 0.95), "int8": (0.12, 0.85), "int8-fp16": (0.12, 0.85),
          "int8-cpu": (0.12, 0.85)}  # fmt: skip
COUNTS = {"reference": 1, "openvino": 48}  # images; docs/zoo.md is made of more, and of every file
BUILT = ("int8", "int8-fp16")  # between them they hold every node of the other files for TensorRT
READ_AGAIN, BUILT_AGAIN = ("fp32", "int8"), ("int8-fp16",)  # of the same network in an exporter's words


@cache
def made(net: str) -> Made:
    """Every file of a network that comes as a module."""
    return made_of(graph_of(net, "module", Path()))


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
def test_every_file_answers_as_the_network_does_and_tensorrt_builds_it(net: str, tmp_path: Path) -> None:
    assert len(set(settled(net).answers.argmax(1))) >= 5, "images that all get one answer hold nothing"
    seen = set()
    for way in WAYS:
        if (net, way) in REFUSED:
            continue
        graph = made(net).files["fp32"] if way == "module" else graph_of(net, way, tmp_path)
        _require_near(net, way, "fp32", answers_of(graph))
        form = form_of(graph)
        if form not in seen:  # the same graph in other words becomes the same files
            seen.add(form)
            found = made(net) if way == "module" else made_of(graph)
            plain = {precision: answers_of(model, optimize=False) for precision, model in found.files.items()}
            _require_right(net, way, found, plain)
            _require_read_alike(net, way, found, plain, tuple(LIMITS) if way == "module" else READ_AGAIN)
            if RTX:
                _require_builds(found, tmp_path, BUILT if way == "module" else BUILT_AGAIN)


def _require_near(net: str, way: str, precision: str, got: Float32) -> None:
    parity, (limit, least) = parity_without_labels(settled(net).answers, got), LIMITS[precision]
    assert parity.relative_l2 <= limit, f"{way} {precision}: {parity}"
    assert parity.images - parity.flips >= least * parity.images, f"{way} {precision}: {parity}"


def _require_right(net: str, way: str, found: Made, plain: Answers) -> None:
    assert set(found.files) == set(LIMITS)
    fused = {precision: answers_of(found.files[precision]) for precision in ("fp16", "int8", "int8-cpu")}
    for precision, got in {**fused, "int8-fp16": plain["int8-fp16"]}.items():
        _require_near(net, way, precision, got)
    # whatever the processor: products of int8 do not saturate, and nothing is fused that changes the answer
    assert relative_l2(plain["int8"], fused["int8"]) < 0.01, way
    assert set(scales_from_cache(cache_from_ranges(found.files["fp32"], found.record))) >= set(found.record.amax)


def _require_read_alike(net: str, way: str, found: Made, plain: Answers, precisions: tuple[str, ...]) -> None:
    for precision in precisions:
        for name, reading in readings_of(found.files[precision], images(), plain[precision], COUNTS).items():
            if reading.failed:
                assert (net, precision) in UNREADABLE, f"{way} {precision}: {name} fails in {reading.failed}"
            else:
                assert reading.within(READ_ALIKE[precision]), f"{way} {precision}: {name} {reading}"


def _require_builds(found: Made, folder: Path, precisions: tuple[str, ...]) -> None:
    for precision in precisions:
        engine = engine_of(found.files[precision], folder, batch=(1, 4, 8))
        assert engine.path.stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize("net", OPEN)
def test_what_is_exported_with_an_open_batch_here_is_refused_without(
    net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.zoo.ways.OPEN", ())
    with pytest.raises(ModelError, match="works for a batch of 2 only") as refused:
        graph_of(net, "today", tmp_path)
    assert "export again with a dynamic batch" in str(refused.value.fix)


@pytest.mark.slow
@pytest.mark.skipif(not RTX, reason="TensorRT-RTX is not installed")
@pytest.mark.parametrize("net", ["mlp", "vit", "mixer"])
def test_tensorrt_reads_int8_in_every_product_that_is_quantized(net: str, tmp_path: Path) -> None:
    found = made(net).files
    report = engine_of(found["int8"], tmp_path, batch=(1, 4, 8)).layer_report
    assert report is not None
    products = [name for name in layers_in_graph(found["fp32"]) if name.endswith(("MatMul", "Gemm"))]
    reading = sum(count for kind, reads, _, count in report.kinds if kind == "gemm" and reads.startswith("Int8"))
    assert reading == len(products) >= 2


@pytest.mark.parametrize("net", ["mlp", pytest.param("vit", marks=pytest.mark.slow)])
def test_sensitivity_measures_every_layer_alone(net: str) -> None:
    found = made(net)
    layers = sensitivities_of_layers(found.files["fp32"], found.record, images()[:16])
    assert {layer.node for layer in layers} == set(layers_in_graph(found.files["fp32"]))
    assert all(np.isfinite(layer.parity.relative_l2) and layer.parity.relative_l2 > 0 for layer in layers)


def test_the_table_in_the_docs_is_about_these_nets_and_ways() -> None:
    rows = re.findall(r"^\| (\S+) \| (\S+) \| (?:written|as|refused)", TABLE.read_text(), re.MULTILINE)
    nets = dict.fromkeys(net for net, _ in rows)
    assert rows == [(net, way) for net in nets for way in WAYS]
    assert set(nets) <= set(NETS)
    assert all(net in NETS for net in nets)


def test_the_zoo_has_thirty_families() -> None:
    assert len(NETS) >= 30


@pytest.mark.slow
@pytest.mark.parametrize("net", ["shufflenet-v2", "vit"])
def test_calibrate_export_and_verify_end_well(net: str, workspace: Path) -> None:
    judged = walked(net, workspace)
    assert judged.ok, judged.likely_causes
    assert len(judged.passed) == len(LIMITS)
