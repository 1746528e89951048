"""Names what is wrong when a bundle fails: its files, the images that judge, the runners, in that order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from toolkit.bundle.manifest import VARIANTS
from toolkit.bundle.reading import Bundle
from toolkit.compare.parity import BATCH, logits_in_batches
from toolkit.contracts import Float32, LabeledImages, UInt8
from toolkit.errors import MissingPackage
from toolkit.lazy import needs
from toolkit.runtime.ort.runner import OrtRunner
from toolkit.runtime.runner import Runner
from toolkit.runtime.runner_id import SECOND, RunnerId
from toolkit.storage.files import read_onnx
from toolkit.verification.file_checks import causes_in_files, not_finite
from toolkit.verification.hypotheses import (
    TRIED,
    Ask,
    Cause,
    cause_in_answers,
    cause_in_data,
    cause_in_input,
    cause_in_repetition,
    cause_of_equality,
    explained,
)

ON_A_GPU = ("trt", "tensorrt", "cuda", "gpu")  # backends whose name promises one
PIXELS = 255.0


@dataclass(frozen=True)
class Evidence:
    """Everything that was run, still open.

    Attributes:
        bundles: the first, and the second where there is one, each with the precisions that were looked at.
        reference: the fp32 runner of the first.
        answers: logits float32 (N, classes) by runner; of runners that only support a comparison too.
        against: for each candidate the runner that it is held against.
        failed: candidates below the gate, or with logits that are not finite.
    """

    bundles: tuple[tuple[Bundle, tuple[str, ...]], ...]
    images: LabeledImages
    reference: RunnerId
    runners: dict[RunnerId, Runner]
    answers: dict[RunnerId, Float32]
    against: dict[RunnerId, RunnerId]
    failed: tuple[RunnerId, ...]


def causes_from_evidence(evidence: Evidence) -> tuple[tuple[Cause, ...], dict[str, str]]:
    """Every cause found, each once, and what could not be looked at here with the reason."""
    looks: dict[str, Callable[[], Iterable[Cause]]] = {
        f"the files of {bundle.folder}": partial(causes_in_files, bundle, precisions, evidence.images.images_nhwc)
        for bundle, precisions in evidence.bundles
    }
    looks["the images that judge"] = partial(_in_data, evidence)
    looks |= {f"the runner '{name}'": partial(_in_runner_and_pair, evidence, name) for name in evidence.against}
    causes: list[Cause] = []
    not_checked = {}
    for what, look in looks.items():
        try:
            causes += look()
        except MissingPackage as error:  # a device has no onnx: what needs it is said, the rest is looked at
            not_checked[what] = error.what
    return tuple(dict.fromkeys(causes)), not_checked


def _in_data(evidence: Evidence) -> list[Cause]:
    """The images that judge, by the accuracy that the bundle was exported with."""
    bundle = evidence.bundles[0][0]
    try:
        claimed = float(bundle.manifest["accuracy"]["fp32"]["candidate_score"]["top1_percent"])
    except (KeyError, TypeError, ValueError):
        return []  # a bundle that was never judged
    part = evidence.images.take(slice(4 * TRIED))
    logits = evidence.answers[evidence.reference][: len(part)]
    runner = evidence.runners[evidence.reference]
    cause = cause_in_data(_ask(runner), part.images_nhwc, part.labels, logits, claimed)
    return [] if cause is None else [cause]


def _in_runner_and_pair(evidence: Evidence, name: RunnerId) -> list[Cause]:
    """What is wrong with the runner itself; where nothing is and it failed, why it differs from its reference."""
    causes = list(_in_runner(evidence, name))
    return causes or (list(_in_pair(evidence, name)) if name in evidence.failed else [])


def _in_runner(evidence: Evidence, name: RunnerId) -> Iterator[Cause]:
    """Faults that keep the accuracy: state from call to call, and another device than the name says."""
    runner, got, images = evidence.runners[name], evidence.answers[name], evidence.images.images_nhwc
    # In reverse: one batch may be all there is, and the call before it must have had other images in its places.
    again = runner.logits(np.ascontiguousarray(images[:BATCH][::-1]))
    last = evidence.answers[evidence.against[name]][(len(images) - 1) // BATCH * BATCH :]
    repeated = cause_in_repetition(str(name), got[:BATCH][::-1], again, last)
    if repeated is not None:
        yield repeated
    if not any(word in name.backend.lower() for word in ON_A_GPU):
        return
    on_cpu = evidence.answers.get(RunnerId("ort", name.variant))
    equal = None if on_cpu is None else cause_of_equality(str(name), got, on_cpu)
    if equal is not None:
        yield equal


def _in_pair(evidence: Evidence, name: RunnerId) -> Iterator[Cause]:
    """Why one candidate failed: what its logits show, else what changed pixels or another normalization show."""
    against = evidence.against[name]
    expected, got = evidence.answers[against], evidence.answers[name]
    cause = cause_in_answers(str(name), expected, got)
    if cause is None:
        images = evidence.images.images_nhwc[:TRIED]
        ask = _ask(evidence.runners[against])
        cause = cause_in_input(str(name), ask, images, expected[: len(images)], got[: len(images)])
        cause = cause or _in_normalization(evidence.bundles[0][0], str(name), images, expected, got)
    if cause is not None:
        yield cause
    if not np.isfinite(got).all():
        yield from _not_finite(evidence, name)


def _in_normalization(bundle: Bundle, name: str, images_nhwc: UInt8, expected: Float32, got: Float32) -> Cause | None:
    """Whether the bundle's own graph, normalizing otherwise, answers as the candidate does."""
    right = bundle.preprocessing
    wrong: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
        "mean and std are swapped": (right.std, right.mean),
        "the pixels are not normalized, only divided by 255": ((0.0,) * right.channels, (1.0,) * right.channels),
        "the pixels are fed as 0 to 255": ((0.0,) * right.channels, (1 / PIXELS,) * right.channels),
        "mean and std are in the reverse order of the channels": (right.mean[::-1], right.std[::-1]),
    }
    for what, (mean, std) in wrong.items():
        if min(std) <= 0 or (mean, std) == (right.mean, right.std):
            continue
        predicted = _logits_with(bundle, mean, std, images_nhwc)
        if predicted is None:
            return None
        count = len(images_nhwc)
        fix = f"the model wants mean {_short(right.mean)} and std {_short(right.std)} of pixels scaled to 0..1"
        cause = explained(what, name, predicted, expected[:count], got[:count], fix)
        if cause is not None:
            return cause
    return None


def _logits_with(bundle: Bundle, mean: tuple[float, ...], std: tuple[float, ...], images_nhwc: UInt8) -> Float32 | None:
    """Answers of the fp32 file with another normalization; None where the file has it under other names."""
    with needs("try another normalization"):
        import onnx  # noqa: F401

        from toolkit.graph.preprocessing import renormalized

    right = bundle.preprocessing
    model = renormalized(read_onnx(bundle.onnx("fp32")), replace(right, mean=mean, std=std))
    if model is None:
        return None
    with OrtRunner(model.SerializeToString(), label="the fp32 file, normalizing otherwise") as runner:
        return _ask(runner)(images_nhwc)


def _not_finite(evidence: Evidence, name: RunnerId) -> list[Cause]:
    """Where the candidate's file leaves what float holds."""
    bundle = evidence.bundles[-1 if name.side == SECOND else 0][0]
    if name.variant not in bundle.precisions:
        return []
    bad = ~np.isfinite(evidence.answers[name]).all(axis=1)
    return not_finite(bundle.onnx(name.variant), VARIANTS[name.variant], evidence.images.images_nhwc[bad])


def _short(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


def _ask(runner: Runner) -> Ask:
    return lambda images_nhwc: logits_in_batches(runner, images_nhwc)
