"""Parts of a set, by content: disjoint, sampled, split. Seeded by hashing, so no library version can change a draw."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import replace

import numpy as np

from toolkit.contracts import Dataset, Int64, LabeledImages, sha256_of_each
from toolkit.data.describe import require_two_classes
from toolkit.errors import DataError

TEST_SHARE = 0.2


def require_disjoint(calibration: LabeledImages, evaluation: LabeledImages) -> None:
    """Refuses to evaluate on images that also set the ranges: the accuracy would flatter.

    Raises:
        DataError: some images have the same pixels in both; says how many and where the first are.
    """
    in_calibration = set(sha256_of_each(calibration.images_nhwc))
    shared = [i for i, digest in enumerate(sha256_of_each(evaluation.images_nhwc)) if digest in in_calibration]
    if shared:
        first = ", ".join(map(str, shared[:5])) + (", ..." if len(shared) > 5 else "")
        raise DataError(
            "calibration and evaluation images overlap",
            found=f"{len(shared)} of {len(evaluation)} evaluation images ({evaluation.source}) are also among "
            f"the {len(calibration)} calibration images ({calibration.source}); at evaluation index {first}",
            allowed="no image in both",
            fix="take the calibration images from the training part, and drop the shared ones",
        )


def without_shared(images: LabeledImages, other: LabeledImages) -> LabeledImages:
    """`images` less those whose pixels also occur in `other`, in the same order.

    Raises:
        DataError: nothing is left.
    """
    elsewhere = set(sha256_of_each(other.images_nhwc))
    kept = [i for i, digest in enumerate(sha256_of_each(images.images_nhwc)) if digest not in elsewhere]
    if not kept:
        raise DataError(
            f"{images.source}: no image is left without those of {other.source}",
            found=f"all {len(images)} images occur in both",
            allowed="at least 1 image of its own",
            fix="use two different sets of images",
        )
    return images.take(np.array(kept, np.int64))


def without_test_images(dataset: Dataset, shared: int) -> tuple[Dataset, int]:
    """The set without training images that are also test images, and how many those were.

    Accuracy on an image that was learned by heart says nothing. The test part stays whole, so that its number can be
    compared with those of others.

    Args:
        shared: how many test images also occur in the training part.

    Raises:
        DataError: no training image, or one class of them, is left.
    """
    if not shared:
        return dataset, 0
    train = without_shared(dataset.train, dataset.test)
    kept = replace(dataset, train=train)
    require_two_classes(kept)
    return kept, len(dataset.train) - len(train)


def sample(images: LabeledImages, count: int, seed: int) -> LabeledImages:
    """Draws `count` images with different pixels, as equal in classes as the set allows.

    The order is a deal, a card a class in turn: every prefix is balanced too, and a smaller sample with the same seed
    is the beginning of a larger one. A draw depends on pixels, labels and seed only.

    Raises:
        DataError: `count` is below 1 or above the number of different images.
    """
    digests = sha256_of_each(images.images_nhwc)
    first_at = {digest: i for i, digest in reversed(list(enumerate(digests)))}
    if not 1 <= count <= len(first_at):
        raise DataError(
            f"{images.source}: cannot draw {count} different images",
            found=f"{len(images)} images, {len(first_at)} of them different",
            allowed=f"1 to {len(first_at)}",
            fix=f"ask for at most {len(first_at)}",
        )
    piles: defaultdict[int, list[tuple[bytes, int]]] = defaultdict(list)
    for digest, i in first_at.items():
        piles[int(images.labels[i])].append((_shuffled(digest, seed), i))
    dealt = sorted((turn, *card) for pile in piles.values() for turn, card in enumerate(sorted(pile)))
    return images.take(np.array([i for _, _, i in dealt[:count]], np.int64))


def balanced(labels: Int64, count: int) -> Int64:
    """Indices of the first `count` images, a class in turn; in their order where they stand so already.

    A folder lists class by class: its beginning would be one class alone.
    """
    turn: defaultdict[int, int] = defaultdict(int)
    turns = []
    for index, label in enumerate(labels.tolist()):
        turns.append((turn[label], index))
        turn[label] += 1
    return np.array(sorted(index for _, index in sorted(turns)[:count]), np.int64)


def split(images: LabeledImages, seed: int, digests: list[bytes] | None = None) -> tuple[LabeledImages, LabeledImages]:
    """About 80 % of each class to train and 20 % to test; images with the same pixels stay on one side.

    Membership depends on pixels, labels and seed, not on order or file names. A class of two or more different
    images gives at least one to each side. An image that occurs under two labels goes to the training side, so that
    no class can lose its last training image to another.

    Args:
        digests: what counts as the pixels of each image, where those are not what somebody has given.

    Raises:
        DataError: no class has two different images to split.
    """
    digests = sha256_of_each(images.images_nhwc) if digests is None else digests
    chosen = _test_digests(digests, images.labels.tolist(), seed)
    if not chosen:
        raise DataError(
            f"{images.source}: there are too few images to split into a training and a test part",
            found=f"{len(set(digests))} different images in {len(images.classes)} classes",
            allowed="2 classes, each with 2 different images that are in no other",
            fix="add images, or give a test part of its own",
        )
    is_test = np.array([digest in chosen for digest in digests])
    train = images.take(np.flatnonzero(~is_test), f"{images.source} (80 %, seed {seed})")
    return train, images.take(np.flatnonzero(is_test), f"{images.source} (20 %, seed {seed})")


def _test_digests(digests: list[bytes], labels: list[int], seed: int) -> set[bytes]:
    labels_of: defaultdict[bytes, set[int]] = defaultdict(set)
    for digest, label in zip(digests, labels, strict=True):
        labels_of[digest].add(label)
    members: defaultdict[int, list[bytes]] = defaultdict(list)
    for digest, its_labels in labels_of.items():
        if len(its_labels) == 1:
            members[next(iter(its_labels))].append(digest)
    chosen: set[bytes] = set()
    for of_class in members.values():
        wanted = max(1, round(TEST_SHARE * len(of_class))) if len(of_class) > 1 else 0
        chosen.update(sorted(of_class, key=lambda digest: _shuffled(digest, seed))[:wanted])
    return chosen


def _shuffled(digest: bytes, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:".encode() + digest).digest()
