"""Claims about the verdict: what may be deployed, in which words, and what it says it does not cover."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.reporting.documents import SHA, Made
from toolkit.compare.gate import Word
from toolkit.errors import ToolkitError
from toolkit.reporting.evidence import Evidence
from toolkit.reporting.markdown import card_from_evidence
from toolkit.reporting.page import page_from_evidence
from toolkit.reporting.verdict import choice_from_evidence, facts_of_choice, reservations, sentence, speed_up
from toolkit.timing.latency import Intervals, Latency
from toolkit.verification.hypotheses import Cause
from toolkit.verification.result import Verification


def _said(evidence: Evidence) -> str:
    return sentence(evidence, choice_from_evidence(evidence))


def _with_gate(word: Word, passed: bool, runner: str = "ort int8-cpu") -> Verification:
    verify = Made().verified()
    needed = 2300 if word == "undecided" else None
    pairs = [
        replace(pair, verdict=replace(pair.verdict, word=word, images_needed=needed)) if pair.runner == runner else pair
        for pair in verify.parity
    ]
    return replace(verify, parity=tuple(pairs), passed=verify.passed | {runner: passed})


def _passed(verify: Verification, passed: bool) -> Verification:
    return replace(verify, passed=dict.fromkeys(verify.passed, passed))


def test_the_fastest_file_that_passed_is_chosen_and_compared_with_its_own_backend() -> None:
    evidence = Made().evidence(verify=_with_gate("pass", True))
    choice = choice_from_evidence(evidence)
    assert choice is not None
    assert (choice.runner, choice.fp32) == ("ort int8-cpu", "ort fp32")
    assert speed_up(evidence, choice) == pytest.approx(2.5, rel=0.03)
    score = evidence.pair_of["ort int8-cpu"].score
    said = _said(evidence)
    assert said.startswith("On A CPU, 2 cores: deploy model.int8-cpu.onnx on ONNX Runtime: it answers ")
    assert f"{score.top1_percent:.2f}\u202f% of 400 test images right" in said
    assert "2.5 times as fast" in said
    assert said.endswith("28\u202f% of the space.")


def test_no_ratio_is_said_where_it_could_be_twice_as_large() -> None:
    evidence = Made().evidence(verify=_with_gate("pass", True))
    assert evidence.bench is not None

    def spread(latency: Latency) -> Latency:
        inside = (0.6 * latency.p50_ms, 1.6 * latency.p50_ms)
        return replace(latency, intervals_ms=replace(latency.intervals_ms, p50=inside))

    bench = replace(evidence.bench, latency=tuple(map(spread, evidence.bench.latency)))
    vague = Made().evidence(verify=_with_gate("pass", True), bench=bench)
    said = _said(vague)
    assert "times as fast" not in said
    choice = choice_from_evidence(vague)
    assert choice is not None
    assert not any("fp32's speed" in compared for _, _, compared in facts_of_choice(vague, choice))


def test_a_file_below_the_gate_is_never_chosen() -> None:
    choice = choice_from_evidence(Made().evidence(verify=_with_gate("fail", False)))
    assert choice is not None
    assert choice.runner == "ort fp32"
    assert choice.fp32 is None


def test_nothing_is_deployed_where_nothing_passed() -> None:
    assert (
        _said(Made().evidence(verify=_passed(Made().verified(), False)))
        == "Deploy nothing yet: no file passed the gate."
    )
    assert _said(Made().evidence(verify=None)) == "Deploy nothing yet: nothing was verified."


def test_a_named_fault_forbids_everything_and_is_in_the_sentence() -> None:
    cause = Cause("the channels are swapped", "ort int8", "9 of 10", "swap them")
    verify = replace(Made().verified(), likely_causes=(cause,))
    said = _said(Made().evidence(verify=verify))
    assert said == "Deploy nothing yet: toolkit verify found a fault, the channels are swapped (ort int8)."


def test_pytorch_is_no_file_of_the_bundle() -> None:
    made = Made(medians_ms={"torch fp32": 0.1, "ort fp32": 1.0})
    choice = choice_from_evidence(made.evidence())
    assert choice is not None
    assert choice.runner == "ort fp32"


def test_runners_that_cannot_be_told_apart_are_tied_and_the_smallest_file_wins() -> None:
    made = Made(medians_ms={"ort int8": 1.0, "ort fp32": 1.001, "ort int8-cpu": 1.002})
    bench, wide = made.benched(), Intervals((0.9, 1.1), None, None, None, None)
    bench = replace(bench, latency=tuple(replace(row, intervals_ms=wide) for row in bench.latency))
    evidence = made.evidence(verify=_passed(made.verified(), True), bench=bench)
    choice = choice_from_evidence(evidence)
    assert choice is not None
    assert choice.runner == "ort int8-cpu"
    assert set(choice.tied) == {"ort int8", "ort fp32"}
    assert "runs no faster than fp32 that could be measured" in _said(evidence)
    assert any("Not told apart in speed" in text for text in reservations(evidence, choice))


def test_a_verdict_names_what_did_not_run_without_the_noise_of_the_reason() -> None:
    evidence = Made().evidence()
    found = reservations(evidence, choice_from_evidence(evidence))
    assert found[0].startswith("For a Jetson, or another GPU, nothing is measured yet")
    assert found[1].startswith(
        "TensorRT was not measured: no NVIDIA driver. 1 engine is in the bundle and did not run."
    )


def test_too_few_images_and_unsteady_clocks_are_said() -> None:
    bench = Made().benched()
    rows = tuple(replace(row, stable=row.runner != "ort int8-cpu") for row in bench.latency)
    bench = replace(bench, latency=rows)
    evidence = Made().evidence(verify=_with_gate("undecided", True), bench=bench)
    found = " ".join(reservations(evidence, choice_from_evidence(evidence)))
    assert "400 images are too few to decide the gate for certain; about 2,300 would do." in found
    assert "The timings of ort int8-cpu were unsteady" in found


def test_without_latencies_the_smallest_file_is_chosen_and_the_gap_is_said() -> None:
    evidence = Made().evidence(bench=None, verify=_with_gate("pass", True))
    choice = choice_from_evidence(evidence)
    assert choice is not None
    assert choice.runner == "ort int8-cpu"
    assert "runs at a speed that was not measured" in _said(evidence)
    assert "No latency was measured." in reservations(evidence, choice)


def test_the_figures_beside_the_sentence_have_their_intervals() -> None:
    evidence = Made().evidence(verify=_with_gate("pass", True))
    choice = choice_from_evidence(evidence)
    assert choice is not None
    names = [name for name, _, _ in facts_of_choice(evidence, choice)]
    assert names == ["Right answers", "Against fp32", "Median call, batch 1", "Size"]
    assert all("95\u202f%" in compared for _, _, compared in facts_of_choice(evidence, choice)[:2])


@pytest.mark.parametrize("name", ["verify", "bench"])
def test_a_document_of_another_bundle_is_refused(name: str) -> None:
    found: Any = {"verify": Made().verified(), "bench": Made().benched()}[name]
    document = replace(found, manifest_sha256="cd" * 32)
    with pytest.raises(ToolkitError, match=f"this document of toolkit {name} was measured on another bundle") as caught:
        Made().evidence(**{name: document})
    assert caught.value.allowed == f"manifest sha256 {SHA}"


def test_a_comparison_of_two_bundles_is_refused() -> None:
    with pytest.raises(ToolkitError, match="compares two bundles"):
        Made().evidence(verify=replace(Made().verified(), other=Path("/bundles/b")))


def test_where_few_images_are_here_the_page_says_what_export_counted_and_on_which() -> None:
    here, many = Made(images=64), Made(images=400, seed=3)
    measured = {str(pair.runner).partition(" ")[2]: pair.parity.as_dict() for pair in many.verified().parity[1:]}
    manifest = {**here.manifest(), "accuracy": measured}
    manifest["evaluation"] = {"source": "photos/test", "images": 400, "sha256": SHA}
    verify = here.verified()
    pairs = [
        replace(pair, verdict=replace(pair.verdict, word="pass", reaches=True, measured_images=400))
        for pair in verify.parity
    ]
    evidence = here.evidence(manifest=manifest, verify=_passed(replace(verify, parity=tuple(pairs)), True))
    choice = choice_from_evidence(evidence)
    assert choice is not None
    counted = f"{evidence.measured['int8-cpu'].candidate_score.top1_percent:.2f}\u202f%"
    assert f"it answers {counted} of 400 test images right" in _said(evidence)
    assert dict((name, value) for name, value, _ in facts_of_choice(evidence, choice))["Right answers"] == counted
    said = "counted at export, on 400 images of photos/test: here are 64."
    assert any(said in text for text in reservations(evidence, choice))
    page, card = page_from_evidence(evidence), card_from_evidence(evidence)
    assert "What export measured" in page
    assert said in card
    few = f"{evidence.pair_of['ort int8-cpu'].score.top1_percent:.2f}"
    assert few not in card
