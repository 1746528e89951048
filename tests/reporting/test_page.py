"""Claims about the page: it needs nothing else, its figures are those of the documents, and no text becomes markup."""

from __future__ import annotations

import base64
import io
import re
import shlex
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.cli.advice import parsed
from tests.reporting.documents import SHA, Made
from tests.reporting.reading import rows_of, section, text_of, tree_of
from toolkit.compare.parity import UnlabeledParity
from toolkit.quantization.sensitivity import Budget, Point, Sensitivities, Sensitivity
from toolkit.reporting.answers import png_of_image, url_of_image
from toolkit.reporting.conditions import commands
from toolkit.reporting.markdown import card_from_evidence
from toolkit.reporting.page import POLICY, page_from_evidence
from toolkit.reporting.quantized import _engine_row
from toolkit.timing.latency import PhaseTimes
from toolkit.verification.hypotheses import Cause
from toolkit.verification.layers import Layer, Layers

ORDER = ["verdict", "trade-off", "latency", "flips", "recall", "classes", "layers", "calibration", "engines",
         "conditions", "commands"]  # fmt: skip
HOSTILE = "</title></style><script>alert(1)</script><img src=x onerror=alert(2)>\"'`|&"


@pytest.fixture(scope="module")
def page() -> str:
    """The page of the made-up bundle."""
    return page_from_evidence(Made().evidence())


def test_the_verdict_comes_first_and_everything_is_in_order(page: str) -> None:
    root = tree_of(page)
    assert [part.get("id") for part in root.iter("section")] == ORDER
    links = [link.get("href") for link in next(root.iter("nav")).iter("a")]
    assert links == [f"#{name}" for name in ORDER[1:]]


