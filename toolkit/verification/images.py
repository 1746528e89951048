"""Which images judge a bundle: never one that calibrated it."""

from __future__ import annotations

from typing import Any

from toolkit.bundle.reading import Bundle
from toolkit.calibration.record import RECORD, record_from_content
from toolkit.contracts import LabeledImages, require_images, sha256_of_each
from toolkit.data import dataset_from_spec, sample
from toolkit.data.fit import SQUASH
from toolkit.data.model_images import (
    EVALUATION,
    images_from_folder,
    images_from_origin,
    labeled_as,
    origin_from_dict,
    require_labels,
)
from toolkit.data.subsets import balanced
from toolkit.errors import DataError, MissingPackage, ToolkitError
from toolkit.workspace import find_in_room

QUICK = 1000  # enough for a gate of 99 %, in seconds on a laptop; export has judged every file on all of them


def evaluation_images(
    bundle: Bundle,
    data: str | None,
    count: int | None,
    convert: bool = False,
    skip_bad: bool = False,
    resize: str | None = None,
) -> LabeledImages:
    """From `data`; else the evaluation images the bundle was exported with; else its golden images.

    Args:
        count: draw so many, balanced over the classes, seeded; None takes all of `data`, and `QUICK` of the model's
            own, which are dealt so that their beginning is balanced.
        skip_bad: leave damaged files of a folder out; the images' source says how many.
        resize: how `convert` brings images to the model's proportions; None as the bundle's own were.

    Raises:
        DataError: images of another shape or other classes, too few, or none that did not calibrate.
    """
    if data is not None:
        resize = resize or str(_read(bundle).get("resize", SQUASH))
        dataset = dataset_from_spec(
            data, shape=bundle.preprocessing.shape, convert=convert, skip_bad=skip_bad, resize=resize
        )
        images = labeled_as(dataset.test, bundle.labels, bundle.model)
    else:
        images = _own_images(bundle)
    require_images(images.images_nhwc, bundle.preprocessing, f"model '{bundle.model}'")
    require_labels(images, bundle.labels, bundle.model)
    images = without_calibration_images(bundle, images)
    if count is not None:
        return sample(images, count, seed=0)
    if data is None and len(images) > QUICK:
        chosen = balanced(images.labels, QUICK)
        return images.take(chosen, f"{images.source} ({QUICK:,} of {len(images):,}, a class in turn)")
    return images


def _read(bundle: Bundle) -> dict[str, Any]:
    """How the images that judged at export were read, where they came from elsewhere than `calibration/`."""
    return dict((bundle.manifest.get("evaluation") or {}).get("read") or {})


def _own_images(bundle: Bundle) -> LabeledImages:
    wanted = (bundle.manifest.get("evaluation") or {}).get("sha256")
    origin = origin_from_dict(_read(bundle))
    golden, _ = bundle.golden()
    if origin is not None and origin.is_there:
        try:
            images = images_from_origin(origin, bundle.preprocessing.shape, bundle.labels, bundle.model).evaluation
            if images.sha256 == wanted:
                return images
        except DataError:
            pass  # it is another set by now: the golden images are as they were
        except MissingPackage as error:
            golden = _because(golden, error)
    folder = find_in_room("calibration", bundle.model)
    if folder is None:
        return golden
    try:
        images = images_from_folder(folder).evaluation
    except DataError as error:
        if (folder / EVALUATION).exists():
            raise
        return _because(golden, error)
    return images if images.sha256 == wanted else golden


def _because(golden: LabeledImages, error: ToolkitError) -> LabeledImages:
    """The golden images, with the reason why no others judge."""
    return LabeledImages(golden.images_nhwc, golden.labels, golden.classes, f"{golden.source} ({error.what})")


def without_calibration_images(bundle: Bundle, images: LabeledImages) -> LabeledImages:
    """Leaves out images whose pixels were measured for the ranges, by the hashes in the record."""
    if RECORD not in bundle.files:
        return images
    import numpy as np

    measured = set(record_from_content(bundle.files.content(RECORD)).images)
    kept = [i for i, d in enumerate(sha256_of_each(images.images_nhwc)) if d.hex()[:16] not in measured]
    if len(kept) == len(images):
        return images
    if not kept:
        raise DataError(
            f"every image of {images.source} was used to calibrate this bundle",
            allowed="images that did not set the ranges",
            fix="evaluate on a test part",
        )
    left_out = len(images) - len(kept)
    return images.take(np.array(kept), f"{images.source} ({left_out} calibration images left out)")
