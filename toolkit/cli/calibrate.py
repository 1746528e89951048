"""`toolkit calibrate`: ranges from images, as a record that `toolkit export --record` takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from toolkit.cli import options

if TYPE_CHECKING:
    from toolkit.exporting.calibrate import Calibration
    from toolkit.quantization.choose_method import Choice


def command(
    context: typer.Context,
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
    percentile: float | None = typer.Option(
        None, "--percentile", min=50, max=100, help="For --method percentile. (default: 99.99)"
    ),
    output: Path | None = typer.Option(
        None, "-o", "--output", help="Folder for record.json. (default: calibration/MODEL.record)"
    ),
    force: bool = typer.Option(
        False, "--force", help="Calibrate with images that look wrong; replace another network's ranges."
    ),
    convert: bool = options.CONVERT,
    resize: str | None = options.RESIZE,
    skip_bad: bool = options.SKIP_BAD,
    name: str | None = options.NAME,
    labels: str | None = options.LABELS,
    mean: str | None = options.MEAN,
    std: str | None = options.STD,
    size: str | None = options.SIZE,
    pixels: str | None = options.PIXELS,
    layout: str | None = options.LAYOUT,
    output_name: str | None = options.OUTPUT_NAME,
    bgr: bool = options.BGR,
) -> dict[str, Any]:
    """Measure ranges in one pass over the images: every method reads the same histograms.

    Examples:
      toolkit calibrate my-net --images 512

      toolkit calibrate my-net --method mse -o /tmp/my-ranges

      toolkit calibrate theirs.onnx --data photos/ --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
    """
    from toolkit.cli.console import note, say, steps
    from toolkit.cli.export_again import next_export
    from toolkit.exporting.calibrate import calibrate
    from toolkit.exporting.options import CalibrateOptions

    user = options.user_model(
        name=name,
        labels=labels,
        mean=mean,
        std=std,
        size=size,
        pixels=pixels,
        layout=layout,
        output_name=output_name,
        bgr=bgr,
    )
    wanted = CalibrateOptions(
        images=images, method=method, percentile=percentile, force=force, convert=convert, resize=resize,
        skip_bad=skip_bad,
    )  # fmt: skip
    with steps() as step:
        found = calibrate(model, data, wanted, user=user, on_step=step)
    show_choice(found)
    replaced = found.replaces_in(output)
    path, record = found.save(output, force), found.record
    if replaced:
        note(f"{path}: {replaced}")
    say(f"{path}: {record.belongs_to['method']} of {len(record.images)} images, key {record.key[:16]}")
    say(*next_export(model, context.obj, "--int8", "--record", str(path), without=("--method", "--percentile")))
    return found.saved_as(path).as_dict()


def show_choice(choice: Choice | Calibration) -> None:
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
