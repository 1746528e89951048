"""What a run is about to learn from: shown before the first epoch, and cleared of the images that will judge it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.contracts import Dataset

MOST_CLASSES = 12
ENDS = 5  # of a longer list, the largest and the smallest classes


def without_test_images(dataset: Dataset, shared: int) -> tuple[Dataset, int]:
    """The set without training images that are also test images, and how many those were.

    Accuracy on an image that was learned by heart says nothing. The test part stays whole, so that its number can be
    compared with those of others.

    Args:
        shared: how many test images also occur in the training part.

    Raises:
        DataError: no training image, or one class of them, is left.
    """
    from toolkit.data import require_two_classes, without_shared

    if not shared:
        return dataset, 0
    train = without_shared(dataset.train, dataset.test)
    kept = replace(dataset, train=train)
    require_two_classes(kept)
    return kept, len(dataset.train) - len(train)


def show_summary(facts: dict[str, Any], dropped: int) -> None:
    """Counts, balance, duplicates, mean and std, for people.

    Args:
        facts: as `toolkit.data.summary` gives them.
        dropped: training images left out because they are also test images.
    """
    from toolkit.cli.console import note, say, table

    train, test = facts["train"], facts["test"]
    size = "x".join(map(str, facts["shape"]))
    table(
        f"{facts['name']}: {train['images']:,} training and {test['images']:,} test images of {size}, "
        f"{len(facts['classes'])} classes",
        ("class", "training", "share", "test"),
        _rows(train["per_class"], test["per_class"]),
    )
    note(_balance(train["per_class"]))
    note(f"mean {_numbers(facts['mean'])}, std {_numbers(facts['std'])} of the training pixels, a channel each, 0 to 1")
    if train["duplicates"]:
        note(f"{train['duplicates']:,} training images repeat another one, pixel by pixel; they are kept")
    if facts["images_with_two_labels"]:
        say(f"[yellow]{facts['images_with_two_labels']:,} images occur under two labels[/yellow]")
    if dropped:
        say(
            f"[yellow]{facts['test_images_also_in_train']:,} test images are also training images[/yellow]: "
            f"{dropped:,} of {train['images']:,} training images are left out, so that the evaluation is honest"
        )


def _rows(train: dict[str, int], test: dict[str, int]) -> list[tuple[str, str, str, str]]:
    total = sum(train.values())

    def row(name: str) -> tuple[str, str, str, str]:
        return (name, f"{train[name]:,}", f"{100 * train[name] / total:.1f} %", f"{test[name]:,}")

    if len(train) <= MOST_CLASSES:
        return [row(name) for name in train]
    ranked = sorted(train, key=lambda name: (-train[name], name))
    between = ranked[ENDS:-ENDS]
    share = 100 * sum(train[name] for name in between) / total
    folded = (
        f"... {len(between)} more",
        f"{train[between[0]]:,} to {train[between[-1]]:,}",
        f"{share:.1f} %",
        f"{sum(test[name] for name in between):,}",
    )
    return [*map(row, ranked[:ENDS]), folded, *map(row, ranked[-ENDS:])]


def _balance(counts: dict[str, int]) -> str:
    most, least = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    if counts[most] == counts[least]:
        return "balanced: every class has as many training images"
    times = f"{counts[most] / counts[least]:.1f} times" if counts[least] else "and not one"
    share = 100 * counts[most] / sum(counts.values())
    return (
        f"the largest class, {most}, has {times} the images of the smallest, {least}; "
        f"answering {most} always would be right in {share:.1f} % of the training images"
    )


def _numbers(values: list[float]) -> str:
    return "/".join(f"{value:.3f}" for value in values)
