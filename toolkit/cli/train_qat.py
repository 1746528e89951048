"""`toolkit train --qat`: what it takes, and the record that it leaves for `toolkit export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.data.model_images import ModelImages
    from toolkit.models.checkpoint import LoadedModel
    from toolkit.training.recipe import Recipe
    from toolkit.training.session import Outcome, Plan


def recipe_of_qat(
    recipe: Recipe, options: dict[str, Any], start: LoadedModel | None, classes: tuple[str, ...]
) -> Recipe:
    """What fake quantization takes where nothing was said: few epochs at a hundredth of the first rate, in float32.

    Raises:
        ToolkitError: nothing to start from, a model of other classes, or bfloat16, which rounds more coarsely
            than int8.
    """
    from dataclasses import replace

    from toolkit.errors import ToolkitError

    if start is None:
        raise ToolkitError(
            "--qat fine-tunes a trained model",
            found="no --from",
            fix="train without --qat first, then add --from MODEL",
        )
    if classes != start.card.labels:
        raise ToolkitError(
            "--qat needs the classes that the model was trained on, in their order",
            found=", ".join(classes),
            allowed=", ".join(start.card.labels),
            fix="fine-tune with --from alone first",
        )
    if recipe.amp == "bf16":
        raise ToolkitError("--qat computes in float32", found="--amp bf16", fix="leave --amp out")
    return replace(
        recipe,
        epochs=recipe.epochs if options["epochs"] is not None else 4,
        lr=recipe.lr if options["lr"] is not None else 0.001,
        amp="off",
    )


def write_qat_record(folder: Path, outcome: Outcome, plan: Plan, images: ModelImages) -> None:
    """The learned scales as a record, beside the recipe: where `toolkit export` looks."""
    from toolkit.calibration.record import RECORD
    from toolkit.exporting.qat_scales import record_of_scales
    from toolkit.files import write_json
    from toolkit.models.checkpoint import load_model

    notes = {"learned": "toolkit train --qat", "from": plan.start.card.name if plan.start else None}
    record = record_of_scales(load_model(outcome.folder), images.calibration, outcome.qat_scales, notes)
    write_json(folder / RECORD, record.as_dict())
