"""`toolkit sensitivity`: what INT8 costs in each layer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import typer

from toolkit.cli import options


def command(
    context: typer.Context,
    model: str | None = typer.Argument(
        None,
        help="A name in models/, a model folder, anybody's fp32 FILE.onnx, or nothing: the shipped default.",
    ),
    data: str | None = typer.Option(
        None, "--data", help="Images: fashion-mnist, cifar10, a folder, a .npz. (default: calibration/MODEL)"
    ),
    images: int | None = typer.Option(
        None, "--images", min=1, help="Images that calibrate; one in four is held out to judge."
    ),
    method: str | None = typer.Option(None, "--method", help="As in toolkit calibrate. (default: the recipe's)"),
    output: Path | None = typer.Option(
        None, "-o", "--output", help="Folder for sensitivity.json and .png. (default: calibration/MODEL.sensitivity)"
    ),
    force: bool = typer.Option(False, "--force", help="Calibrate with images that look wrong."),
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
    """Quantize each layer alone and rank them by how far the logits move, by ONNX node name.

    Examples:
      toolkit sensitivity my-net

      toolkit sensitivity bundles/my-net/model.onnx --data photos/ --images 1024

      toolkit sensitivity theirs.onnx --data photos/ --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
    """
    from toolkit.cli.console import say, steps, table
    from toolkit.cli.export_again import next_export
    from toolkit.exporting.calibrate import save_sensitivities, sensitivities_of_model, title_of
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
        images=images, method=method, force=force, convert=convert, resize=resize, skip_bad=skip_bad
    )
    with steps() as step:
        found = sensitivities_of_model(model, data, wanted, user=user, on_step=step)
    rows = [(layer.node, f"{100 * layer.parity.relative_l2:.3f} %", f"{layer.parity.flips}") for layer in found.layers]
    table(title_of(found), ("layer", "rel. L2", "flips"), rows)
    found = save_sensitivities(found, output)
    say(f"{output or found.folder}/sensitivity.png")
    one_flip = 100 / found.layers[0].parity.images if found.layers else 0.0  # points: less than it is no flip at all
    say(*next_export(model, context.obj, "--int8", "--max-drop", f"{max(0.1, math.ceil(10 * one_flip) / 10):g}"))
    return found.as_dict()
