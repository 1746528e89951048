"""What is in a set: counts, duplicates, mean and std, hashes; and whether there is anything to tell apart."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from toolkit.contracts import Dataset, LabeledImages, preprocessing_from_images, sha256_of_each
from toolkit.errors import DataError


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
