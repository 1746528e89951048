"""What `toolkit train` prints: the model that was written, and how it came about. Needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.storage.documents import Document
from toolkit.storage.hints import Apart, Count, Maybe, NotNegative, Percent


@dataclass(frozen=True)
class TrainingResult(Document):
    """What `toolkit.train` returns, and toolkit train prints.

    Attributes:
        ok: it went on to its end.
        model: the folder.
        accuracy: as the card has it, on the test images; null after an interruption, which looked at none.
        holdout_top1_percent: of the best epoch, on images held out of the training part.
        images_per_s: trained, all processes together.
        interrupted: the folder holds the best epoch until then.
        data: what is in the set: counts, hashes, duplicates, mean and std, and what was left out.
        next: the command that comes next, where a command printed this.
        lost: another process had ended, and that is why this run was interrupted; in memory only.
    """

    SCHEMA = "toolkit/train/1"
    ok: bool
    model: Path
    accuracy: dict[str, Any] | None
    holdout_top1_percent: Percent
    best_epoch: Count
    epochs_done: Count
    images_per_s: NotNegative
    seconds: NotNegative
    interrupted: bool
    data: dict[str, Any]
    next: Maybe[str] = None
    lost: Apart[bool] = False
