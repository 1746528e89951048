"""`toolkit.verify`: every file of a bundle on every backend here, over the same images, pair by pair."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from toolkit.bundle.manifest import VARIANTS
from toolkit.bundle.reading import ALL, Bundle, names_of, opened_bundle, require_precisions
from toolkit.compare.classes import Classes, classes_from_answers, classes_that_vanish
from toolkit.compare.flips import flips_from_logits
from toolkit.compare.gate import verdict_from_counts, verdict_of_itself
from toolkit.compare.parity import answers_of, logits_in_batches, parity_from_logits
from toolkit.contracts import Float32, LabeledImages
from toolkit.deployment.openers import open_ort
from toolkit.deployment.runners import open_runners, require_backends
from toolkit.errors import BackendUnavailable, ToolkitError
from toolkit.lazy import needs
from toolkit.runtime.runner import Runner
from toolkit.runtime.runner_id import RunnerId
from toolkit.storage.files import Content
from toolkit.verification.causes import Evidence, causes_from_evidence
from toolkit.verification.images import evaluation_images, without_calibration_images
from toolkit.verification.layers import Layers, layers_of_files, layers_of_optimized
from toolkit.verification.measured import answers_as_written, decided_verdict, measured_verdicts
from toolkit.verification.other import Other, opened_other, other_bundle
from toolkit.verification.result import Kind, Pair, Source, Verification, judging
from toolkit.version import __version__

GATE = 99.0  # MLPerf's lower tier; its higher one is 99.9
FP32_ONNX = RunnerId("ort", "fp32")
Step = Callable[[str, int, int], None]
Answers = dict[RunnerId, Float32]


def verify(
    bundle: str | os.PathLike[str] | Bundle | None = None,
    other: str | os.PathLike[str] | None = None,
    *,
    backends: str | Sequence[str] = "all",
    precisions: str | Sequence[str] = "all",
    data: str | None = None,
    sample: int | None = None,
    gate: float = GATE,
    strict: bool = False,
    atol: float | None = None,
    rtol: float | None = None,
    layers: bool = False,
    convert: bool = False,
    skip_bad: bool = False,
    resize: str | None = None,
    run_builder: bool = False,
    runners: Mapping[str, Runner] | None = None,
    on_step: Step = lambda what, done, total: None,
) -> Verification:
    """Runs every file on every backend over the same images and compares each with fp32.

    Args:
        bundle: the folder or tar, or an opened bundle; the newest of the workspace where there is none.
        other: a second bundle, or an ONNX file that takes uint8 NHWC images, held against the first, runner by runner.
        backends, precisions: "all" that are here, or names, in a list or with commas; what is named must run.
        data, sample, convert, skip_bad, resize: which images judge, see `evaluation_images`.
        gate: least top-1, in percent of the reference's.
        strict: the whole interval must reach the gate: too few images to decide is then no success.
        atol, rtol: beside the gate, how far a logit may be from the reference's: atol + rtol * |reference|, as in
            numpy.allclose; one that is not given counts as 0.
        layers: compare layer by layer too, see `toolkit.verification.layers`.
        run_builder: import and call the Python that built the network, see `open_runners`.
        runners: runners of your own, judged beside the others by a name such as "camera int8"; left open.
        on_step: called with (what is being done, done, total).

    Raises:
        BundleError: not a bundle, or changed. BackendUnavailable: nothing that was asked for can run. DataError: images
            that do not fit. ToolkitError: an unknown backend or precision, or another net in `other`.
    """
    if not (isinstance(gate, int | float) and 0 <= gate <= 100):  # NaN would let everything pass
        raise ToolkitError("gate is no part of the reference's right answers", found=gate, allowed="0 to 100 percent")
    if any(value is not None and not (value >= 0 and math.isfinite(value)) for value in (atol, rtol)):
        raise ToolkitError("a tolerance is no finite number", found=f"`atol={atol}`, `rtol={rtol}`", allowed="0 and up")
    if layers:
        with needs("compare layers"):  # a device has no onnx: said before minutes of work, not behind them
            import onnx  # noqa: F401
    first = opened_bundle(bundle)
    held = None if other is None else other_bundle(Path(other), first)
    second = held if isinstance(held, Bundle) else None
    wanted, names = require_precisions(precisions, first), require_backends(backends)
    by_name, own = names_of(precisions) != ALL, {RunnerId.from_name(name): one for name, one in (runners or {}).items()}
    with ExitStack() as stack:
        opened = open_runners(first, names, wanted, run_builder, by_name, slow=True)
        stack.callback(opened.close)
        judged = evaluation_images(first, data, sample, convert or resize is not None, skip_bad, resize)
        judged = judged if second is None else without_calibration_images(second, judged)
        reference, every = _with_reference(first, dict(opened.runners), stack)
        found = None
        if other is not None and held is not None:
            place = opened_other(Path(other), held, names, wanted, opened.runners, run_builder, by_name)
            found = stack.enter_context(place)
        against = _against(reference, opened.runners if found is None else found, every, own)
        every |= {**(found.runners if found else {}), **own}
        asked = dict.fromkeys([reference, *against.values(), *against])
        answers = {name: _answer(name, every[name], judged, first, on_step) for name in asked}
        pairs = {n: _pair(a, n, answers[a], answers[n], judged, gate) for n, a in against.items()}
        if found is None and data is None:
            pairs = _decided(first, pairs, answers, judged, gate)
        if found is None:
            answers |= _supporting(first, answers, judged, on_step)
        failed = tuple(name for name, pair in pairs.items() if not pair.verdict.reaches)
        bundles = ((first, wanted), *([(second, second.precisions)] if second else []))
        on_step("look for faults", 0, 1)
        causes, not_checked = causes_from_evidence(
            Evidence(bundles, judged, reference, every, answers, against, failed)
        )
        unavailable = {**opened.unavailable, **(found.unavailable if found else {})}
    classes = _classes(answers, asked, judged, first.labels)
    passed = {str(name): pair.verdict.holds(strict) for name, pair in pairs.items()}
    beyond = None if atol is None and rtol is None else _beyond(answers, against, atol or 0.0, rtol or 0.0)
    missing = bool(unavailable) and names_of(backends) != ALL
    return Verification(
        ok=all(passed.values()) and not missing and not causes and not any((beyond or {}).values()),
        bundle=first.folder.resolve(),
        other=None if other is None else Path(other).resolve(),
        model=first.model,
        labels=first.labels,
        manifest_sha256=first.manifest_sha256,
        tool=__version__,
        images=judging(judged),
        gate_percent=gate,
        strict=strict,
        reference=str(reference),
        passed=passed,
        verdicts={str(name): pair.verdict.word for name, pair in pairs.items()},
        parity=tuple(pairs.values()),
        sources=_sources(answers, judged) if found is None else (),
        likely_causes=causes,
        not_checked=not_checked,
        layers=_layers(first, held, wanted, judged, on_step) if layers else (),
        unavailable={str(name): reason for name, reason in unavailable.items()},
        classes={str(name): found for name, found in classes.items()},
        vanished=_vanished(classes, against),
        beyond=beyond,
        judged=judged,
        missing=missing,
    )


def _classes(
    answers: Answers, names: Iterable[RunnerId], judged: LabeledImages, labels: tuple[str, ...]
) -> dict[RunnerId, Classes]:
    return {name: classes_from_answers(answers_of(answers[name]), judged.labels, labels) for name in names}


def _vanished(classes: Mapping[RunnerId, Classes], against: Mapping[RunnerId, RunnerId]) -> dict[str, tuple[str, ...]]:
    """By runner, the classes that its reference finds and it never does; runners without any are left out."""
    every = {str(name): tuple(classes_that_vanish(classes[other], classes[name])) for name, other in against.items()}
    return {name: sentences for name, sentences in every.items() if sentences}


def _beyond(answers: Answers, against: Mapping[RunnerId, RunnerId], atol: float, rtol: float) -> dict[str, int]:
    """By runner, how many logits are beyond the tolerance; one that is not finite always is."""
    return {
        str(name): int((~np.isclose(answers[name], answers[other], rtol=rtol, atol=atol)).sum())
        for name, other in against.items()
    }


def _with_reference(
    bundle: Bundle, runners: dict[RunnerId, Runner], stack: ExitStack
) -> tuple[RunnerId, dict[RunnerId, Runner]]:
    """The first fp32 runner; ONNX Runtime with the fp32 file where none was asked for."""
    reference = next((name for name in runners if name.variant == "fp32"), None)
    if reference is None:
        runners[FP32_ONNX] = stack.enter_context(open_ort(bundle, "fp32"))
    return reference or FP32_ONNX, runners


def _against(
    reference: RunnerId,
    candidates: dict[RunnerId, Runner] | Other,
    taken: dict[RunnerId, Runner],
    own: dict[RunnerId, Runner],
) -> dict[RunnerId, RunnerId]:
    """For each candidate the runner that it is held against.

    Raises:
        ToolkitError: a user's runner has the name of one that is there already.
    """
    if isinstance(candidates, Other):
        held = {name: against or reference for name, against in candidates.against.items()}
    else:
        held = dict.fromkeys(candidates, reference)
    twice = [name for name in own if name in held or name in taken]
    if twice:
        raise ToolkitError(f"there are two runners called '{twice[0]}'", allowed="names that the bundle's have not")
    return {**held, **dict.fromkeys(own, reference)}


def _answer(name: RunnerId, runner: Runner, judged: LabeledImages, bundle: Bundle, on_step: Step) -> Float32:
    """Logits of every image, a row each.

    Raises:
        ToolkitError: it takes no such images, or answers in another form.
    """
    wanted = (len(judged), len(bundle.labels))
    try:
        logits = logits_in_batches(runner, judged.images_nhwc, partial(on_step, f"run {name}"))
    except (RuntimeError, ValueError, TypeError) as error:  # what engines raise for an input of another form
        raise _no_answer(name, " ".join(str(error).split())[:300], bundle) from error
    except Exception as error:  # ONNX Runtime's own types have no public base class
        if type(error).__module__.partition(".")[0] != "onnxruntime":
            raise
        raise _no_answer(name, " ".join(str(error).split())[:300], bundle) from error
    if logits.shape != wanted:
        raise _no_answer(name, f"logits of shape {logits.shape}", bundle)
    return logits


def _no_answer(name: RunnerId, found: str, bundle: Bundle) -> ToolkitError:
    height, width, channels = bundle.preprocessing.shape
    return ToolkitError(
        f"'{name}' does not answer these images as this model does",
        found=found,
        allowed=f"uint8 (N, {height}, {width}, {channels}) to float32 (N, {len(bundle.labels)})",
        fix="`toolkit.export('FILE.onnx')` puts the preprocessing into a user's file",
    )


def _pair(
    reference: RunnerId, name: RunnerId, expected: Float32, got: Float32, judged: LabeledImages, gate: float
) -> Pair:
    parity = parity_from_logits(reference, name, expected, got, judged.labels)
    if name == reference:
        verdict = verdict_of_itself(gate, parity.nonfinite)
    else:
        counts = (parity.both_right, parity.lost, parity.gained)
        verdict = verdict_from_counts(*counts, len(judged), gate, parity.nonfinite)
    return Pair(parity, flips_from_logits(expected, got, judged.labels), verdict)


def _decided(
    bundle: Bundle, pairs: dict[RunnerId, Pair], answers: Answers, judged: LabeledImages, gate: float
) -> dict[RunnerId, Pair]:
    """Pairs of the bundle's own files, judged by what export measured where few of its images are here."""
    measured = measured_verdicts(bundle, judged, gate)
    found = {}
    for name, pair in pairs.items():
        of_file = None if pair.parity.nonfinite or name.side else measured.get(name.variant)
        as_written = None if of_file is None else answers_as_written(bundle, name, answers[name], judged)
        found[name] = replace(pair, verdict=decided_verdict(pair.verdict, of_file, as_written))
    return found


