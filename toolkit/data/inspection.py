"""`toolkit data`: which sets are here, and what may be wrong with a folder of images before anything learns from it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from toolkit.data.describe import summary
from toolkit.data.download import Progress
from toolkit.data.fit import SQUASH
from toolkit.data.source import NAMED, dataset_from_spec
from toolkit.errors import DataError
from toolkit.storage.documents import Document
from toolkit.storage.hints import Maybe

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


@dataclass(frozen=True)
class DataReport(Document):
    """What toolkit data prints.

    Attributes:
        ok: the set can be used; findings are advice, not faults.
        sets: named sets by name: where they are, or what installs them.
        data: what is in the set that was asked for: counts, hashes, duplicates, mean and std.
        findings: what deserves a look.
    """

    SCHEMA = "toolkit/data/1"
    ok: Literal[True]
    sets: dict[str, str]
    data: Maybe[dict[str, Any]] = None
    findings: tuple[Finding, ...] = ()


def inspect_data(
    spec: str | None = None,
    *,
    download: bool = False,
    convert: bool = False,
    resize: str | None = None,
    size: tuple[int, int, int] | None = None,
    skip_bad: bool = False,
    on_progress: Progress | None = None,
) -> DataReport:
    """Says which named sets are here; of one set, or of a folder or an .npz, what is in it and what looks wrong.

    Args:
        spec, download, convert, skip_bad, on_progress: as for `dataset_from_spec`; no spec looks at no set.
        size: (H, W, C) that images are brought to with `convert`.

    Raises:
        DataError: the set is not there or cannot be read.
    """
    if spec is None:
        return DataReport(True, {name: _where(name) for name in NAMED})
    dataset = dataset_from_spec(
        spec, shape=size or ((32, 32, 3) if convert and spec not in NAMED else None),
        convert=convert or resize is not None, resize=resize or SQUASH, download=download, skip_bad=skip_bad,
        on_progress=on_progress,
    )  # fmt: skip
    facts = summary(dataset)
    return DataReport(True, {}, facts, tuple(findings(facts)))


def _where(name: str) -> str:
    """'60,000 + 10,000 images' or what is missing and how it comes."""
    try:
        dataset = NAMED[name](False, None)
    except DataError as error:
        return f"{error.what}: toolkit data {name} --download fetches it"
    return f"{len(dataset.train):,} + {len(dataset.test):,} images"


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
