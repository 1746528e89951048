"""`toolkit calibrate`: ranges from images, as a record that `toolkit export --record` takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from toolkit.cli import user_onnx

if TYPE_CHECKING:
    from toolkit.quantization.choose_method import Choice


def command(
    model: str | None = typer.Argument(
        None,
        help="A name in models/, a model folder, anybody's fp32 FILE.onnx, or nothing: the shipped default.",
    ),
    data: str | None = typer.Option(
        None, "--data", help="Images: fashion-mnist, cifar10, a folder, a .npz. (default: calibration/MODEL)"
    ),
    images: int | None = typer.Option(None, "--images", min=1, help="Images that calibrate. (default: 512)"),
    method: str | None = typer.Option(
        None, "--method", help="auto, minmax, percentile, mse or entropy. (default: the recipe's)"
    ),
    percentile: float | None = typer.Option(None, "--percentile", help="For --method percentile. (default: 99.99)"),
    output: Path | None = typer.Option(
        None, "-o", "--output", help="Folder for record.json. (default: calibration/MODEL.record)"
    ),
    force: bool = typer.Option(False, "--force", help="Calibrate with images that look wrong."),
    convert: bool = typer.Option(False, "--convert", help="Resize and convert --data images that do not fit."),
    skip_bad: bool = user_onnx.SKIP_BAD,
    name: str | None = user_onnx.NAME,
    labels: str | None = user_onnx.LABELS,
    mean: str | None = user_onnx.MEAN,
    std: str | None = user_onnx.STD,
    size: str | None = user_onnx.SIZE,
    pixels: str | None = user_onnx.PIXELS,
    layout: str | None = user_onnx.LAYOUT,
) -> dict[str, Any]:
    """Measure ranges in one pass over the images: every method reads the same histograms.

    Examples:
      toolkit calibrate my-net --images 512

      toolkit calibrate my-net --method mse -o /tmp/my-ranges

      toolkit calibrate theirs.onnx --data photos/ --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
    """
    from toolkit.calibration.plausibility import require_plausible
    from toolkit.calibration.record import write_record
    from toolkit.cli.console import steps
    from toolkit.quantization.choose_method import ranges_by_parity
    from toolkit.workspace import workspace

    own = {"name": name, "labels": labels, "mean": mean, "std": std, "size": size, "pixels": pixels, "layout": layout}
    with steps() as step:
        subject = user_onnx.subject_from_words(
            model,
            data,
            own,
            "calibrate",
            count=images,
            convert=convert,
            skip_bad=skip_bad,
            on_progress=lambda done, total: step("read images", done, total),
        )
        notes = require_plausible(subject.images.images_nhwc, force, subject.typed)
        choice = ranges_by_parity(
            subject.graph,
            subject.images.images_nhwc,
            subject.preprocessing,
            method=method or ("percentile" if percentile is not None else subject.recipe.method),
            percentile=percentile if percentile is not None else subject.recipe.percentile,
            notes=notes,
            on_step=step,
        )
    show_choice(choice)
    folder = output or workspace() / "calibration" / f"{subject.name}.record"
    write_record(folder, choice.record)
    return _answer(folder, choice)


def _answer(folder: Path, choice: Choice) -> dict[str, Any]:
    from toolkit.cli.console import say

    record = choice.record
    say(f"{folder}/record.json: {record.belongs_to['method']} of {len(record.images)} images, key {record.key[:16]}")
    say(f"Next: [bold]toolkit export MODEL --int8 --record {folder}/record.json[/bold] with the same images.")
    return choice.written_to(folder).as_dict()


def show_choice(choice: Choice) -> None:
    """The table of candidates that `auto` tried, and why the first one won."""
    from toolkit.cli.console import note, table

    rows = [
        (c.method, f"{100 * c.parity.relative_l2:.3f} %", f"{c.parity.flips} of {c.parity.images}", "")
        if c.parity is not None
        else (c.method, "", "", c.refused or "")
        for c in choice.candidates
    ]
    if rows:
        table(
            "INT8 against fp32 on held-out calibration images", ("method", "rel. L2", "flips", "refused because<"), rows
        )
    if choice.why:
        note(choice.why)
