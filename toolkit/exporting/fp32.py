"""Is fp32 itself right? The labeled images say so: read as they are said to be read, and in every other usual way."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.bundle.manifest import VARIANTS
from toolkit.calibration.plausibility import implausible_input
from toolkit.compare.answers import LOGITS, SIGMOIDS, kind_of_answers
from toolkit.compare.doubts import Doubt, could_be_better, doubts_in_answers, is_better, percent_right
from toolkit.compare.parity import answers_of, logits_in_batches
from toolkit.compare.readings import order_between, order_in_words, usual_orders
from toolkit.contracts import Float32, Int64, LabeledImages, Preprocessing
from toolkit.data import sample
from toolkit.data.fit import RESIZES
from toolkit.data.model_images import ModelImages, images_from_origin
from toolkit.errors import ExportError, ModelError
from toolkit.exporting.numbers import doubts_in_numbers
from toolkit.exporting.readings import CARD, TORCH, Ask, Reading, readings_of, runner_asks
from toolkit.graph.answer_end import ends_in_sigmoids
from toolkit.runtime.ort.runner import OrtRunner

if TYPE_CHECKING:
    import onnx

SCREENED, FEWEST, CONFIRMED = 128, 24, 512  # images: for every reading, of a slow net, and for one that looks better
MOST_CONFIRMED = 3
SIGMOID_IMAGES = 16
SECONDS = 20.0  # that all readings together may take
Step = Callable[[str, int, int], None]


class DoubtfulModel(ModelError):
    """A model whose answers to labeled images are not those of a model that is read as it was trained.

    Attributes:
        doubts: each of them, the likeliest cause first.
    """

    def __init__(self, doubts: tuple[Doubt, ...]) -> None:
        self.doubts, self.kinds = doubts, tuple(dict.fromkeys(doubt.kind for doubt in doubts))
        fixes = list(dict.fromkeys(doubt.fix for doubt in doubts if doubt.fix))[:2]
        super().__init__(
            "fp32 itself looks wrong on these images, and every other file would be as wrong",
            found="; ".join(doubt.what for doubt in doubts),
            allowed="answers of a model that reads images and labels as it was trained",
            fix=" or ".join([*fixes, "`force=True` to go on all the same"]),
        )


@dataclass(frozen=True)
class Said:
    """What somebody said about a model, which the images may contradict.

    Attributes:
        by: who says what its pixels are: `ONNX`, `TORCH` or `CARD` of `toolkit.exporting.readings`.
        typed: its normalization comes from the command line.
        expected: who says that it is right on how many percent.
        other_weights: where its checkpoint has others.
        cut: a softmax was cut off: what is left are logits, even where they look like something else.
    """

    by: str = CARD
    typed: bool = False
    expected: tuple[tuple[str, float], ...] = ()
    other_weights: str = ""
    cut: bool = False


@dataclass(frozen=True)
class Fp32:
    """What the fp32 graph answers to the images that judge.

    Attributes:
        logits: float32 (N, classes).
        kind: what they are, see `toolkit.compare.answers`.
        readings: how many other readings were tried, on how many images each.
    """

    logits: Float32
    kind: str
    doubts: tuple[Doubt, ...]
    readings: int
    screened: int

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "other_readings": self.readings,
            "images": self.screened,
            "doubts": [doubt.as_dict() for doubt in self.doubts],
        }


def fp32_of_graph(
    graph: onnx.ModelProto, preprocessing: Preprocessing, images: ModelImages, said: Said, on_step: Step
) -> Fp32:
    """Runs the graph over the images that judge, and over some of them as they would be read otherwise.

    Raises:
        ExportError: it answers with NaN or infinity.
    """
    judged = images.evaluation
    with OrtRunner(graph.SerializeToString(), label=VARIANTS["fp32"].file) as runner:
        started = time.perf_counter()
        logits = logits_in_batches(runner, judged.images_nhwc, lambda *at: on_step("evaluate fp32", *at))
        seconds = (time.perf_counter() - started) / len(judged)
        bad = int((~np.isfinite(logits)).sum())
        if bad:
            raise ExportError("the fp32 model answers with NaN or infinity", found=f"{bad} of {logits.size} logits")
        answers, kind = answers_of(logits), LOGITS if said.cut else kind_of_answers(logits)
        if kind == SIGMOIDS and not ends_in_sigmoids(graph, [judged.images_nhwc[:SIGMOID_IMAGES]]):
            kind = LOGITS  # cosines, say, of which all are positive
        doubts = _in_kind(kind, judged)
        tried: list[Reading] = []
        screened = 0
        if could_be_better(answers, judged.labels):
            tried = list(readings_of(graph, runner, preprocessing, images.calibration.images_nhwc, said.by))
            screened = int(np.clip(SECONDS / (len(tried) * max(seconds, 1e-6)), FEWEST, SCREENED))
            doubts += _better(runner, tried, judged, screened, on_step)
            doubts += _in_labels(answers, judged, said)
            doubts += _in_proportions(runner, answers, images, on_step)
    wrong = doubts_in_answers(answers, judged.labels, judged.classes, said.expected)
    if doubts or wrong:  # a network that is right on the images takes such pixels: Caffe's are -128 to 127
        doubts += _in_pixels(images.calibration, preprocessing, said)
    doubts += wrong
    doubts += doubts_in_numbers(logits)
    return Fp32(logits, kind, _with_fixes(doubts, said), len(tried), min(screened, len(judged)))


def require_right(fp32: Fp32, force: bool) -> None:
    """Refuses a model with doubts.

    Raises:
        DoubtfulModel: there are some, and `force` is False.
    """
    if fp32.doubts and not force:
        raise DoubtfulModel(fp32.doubts)


def _in_pixels(images: LabeledImages, preprocessing: Preprocessing, said: Said) -> list[Doubt]:
    """A typed normalization that leaves the pixels far from mean 0 and spread 1."""
    plain = set(preprocessing.mean) == {0.0} and set(preprocessing.std) == {1.0}
    if not said.typed or (plain and said.by == TORCH):  # PyTorch's way to say that there is none
        return []
    reasons = implausible_input(images.images_nhwc, preprocessing)
    return [Doubt("normalisation", reason, "`mean=` and `std=` of its training") for reason in reasons]


def _in_kind(kind: str, judged: LabeledImages) -> list[Doubt]:
    if kind != SIGMOIDS:
        return []
    what = "it ends in independent sigmoids (all answers are from 0 to 1, and do not sum to 1): a multi-label network"
    fix = f"export a network that gives logits of {len(judged.classes)} classes, of which one is right"
    return [Doubt("multi-label", what, fix)]


def _with_fixes(doubts: list[Doubt], said: Said) -> tuple[Doubt, ...]:
    """Where nothing better is known, other weights of the same checkpoint are worth a try."""
    if not said.other_weights:
        return tuple(doubts)
    fix = f"`weights=`: the checkpoint has others in {said.other_weights}"
    return tuple(doubt if doubt.fix else replace(doubt, fix=fix) for doubt in doubts)


def _better(
    runner: OrtRunner, tried: list[Reading], judged: LabeledImages, screened: int, on_step: Step
) -> list[Doubt]:
    """The reading that is right on more images than the one at hand by more than luck, if there is one."""
    first, more = _dealt(judged, screened), _dealt(judged, min(CONFIRMED, 4 * screened))
    here, promising = _right(runner_asks(runner), first), []
    for index, reading in enumerate(tried):
        on_step("read the images otherwise", index, len(tried))
        right = _right(reading.ask, first)
        if right > here:
            promising.append((-right, index))
    base = answers_of(runner_asks(runner)(more.images_nhwc)) if promising else np.zeros(0, np.int64)
    found = []
    for _, index in sorted(promising)[:MOST_CONFIRMED]:
        answers = answers_of(tried[index].ask(more.images_nhwc))
        if is_better(base, answers, more.labels):
            found.append((-int((answers == more.labels).sum()), index, answers))
    if not found:
        return []
    _, index, answers = min(found, key=lambda entry: entry[:2])
    words = f"{tried[index].name}: so it is right on {percent_right(answers, more.labels)}"
    return [Doubt("reading", f"{words}, and as it was read on {percent_right(base, more.labels)}", tried[index].fix)]


def _in_proportions(runner: OrtRunner, answers: Int64, images: ModelImages, on_step: Step) -> list[Doubt]:
    """Whether photos of other proportions were to be squashed, cropped or padded: the same ones are read again."""
    origin, judged = images.origin, images.evaluation
    if origin is None or not images.notes:
        return []
    found: list[tuple[int, Doubt]] = []
    for resize in (way for way in RESIZES if way != origin.resize):
        on_step(f"read the images again, resize {resize}", len(found), len(RESIZES) - 1)
        again = images_from_origin(
            replace(origin, resize=resize), judged.images_nhwc.shape[1:], judged.classes, judged.source
        ).evaluation
        if not np.array_equal(again.labels, judged.labels):
            continue  # two files became one image
        other = answers_of(runner_asks(runner)(again.images_nhwc))
        if is_better(answers, other, judged.labels):
            words = f"it takes images that are resized by {resize}: so it is right on "
            words += f"{percent_right(other, judged.labels)}, and with {origin.resize} on "
            words += percent_right(answers, judged.labels)
            found.append((int((other == judged.labels).sum()), Doubt("reading", words, f"`resize={resize!r}`")))
    return [max(found, key=lambda entry: entry[0])[1]] if found else []


def _dealt(judged: LabeledImages, count: int) -> LabeledImages:
    """So many different images, as equal in classes as may be; all where there are fewer."""
    different = len({image.tobytes() for image in judged.images_nhwc})
    return sample(judged, min(count, different), seed=0)


def _right(ask: Ask, images: LabeledImages) -> int:
    return int((answers_of(ask(images.images_nhwc)) == images.labels).sum())


def _in_labels(answers: Int64, judged: LabeledImages, said: Said) -> list[Doubt]:
    """Whether the classes are in another order than the logits: a usual one, or one that half of the images show."""
    labels, names = judged.labels, judged.classes
    orders = usual_orders(names)
    shuffled = np.random.default_rng(0).permutation(len(labels))  # of images that are dealt, every other one has half
    half, rest = shuffled[::2], shuffled[1::2]  # of the classes; an order that was fitted to some is judged on others
    shown = order_between(answers[half], labels[half], len(names))
    if shown is not None:
        orders[order_in_words(shown, "labels").removeprefix("the labels are ")] = shown
    better = [(w, order) for w, order in orders.items() if is_better(answers[rest], order[answers[rest]], labels[rest])]
    if not better:
        return []
    words, order = max(better, key=lambda entry: int((entry[1][answers] == labels).sum()))
    what = f"the order of its logits is not that of the labels, but {words}: so it is right on "
    what += f"{percent_right(order[answers], labels)}, and as it was read on {percent_right(answers, labels)}"
    fix = f"`labels={tuple(names[index] for index in order)}`" if said.by != CARD else ""
    return [Doubt("order of labels", what, fix)]
