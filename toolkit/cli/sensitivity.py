"""`toolkit sensitivity`: what INT8 costs in each layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from toolkit.cli import user_onnx


def command(
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
    """Quantize each convolution alone and rank them by how far the logits move, by ONNX node name.

    Examples:
      toolkit sensitivity my-net

      toolkit sensitivity bundles/my-net/model.onnx --data photos/ --images 1024

      toolkit sensitivity theirs.onnx --data photos/ --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
    """
    from toolkit.calibration.plausibility import require_plausible
    from toolkit.cli.console import say, steps, table
    from toolkit.errors import CalibrationError
    from toolkit.files import json_text
    from toolkit.folders import folder_replaced
    from toolkit.quantization.charts import png_of_bars
    from toolkit.quantization.choose_method import ranges_by_parity
    from toolkit.quantization.held_out import held_out
    from toolkit.quantization.sensitivity import Sensitivities, sensitivities_of_layers
    from toolkit.workspace import workspace

    own = {"name": name, "labels": labels, "mean": mean, "std": std, "size": size, "pixels": pixels, "layout": layout}
    with steps() as step:
        subject = user_onnx.subject_from_words(
            model,
            data,
            own,
            "sensitivity",
            count=images,
            convert=convert,
            skip_bad=skip_bad,
            on_progress=lambda done, total: step("read images", done, total),
        )
        chosen = subject.images.images_nhwc
        choice = ranges_by_parity(
            subject.graph,
            chosen,
            subject.preprocessing,
            method=method or subject.recipe.method,
            percentile=subject.recipe.percentile,
            notes=require_plausible(chosen, force, subject.typed),
            on_step=step,
        )
        held = chosen[held_out(chosen)]
        if len(held) == 0:
            raise CalibrationError("too few images to hold some out", found=len(chosen), allowed="at least 8")
        layers = sensitivities_of_layers(
            subject.graph, choice.record, held, lambda done, total: step("quantize each layer", done, total)
        )
    rows = [(f"{layer.node}", f"{100 * layer.parity.relative_l2:.3f} %", f"{layer.parity.flips}") for layer in layers]
    title = f"INT8 in one convolution alone, {choice.record.belongs_to['method']}, {len(held)} held-out images"
    table(title, ("convolution", "rel. L2", "flips"), rows)
    found = Sensitivities(
        True, subject.name, choice.record.belongs_to["method"], choice.record.key, len(held), tuple(layers)
    )
    bars = [(layer.node, layer.parity.relative_l2, f"{100 * layer.parity.relative_l2:.3f} %") for layer in layers]
    folder = output or workspace() / "calibration" / f"{subject.name}.sensitivity"
    with folder_replaced(folder, owned_by="sensitivity.json") as fresh:
        (fresh / "sensitivity.json").write_text(json_text(found.as_dict()))
        (fresh / "sensitivity.png").write_bytes(png_of_bars(f"{subject.name}: {title}", bars))
    what = f"{model} " if model else ""
    say(f"{folder}/sensitivity.png. Next: [bold]toolkit export {what}--int8 --max-drop 0.1[/bold]")
    return replace(found, folder=folder.resolve()).as_dict()
