"""Images from named sets, folders and arrays, as uint8 NHWC with labels: counted, hashed, seeded."""

from __future__ import annotations

from toolkit.data.describe import require_two_classes, summary
from toolkit.data.download import Progress
from toolkit.data.source import dataset_from_spec
from toolkit.data.subsets import require_disjoint, sample, without_shared, without_test_images

__all__ = [
    "Progress",
    "dataset_from_spec",
    "require_disjoint",
    "require_two_classes",
    "sample",
    "summary",
    "without_shared",
    "without_test_images",
]