def test_nothing_is_loaded_from_anywhere(page: str) -> None:
    root = tree_of(page)
    (policy,) = [m.get("content") for m in root.iter("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy == POLICY
    for part in root.iter():
        for name in ("src", "href", "srcset", "action", "data", "poster", "background"):
            value = part.get(name)
            assert value is None or value.startswith(("data:", "#")), (part.tag, value)
    assert not re.search(r"url\(|@import|https?://|=\"//", page)
    assert {part.tag for part in root.iter()}.isdisjoint({"iframe", "object", "embed", "base", "form"})


def test_accuracies_are_those_of_the_document(page: str) -> None:
    verify = Made().verified()
    rows = {row["runner"]: row for row in rows_of(section(tree_of(page), "trade-off"), "Every file")}
    assert set(rows) == set(verify.pairs)
    for found in verify.parity:
        row, score = rows[found.runner], found.score
        assert row["top-1"] == f"{score.top1_percent:.2f} %"
        assert row["95 %"] == f"{score.low_percent:.2f} to {score.high_percent:.2f}"
        assert row["gate"] == found.verdict.word
        points = score.top1_percent - found.parity.reference_score.top1_percent
        assert float(row["change"].replace("\u2212", "-")) == pytest.approx(points, abs=0.005001)
    assert rows["ort int8-cpu"]["size"] == "488 KiB"
    assert rows["torch fp32"]["file"] == "\u2013"


def test_classes_are_those_of_the_document_and_a_class_that_is_never_right_is_in_the_verdict() -> None:
    made = Made()
    verify = made.verified()
    assert verify.classes
    fp32 = verify.classes["torch fp32"]
    root = tree_of(page_from_evidence(made.evidence()))
    rows = rows_of(section(root, "recall"), "Recall and precision of torch fp32")
    assert [row["recall"] for row in rows] == [f"{score.recall_percent:.1f}" for score in fp32.per_class]
    assert [row["recall ort int8-cpu"] for row in rows] == [
        f"{score.recall_percent:.1f}" for score in verify.classes["ort int8-cpu"].per_class
    ]
    matrix = rows_of(section(root, "recall"), "Confusion of torch fp32")
    counts = [[int(row[name] or 0) for name in made.labels] for row in matrix]
    assert counts == fp32.matrix()[:, :-1].tolist()
    blind = replace(fp32, warnings=("never right: 'newt' (0 of 3)",))
    found = replace(
        verify, classes=verify.classes | {"torch fp32": blind}, vanished={"ort int8": ("'a': 3 of 3 right, then 0",)}
    )
    text = text_of(section(tree_of(page_from_evidence(made.evidence(verify=found))), "verdict"))
    assert "torch fp32: never right: 'newt' (0 of 3)." in text
    assert "ort int8: 'a': 3 of 3 right, then 0." in text


def test_flips_are_those_of_the_document(page: str) -> None:
    rows = rows_of(section(tree_of(page), "flips"), "Against torch fp32, on 400 images")
    found = [(row["runner"], row["flips"], row["lost"], row["gained"]) for row in rows]
    assert found == [
        (row.candidate, str(row.flips), str(row.lost), str(row.gained))
        for row in (pair.parity for pair in Made().verified().parity)
    ]


def test_latencies_are_those_of_the_document(page: str) -> None:
    rows = rows_of(section(tree_of(page), "latency"), "Milliseconds a call")
    measured = Made().benched().latency
    assert len(rows) == len(measured)
    for row, found in zip(rows, measured, strict=True):
        assert (row["runner"], row["batch"]) == (found.runner, str(found.batch))
        for name in ("p50", "p99"):
            assert float(row[name].split()[0]) == pytest.approx(getattr(found, f"{name}_ms"), rel=5e-3)


def test_classes_lose_and_gain_what_the_document_says(page: str) -> None:
    rows = {row["class"]: row for row in rows_of(section(tree_of(page), "classes"), "Change of right answers")}
    for entry in Made().verified().pairs["ort int8"].flips.per_class:
        cell = rows[Made().labels[entry.label]]["ort int8"]
        assert cell.endswith(f"\u2212{entry.lost} +{entry.gained}")


def test_flipped_images_are_shown_with_label_and_both_answers(page: str) -> None:
    made = Made()
    flips = made.verified().pairs["ort int8"].flips
    part = section(tree_of(page), "flips")
    (figure,) = [f for f in part.iter("figure") if text_of(next(f.iter("h3"))).startswith("ort int8: ")]
    first, card = flips.flipped[0], next(figure.iter("li"))
    text = text_of(card)
    assert text.startswith(made.labels[first.label])
    assert made.labels[first.reference_answer] in text
    assert made.labels[first.candidate_answer] in text
    assert f"margin {first.margin:.2f}" in text
    picture = next(card.iter("img"))
    data = base64.b64decode(str(picture.get("src")).partition(",")[2])
    assert (np.asarray(Image.open(io.BytesIO(data))) == made.pixels()[first.index]).all()
    assert picture.get("alt") == f"image {first.index}, {made.labels[first.label]}"


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (5, 7, 3), (200, 120, 3)])
def test_a_picture_is_a_png_of_the_pixels(shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with Image.open(io.BytesIO(png_of_image(pixels))) as picture:
        assert picture.mode == ("RGB" if shape[2] == 3 else "L")
        assert (np.asarray(picture).reshape(shape) == pixels).all()
    data = base64.b64decode(url_of_image(pixels).partition(",")[2])
    assert max(Image.open(io.BytesIO(data)).size) <= 96


def test_every_picture_and_chart_says_what_it_shows(page: str) -> None:
    root = tree_of(page)
    assert all(picture.get("alt") for picture in root.iter("img"))
    for chart in root.iter("svg"):
        assert chart.get("aria-label") or chart.get("aria-hidden") == "true"
    assert all(text_of(next(table.iter("caption"))) for table in root.iter("table"))
    assert root.get("lang") == "en"
    levels = [int(part.tag[1]) for part in root.iter() if re.fullmatch("h[1-6]", part.tag)]
    assert levels[0] == 1
    assert all(after <= before + 2 for before, after in pairwise(levels))


@pytest.mark.slow
@settings(max_examples=15)
@given(st.lists(st.text(max_size=30), min_size=4, max_size=4), st.text(min_size=1, max_size=30))
def test_no_label_and_no_name_becomes_markup(labels: list[str], model: str) -> None:
    made = Made(model=model, labels=tuple(labels), images=60)
    root = tree_of(page_from_evidence(made.evidence()))
    assert len(list(root.iter("script"))) == 1
    assert len(list(root.iter("style"))) == 1


def test_hostile_text_everywhere_is_only_text() -> None:
    made = Made(model=HOSTILE, labels=(HOSTILE, "b", "c", "d"))
    verify, bench, manifest = made.verified(), made.benched(), made.manifest()
    verify = replace(
        verify,
        unavailable={HOSTILE: HOSTILE},
        not_checked={HOSTILE: HOSTILE},
        likely_causes=(Cause(HOSTILE, HOSTILE, HOSTILE, HOSTILE),),
        images=replace(verify.images, source=HOSTILE),
    )
    bench = replace(
        bench,
        warnings=(replace(bench.warnings[0], about=HOSTILE, text=HOSTILE),),
        runners={HOSTILE: HOSTILE},
        host=replace(bench.host, cpu=HOSTILE, absent={HOSTILE: HOSTILE}),
    )
    manifest["kept_in_float"] = [HOSTILE]
    manifest["calibration"] |= {"method": HOSTILE, "notes": {HOSTILE: HOSTILE}}
    manifest["engines"][0] |= {"file": HOSTILE}
    layers = (Sensitivity(HOSTILE, UnlabeledParity(0.1, 1, 9)),)
    costs = Sensitivities(True, HOSTILE, HOSTILE, SHA, 9, layers)
    evidence = made.evidence(verify=verify, bench=bench, manifest=manifest, sensitivity=costs)
    root = tree_of(page_from_evidence(evidence))
    assert len(list(root.iter("script"))) == 1
    assert all(str(picture.get("src")).startswith("data:") for picture in root.iter("img"))
    assert not any(name.startswith("on") for part in root.iter() for name in part.attrib)
    card = card_from_evidence(evidence)
    outside = re.sub(r"```.*?```", "", card, flags=re.DOTALL)
    assert "<script" not in outside
    assert "<img" not in outside


def test_what_was_not_measured_is_a_sentence_each() -> None:
    manifest = Made().manifest() | {"engines": [], "calibration": None}
    bare = Made().evidence(verify=None, bench=None, record=None, pixels_nhwc=None, manifest=manifest)
    root = tree_of(page_from_evidence(bare))
    assert [part.get("id") for part in root.iter("section")] == ORDER
    said = {name: text_of(section(root, name)) for name in ORDER}
    assert "Deploy nothing yet: nothing was verified." in said["verdict"]
    assert (
        "No chart of accuracy against latency: there is no document of toolkit verify and bench." in said["trade-off"]
    )
    assert "No latencies: there is no document of toolkit bench." in said["latency"]
    assert "No flips: there is no document of toolkit verify." in said["flips"]
    assert "No figures by class" in said["classes"]
    assert "was not measured: toolkit sensitivity tiny-net does." in said["layers"]
    assert "No calibration record: this bundle holds no INT8 file." in said["calibration"]
    assert "No TensorRT engine is in this bundle" in said["engines"]
    assert "The machine is not known" in said["conditions"]


def test_without_the_images_flips_are_a_list() -> None:
    root = tree_of(page_from_evidence(Made().evidence(pixels_nhwc=None)))
    part = section(root, "flips")
    assert "not at hand here, so there are no pictures" in text_of(part)
    assert not list(part.iter("img"))
    assert rows_of(part, "Flips of ort int8-cpu")


def test_a_budget_and_a_sensitivity_become_curves() -> None:
    layers = tuple(Sensitivity(f"conv.{n}", UnlabeledParity(0.01 / (n + 1), n, 128)) for n in range(30))
    curve = tuple(Point(2, s, 100 - s / 50, UnlabeledParity(0.1, 1, 128)) for s in (0, 50, 100))
    manifest = Made().manifest() | {"budget": Budget(layers, curve).as_dict(), "kept_in_float": ["conv.0"]}
    part = section(tree_of(page_from_evidence(Made().evidence(manifest=manifest))), "layers")
    text = text_of(part)
    assert "The 24 most sensitive of 30." in text
    assert "Agreement with fp32 against the share of INT8" in text
    assert "Judged on 128 held-out calibration images." in text
    assert "Kept in floating point: conv.0." in text


def test_layers_that_verify_compared_say_where_they_part() -> None:
    layers = tuple(Layer(name, "Conv", 0.01, off, 0) for name, off in (("a", 0.02), ("b", 0.4), ("c", None)))
    pair = Layers("model.onnx", "model.int8.onnx", 32, "a rule", "b", layers)
    verify = replace(Made().verified(), layers=(pair,))
    (row,) = rows_of(section(tree_of(page_from_evidence(Made().evidence(verify=verify))), "layers"), "Layer by layer")
    assert row["part at"] == "b"
    assert row["worst rel. L2 of a layer"] == "4.0e-01"


def test_what_a_gpu_tells_is_shown_where_it_was_measured() -> None:
    bench = Made().benched()
    openings = bench.openings | {"ort int8": replace(bench.openings["ort int8"], device_mib=310.0)}
    parts = {"phases": PhaseTimes(0.05, 0.01, 0.3, 0.02, 0.01), "energy_mj": 1.25}
    told = next(row for row in bench.latency if row.runner == "ort int8")
    rows = tuple(replace(row, **parts) if row is told else row for row in bench.latency)  # type: ignore[arg-type]
    bench = replace(bench, openings=openings, latency=rows)
    part = section(tree_of(page_from_evidence(Made().evidence(bench=bench))), "latency")
    (split,) = rows_of(part, "What a call is made of")
    assert (split["python"], split["gpu"], split["enqueue"]) == ("0.050 ms", "0.300 ms", "0.010 ms")
    start = {row["runner"]: row for row in rows_of(part, "Until the first answer")}
    assert (start["ort int8"]["GPU memory"], start["ort int8"]["energy a call"]) == ("310 MiB", "1.25 mJ")
    assert start["ort fp32"]["energy a call"] == "not measured"


def test_the_engine_s_layer_report_is_shown_and_warns(page: str) -> None:
    part = section(tree_of(page), "engines")
    (row,) = rows_of(part, "Engines in the bundle")
    assert (row["layers"], row["conversions"], row["convolutions"]) == ("22", "7", "12 int8, 3 float")
    assert "3 of 15 convolutions run in floating point." in text_of(part)


def test_conditions_say_what_is_not_known_and_why(page: str) -> None:
    text = text_of(section(tree_of(page), "conditions"))
    assert "governor not known: no cpufreq" in text
    assert "others take 0.3 of 2 cores" in text
    assert "no NVIDIA driver: libcuda.so.1: cannot open; try: use --backend ort here" in text


def test_the_largest_page_stays_below_its_bar() -> None:
    made = Made(labels=tuple(f"class number {n}" for n in range(1000)), images=600, shape=(96, 96, 3))
    page = page_from_evidence(made.evidence())
    assert len(page.encode()) < 1_500_000
    assert len(list(tree_of(page).iter("img"))) > 10


def test_the_card_has_the_same_verdict_and_figures() -> None:
    evidence = Made().evidence()
    card = card_from_evidence(evidence)
    assert card.startswith("# tiny-net\n\n**On A CPU, 2 cores: deploy model")
    for pair in Made().verified().parity:
        assert f"| {pair.runner} |" in card
        assert f"{pair.score.top1_percent:.2f} %" in card
    assert "toolkit verify bundles/tiny-net --sample 400 --gate 99 > verify.json" in card
    for line in [line for line in card.splitlines() if line.startswith("|")]:
        assert line.endswith("|")


def test_a_cell_of_the_card_cannot_break_its_table() -> None:
    evidence = Made(labels=("a|b\nc", "[x](http://y)", "`", "*")).evidence()
    assert "a\\|b c, \\[x\\]\\(http://y\\), \\`, \\*" in card_from_evidence(evidence)


def _palettes(style: str) -> list[dict[str, str]]:
    """Every block of colors in the style sheet, by name."""
    blocks = re.findall(r"\{([^{}]*--paper:[^{}]*)\}", style)
    return [dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", block)) for block in blocks]


def _luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_color_can_be_read_on_its_ground(page: str) -> None:
    """WCAG 2.2, success criterion 1.4.3: 4.5 to 1 for text."""
    palettes = _palettes(page)
    assert len(palettes) == 3  # light, dark by the system, dark by choice
    for palette in palettes:
        for ground in ("paper", "panel"):
            for name in ("ink", "soft", "ort", "torch", "trt", "cuda", "other", "good", "bad", "open"):
                assert _contrast(palette[name], palette[ground]) >= 4.5, (name, ground, palette)


@pytest.mark.parametrize(("engine", "sidecar"), [({"census_reason": "why"}, {}), ({}, {"census_reason": "why"})])
def test_an_engine_whose_layers_are_unknown_says_why(engine: dict[str, str], sidecar: dict[str, str]) -> None:
    assert "why" in _engine_row(engine, sidecar)


def test_a_network_of_ones_own_is_exported_again_as_it_was() -> None:
    manifest = Made().manifest()
    manifest["model"] |= {
        "arch": {"family": "python", "builder": "mynet:Net", "checkpoint": "/my nets/w.pth"},
        "decided": {"normalisation": "given", "labels": "the classes of photos"},
    }
    manifest["preprocessing"] |= {"mean": [0.5, 0.25, 0.1], "std": [0.2, 0.2, 0.2]}
    read = {
        "data": "/photos",
        "convert": True,
        "resize": "crop",
        "skip_bad": False,
        "calibration_images": 64,
        "seed": 0,
    }
    manifest["evaluation"] = {"source": "photos", "sha256": "0", "read": read}
    line = next(command for _, command in commands(Made().evidence(manifest=manifest)))
    assert line == (
        "toolkit export mynet:Net --int8 --method mse --name tiny-net --checkpoint '/my nets/w.pth' --mean 0.5,0.25,0.1"
        " --std 0.2,0.2,0.2 --data /photos --convert --resize crop --images 64 -o bundles/tiny-net"
    )
    assert parsed(line.removeprefix("toolkit ")) == shlex.split(line)[1:]
