"""`toolkit.export`: a model becomes a bundle."""

from __future__ import annotations

from pathlib import Path

from toolkit.calibration.record import RECORD, Record, record_from_file
from toolkit.exporting.artifacts import Options
from toolkit.exporting.options import ExportOptions, PathLike, Step, UserModel
from toolkit.exporting.result import Exported
from toolkit.exporting.subject import model_with_images
from toolkit.exporting.writing import bundle_from_model
from toolkit.workspace import find_in_room, workspace


def export(
    model: PathLike | None = None,
    bundle: PathLike | None = None,
    options: ExportOptions = ExportOptions(),
    *,
    user: UserModel | None = None,
    on_step: Step = lambda what, done, total: None,
) -> Exported:
    """Exports a model in every wanted precision and judges each file on the evaluation images.

    Args:
        model: a name in models/, a model folder, `package.module:build` (PyTorch of your own), FILE.onnx; None is the
            shipped default.
        bundle: the folder to write; None is bundles/ of the workspace, by the model's name.
        user: what a network of your own leaves open.
        on_step: called with (what is being done, done, total).

    Raises:
        ToolkitError: the model or the images cannot be used, or a file would not be the same model. Nothing is left in
            `bundle` that was not there before.
    """
    loaded, images = model_with_images(model, options.data, user, options.reading(on_step))
    qat_record = _qat_record(loaded.card.name) if options.int8 and options.as_the_recipe_says and user is None else None
    method, percentile = options.measuring(images.recipe)
    target = options.built_for()
    resolved = Options(
        fp16=options.fp16,
        int8=options.int8,
        method=method,
        percentile=percentile,
        record=qat_record or _record(options.record),
        max_drop=options.max_drop,
        force=options.force,
        expect_top1=options.expect_top1,
        target=target if options.engines else None,
        tensorrt_version=target.tensorrt_version,
    )
    folder = workspace() / "bundles" / loaded.card.name if bundle is None else Path(bundle)
    return bundle_from_model(loaded, images, folder, resolved, on_step)


def _record(record: Record | PathLike | None) -> Record | None:
    return record if record is None or isinstance(record, Record) else record_from_file(Path(record))


def _qat_record(name: str) -> Record | None:
    """The record that `toolkit.train` left in `calibration/<name>/` after fake quantization; None for other models."""
    folder = find_in_room("calibration", name)
    if folder is None or not (folder / RECORD).is_file():
        return None
    record = record_from_file(folder / RECORD)
    return record if record.from_qat else None