def _supporting(bundle: Bundle, answers: Answers, judged: LabeledImages, on_step: Step) -> Answers:
    """ONNX Runtime's answers to the files that another engine ran: they tell its error from the file's."""
    precisions = [name.variant for name in answers if name.on_device]
    needed = dict.fromkeys(["fp32", *precisions]) if precisions else {}
    found: Answers = {}
    for precision in needed:
        name = RunnerId("ort", precision)
        if name in answers or precision not in bundle.precisions:
            continue
        try:
            with open_ort(bundle, precision) as runner:
                found[name] = _answer(name, runner, judged, bundle, on_step)
        except BackendUnavailable:  # a device without ONNX Runtime: the two errors cannot be told apart there
            return {}
    return found


def _sources(answers: Answers, judged: LabeledImages) -> tuple[Source, ...]:
    """Each step alone: PyTorch to ONNX, fp32 to a reduced file on ONNX Runtime, that file to another engine."""
    steps: list[tuple[Kind, RunnerId, RunnerId]] = [("export", RunnerId("torch", "fp32"), FP32_ONNX)]
    for name in answers:
        if name.on_device:
            steps.append(("backend", RunnerId("ort", name.variant), name))
        elif name.backend == "ort" and name != FP32_ONNX and name.variant in VARIANTS:
            steps.append(("quantisation" if VARIANTS[name.variant].is_int8 else "half precision", FP32_ONNX, name))
    return tuple(
        Source(kind, parity_from_logits(a, b, answers[a], answers[b], judged.labels))
        for kind, a, b in steps
        if a in answers and b in answers
    )


def _layers(
    first: Bundle,
    second: Bundle | Content | None,
    precisions: tuple[str, ...],
    judged: LabeledImages,
    on_step: Step,
) -> tuple[Layers, ...]:
    """Of one bundle: each file against fp32, and as it stands against optimized. Of two: file against file."""
    images, found = judged.images_nhwc, []
    if isinstance(second, Content):
        on = partial(on_step, "layers")
        return (layers_of_files(first.onnx("fp32"), second, images, "fp32", on),)
    for precision in precisions:
        path, on = first.onnx(precision), partial(on_step, f"layers of {precision}")
        if second is not None:
            if precision in second.precisions:
                found.append(layers_of_files(path, second.onnx(precision), images, precision, on))
            continue
        if precision != "fp32":
            found.append(layers_of_files(first.onnx("fp32"), path, images, precision, on))
        if VARIANTS[precision].optimize:
            found.append(
                layers_of_optimized(path, images, precision, partial(on_step, f"layers of {precision}, fused"))
            )
    return tuple(found)
