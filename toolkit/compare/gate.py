"""Does a candidate keep enough of the reference's right answers? Pass, fail, or too few images to decide.

MLPerf Inference holds a submission to 99 % or 99.9 % of the fp32 model's accuracy on the whole data set (MLCommons,
inference_policies, inference_rules.adoc, the benchmarks' quality targets). On a sample of images such a figure has an
interval, and because both models answered the same images it is the paired ratio's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from toolkit.compare.proportions import paired_ratio_interval
from toolkit.storage.documents import Document
from toolkit.storage.hints import Figure, Maybe, Percent

Word = Literal["pass", "fail", "undecided"]
PASS: Final = "pass"
FAIL: Final = "fail"
UNDECIDED: Final = "undecided"
MOST_IMAGES = 100_000_000  # beyond it nobody will look, and the honest answer is "no number"


@dataclass(frozen=True)
class Verdict(Document):
    """Right answers of the candidate in percent of the reference's, with the 95 % interval, against a gate.

    Attributes:
        word: "pass" where the whole interval reaches the gate, "fail" where none of it does, else "undecided".
        high_percent: infinite where the reference has no right answer.
        reaches: the measured retention itself is at the gate or above, and every logit is finite.
        images_needed: so many images would decide, if the rates seen here went on; None where it is decided, or where
            the candidate is so near to the gate that no number of images would.
        measured_images: export judged the file on so many, and that decided: too few of them were here.
    """

    word: Word
    gate_percent: Percent
    retention_percent: float
    low_percent: float
    high_percent: Figure
    reaches: bool
    images_needed: int | None
    measured_images: Maybe[int] = None

    def holds(self, strict: bool) -> bool:
        """The measured figure decides; with `strict` the whole interval must reach the gate."""
        return self.reaches and (not strict or self.word == PASS)


def verdict_from_counts(
    both: int, lost: int, gained: int, images: int, gate_percent: float, nonfinite: int = 0
) -> Verdict:
    """Judges paired answers.

    Args:
        both: images that reference and candidate have right; `lost` the reference alone, `gained` the candidate alone.
        nonfinite: logits of the candidate that are NaN or infinite; any at all fails.
    """
    low, high = paired_ratio_interval(both, lost, gained)
    retention = (both + gained) / (both + lost) if both + lost else 0.0
    # 938 / 947.47... must not miss a gate of 99 % by the last bit of a float.
    gate = gate_percent / 100 - 1e-12
    word: Word = FAIL if nonfinite else _word(low, high, gate)
    needed = _images_needed(both, lost, gained, images, gate) if word == UNDECIDED else None
    reaches = retention >= gate and not nonfinite
    return Verdict(word, gate_percent, 100 * retention, 100 * low, 100 * high, reaches, needed)


def verdict_of_itself(gate_percent: float, nonfinite: int = 0) -> Verdict:
    """The reference keeps all that it has: nothing is estimated, so nothing is uncertain."""
    word: Word = FAIL if nonfinite else PASS
    return Verdict(word, gate_percent, 100.0, 100.0, 100.0, not nonfinite, None)


def _word(low: float, high: float, gate: float) -> Word:
    if low >= gate:
        return PASS
    return FAIL if high < gate else UNDECIDED


def _images_needed(both: int, lost: int, gained: int, images: int, gate: float) -> int | None:
    """The fewest images, to two digits, at which the same rates would leave the gate outside the interval."""

    def decided(count: int) -> bool:
        part = count / images
        interval = paired_ratio_interval(round(both * part), round(lost * part), round(gained * part))
        return _word(*interval, gate) != UNDECIDED

    low, high = images, 2 * images
    while not decided(high):
        low, high = high, 2 * high
        if high > MOST_IMAGES:
            return None
    while high - low > max(1, high // 200):
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    step: int = 10 ** max(0, len(str(high)) - 2)
    return -(-high // step) * step
