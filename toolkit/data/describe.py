"""What is in a set: counts, duplicates, mean and std, hashes; what deserves a look before anything learns from it."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from toolkit.contracts import Dataset, LabeledImages, preprocessing_from_images, sha256_of_each
from toolkit.errors import DataError
from toolkit.storage.documents import Document

TINY = 10  # images of a class, below which neither training nor judging says much
UNEVEN = 10.0  # times the images of the smallest class
ALIKE = 0.85  # of two names, by Ratcliff and Obershelp's measure as difflib computes it
MOST_NAMED = 8
KINDS = Literal["similar names", "tiny class", "uneven classes", "test images in train", "two labels",
                "repeated images", "damaged files"]  # fmt: skip


@dataclass(frozen=True)
class Finding(Document):
    """Something about a set that deserves a look before it is trained on."""

    kind: KINDS
    what: str


def require_two_classes(dataset: Dataset) -> None:
    """Refuses a part that shows one class only: nothing can be learned from it, and any accuracy on it is hollow.

    Raises:
        DataError: the training or the test part holds images of fewer than two classes.
    """
    for part, images in (("training", dataset.train), ("test", dataset.test)):
        present = np.unique(images.labels)
        if len(present) < 2:
            raise DataError(
                f"{images.source}: the {part} part has images of one class only",
                found=f"{len(images)} images of {images.classes[int(present[0])]!r}",
                allowed="at least 2 classes",
                fix="add images of a second class",
            )


def summary(dataset: Dataset) -> dict[str, Any]:
    """Facts about a set, ready for JSON.

    Returns:
        name, shape (H, W, C), classes; `train` and `test`: source, images, per_class, duplicates (images beyond the
        first of their content), sha256; test_images_also_in_train; images_with_two_labels (contents, over both
        parts); skipped (files left out, with reasons); mean and std of the training part, a channel each, of pixels
        scaled to 0..1.

    Raises:
        DataError: the training images are constant in a channel.
    """
    train, test = sha256_of_each(dataset.train.images_nhwc), sha256_of_each(dataset.test.images_nhwc)
    in_train = set(train)
    normal = preprocessing_from_images(dataset.train.images_nhwc)
    return {
        "name": dataset.name,
        "shape": list(dataset.train.images_nhwc.shape[1:]),
        "classes": list(dataset.train.classes),
        "train": _part(dataset.train, train),
        "test": _part(dataset.test, test),
        "test_images_also_in_train": sum(digest in in_train for digest in test),
        "images_with_two_labels": _contradictions(train + test, dataset),
        "skipped": list(dataset.skipped),
        "mean": list(normal.mean),
        "std": list(normal.std),
    }


def _part(images: LabeledImages, digests: list[bytes]) -> dict[str, Any]:
    counts = np.bincount(images.labels, minlength=len(images.classes))
    return {
        "source": images.source,
        "images": len(images),
        "per_class": {name: int(count) for name, count in zip(images.classes, counts, strict=True)},
        "duplicates": len(digests) - len(set(digests)),
        "sha256": images.sha256,
    }


def _contradictions(digests: list[bytes], dataset: Dataset) -> int:
    labels_of: defaultdict[bytes, set[int]] = defaultdict(set)
    for digest, label in zip(digests, np.concatenate([dataset.train.labels, dataset.test.labels]), strict=True):
        labels_of[digest].add(int(label))
    return sum(len(labels) > 1 for labels in labels_of.values())


def findings(facts: dict[str, Any]) -> list[Finding]:
    """What deserves a look in what `summary` says of a set."""
    train, test, classes = facts["train"], facts["test"], facts["classes"]
    found = [Finding("similar names", f"'{a}' and '{b}': one class, or two?") for a, b in similar(classes)]
    tiny = [f"{name} ({count})" for name, count in train["per_class"].items() if count < TINY]
    if tiny:
        more = f" and {len(tiny) - MOST_NAMED} more" if len(tiny) > MOST_NAMED else ""
        found.append(Finding("tiny class", f"fewer than {TINY} training images: {', '.join(tiny[:MOST_NAMED])}{more}"))
    counts = [count for count in train["per_class"].values() if count]
    if max(counts) >= UNEVEN * min(counts):
        found.append(
            Finding("uneven classes", f"the largest class has {max(counts) / min(counts):.0f} times the images of the "
                    f"smallest: look at recall class by class, not at top-1 alone")
        )  # fmt: skip
    if facts["test_images_also_in_train"]:
        what = f"{facts['test_images_also_in_train']:,} of {test['images']:,} test images are training images, too"
        found.append(Finding("test images in train", f"{what}: an accuracy on them says nothing"))
    if facts["images_with_two_labels"]:
        found.append(Finding("two labels", f"{facts['images_with_two_labels']:,} images occur under two labels"))
    repeated = train["duplicates"] + test["duplicates"]
    if repeated:
        found.append(Finding("repeated images", f"{repeated:,} images repeat another one, pixel by pixel"))
    if facts["skipped"]:
        found.append(Finding("damaged files", f"{len(facts['skipped']):,} files cannot be read"))
    return found


def similar(classes: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of class names that may be one: equal but for case, spaces and marks, a plural, or a slip of the hand."""
    plain = {name: "".join(letter for letter in name.lower() if letter.isalnum()) for name in classes}
    return [(a, b) for a, b in combinations(classes, 2) if _alike(plain[a], plain[b])]


def _alike(a: str, b: str) -> bool:
    if a == b or (min(a, b, key=len) and abs(len(a) - len(b)) == 1 and max(a, b, key=len) == min(a, b, key=len) + "s"):
        return True
    if any(letter.isdigit() for letter in a + b) or min(len(a), len(b)) < 5:  # '10' and '11', 'cat' and 'car'
        return False
    return difflib.SequenceMatcher(None, a, b).ratio() >= ALIKE
