"""Which method measures the ranges of this model best: every one is tried on the same pass, parity decides.

Nothing here sees a label or an evaluation image: the candidates take their ranges from three quarters of the
calibration images and are compared with fp32 on the fourth. The winner then reads all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.calibration.methods import AUTO, CANDIDATES, PERCENTILE, require_method
from toolkit.calibration.ranges import Observation, observation_from_images, record_from_observation, require_enough
from toolkit.calibration.record import Record
from toolkit.compare.parity import UnlabeledParity, parity_without_labels
from toolkit.contracts import Preprocessing, UInt8
from toolkit.errors import CalibrationError
from toolkit.quantization.held_out import held_out, logits_of
from toolkit.quantization.qdq import qdq_from_ranges
from toolkit.storage.documents import Document
from toolkit.storage.hints import Flat, Maybe

if TYPE_CHECKING:
    import onnx

FEWEST_HELD_OUT = 8  # held-out images; with fewer nothing can be ranked
WITHOUT_JUDGING = "percentile 99.99"
Step = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Candidate(Document):
    """A method, and how far its quantized graph is from fp32 on images held out of those that calibrate.

    Attributes:
        refused: why it has no ranges.
    """

    method: str
    parity: Flat[UnlabeledParity | None]
    refused: Maybe[str] = None


@dataclass(frozen=True)
class Choice:
    """A record, the pass that it was read from, every candidate (best first) and one sentence that says why.

    `candidates` is empty where the user named the method, or where there were too few images to judge.
    """

    record: Record
    seen: Observation
    candidates: tuple[Candidate, ...]
    why: str


def ranges_by_parity(
    model: onnx.ModelProto,
    images_nhwc: UInt8,
    preprocessing: Preprocessing,
    *,
    method: str = AUTO,
    percentile: float = PERCENTILE,
    notes: dict[str, Any] | None = None,
    on_step: Step = lambda what, done, total: None,
) -> Choice:
    """Measures the images once; with `auto` tries every method on what was measured.

    Args:
        model: the fp32 graph with preprocessing inside.
        images_nhwc: uint8 (N, H, W, C); their order does not matter.
        notes: go into the record.

    Raises:
        CalibrationError: see `toolkit.calibration.ranges`; also if no candidate has ranges.
    """
    name, notes = require_method(method, percentile), notes or {}
    require_enough(len(images_nhwc))
    held = held_out(images_nhwc)
    if name != AUTO or int(held.sum()) < FEWEST_HELD_OUT:
        seen = observation_from_images(model, images_nhwc, preprocessing, _counting(on_step, 0, len(images_nhwc)))
        few = f"{WITHOUT_JUDGING}, because {4 * FEWEST_HELD_OUT} different images are needed to judge methods"
        why = few if name == AUTO else ""
        chosen_by = {"chosen_by": AUTO, "why": why} if name == AUTO else {}
        name = WITHOUT_JUDGING if name == AUTO else name
        return Choice(record_from_observation(seen, name, {**chosen_by, **notes}), seen, (), why)
    total, measured = len(held), int((~held).sum())
    first = observation_from_images(model, images_nhwc[~held], preprocessing, _counting(on_step, 0, total))
    rest = observation_from_images(model, images_nhwc[held], preprocessing, _counting(on_step, measured, total))
    candidates = _judged(model, first, images_nhwc[held], on_step)
    seen, why = first.merged(rest), _why(candidates)
    facts = {"chosen_by": AUTO, "why": why, "candidates": [candidate.as_dict() for candidate in candidates]}
    return Choice(record_from_observation(seen, candidates[0].method, {**facts, **notes}), seen, candidates, why)


def _counting(on_step: Step, before: int, total: int) -> Callable[[int, int], None]:
    return lambda done, _: on_step("measure ranges", before + done, total)


def _judged(model: onnx.ModelProto, seen: Observation, images_nhwc: UInt8, on_step: Step) -> tuple[Candidate, ...]:
    """Every candidate, best first; those without ranges last."""
    expected = logits_of(model, images_nhwc)
    found = []
    for index, method in enumerate(CANDIDATES):
        on_step("compare methods", index, len(CANDIDATES))
        try:
            quantized = qdq_from_ranges(model, record_from_observation(seen, method))
        except CalibrationError as error:
            found.append(Candidate(method, None, error.what))
            continue
        found.append(Candidate(method, parity_without_labels(expected, logits_of(quantized, images_nhwc))))
    on_step("compare methods", len(CANDIDATES), len(CANDIDATES))
    found.sort(key=lambda candidate: (2.0, 0) if candidate.parity is None else _order(candidate.parity))
    if found[0].parity is None:
        raise CalibrationError("no method finds a range for every tensor", found=found[0].refused)
    return tuple(found)


def _order(parity: UnlabeledParity) -> tuple[float, int]:
    """Like `UnlabeledParity.order`, where candidates without ranges stand at 2.0, behind any usable distance."""
    return min(parity.relative_l2, 1.99), parity.flips


def _why(candidates: tuple[Candidate, ...]) -> str:
    best, second = candidates[0], next((c for c in candidates[1:] if c.parity is not None), None)
    assert best.parity is not None
    words = (
        f"{best.method}: its logits are nearest to fp32's on {best.parity.images} held-out calibration images, "
        f"{100 * best.parity.relative_l2:.2f} % away with {best.parity.flips} flips"
    )
    if second is None or second.parity is None:
        return words
    return f"{words}; next is {second.method} with {100 * second.parity.relative_l2:.2f} %"
