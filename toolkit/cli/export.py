"""`toolkit export`: a model becomes a bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from toolkit.cli import user_onnx
from toolkit.cli.user_onnx import onnx_request
from toolkit.errors import ToolkitError

if TYPE_CHECKING:
    from toolkit.compare.parity import Score
    from toolkit.data.model_images import ModelImages
    from toolkit.exporting.export import Written
    from toolkit.exporting.user_onnx import OnnxModel
    from toolkit.exporting.user_torch import Request
    from toolkit.models.checkpoint import LoadedModel
    from toolkit.quantization.sensitivity import Budget

FEW_IN_INT8 = 0.5  # of all multiplications
OWN = "For package.module:build and FILE.onnx"


def command(
    model: str | None = typer.Argument(
        None,
        help="A name in models/, a model folder, package.module:build (your own PyTorch), FILE.onnx, or the default.",
    ),
    int8: bool = typer.Option(False, "--int8", help="Calibrate and write every INT8 artifact."),
    fp16: bool = typer.Option(False, "--fp16", help="Write model.fp16.onnx (typed tensors)."),
    output: Path | None = typer.Option(None, "-o", "--output", help="The bundle's folder. (default: bundles/MODEL)"),
    data: str | None = typer.Option(
        None, "--data", help="Images: fashion-mnist, cifar10, a folder, a .npz. (default: calibration/MODEL)"
    ),
    images: int | None = typer.Option(None, "--images", min=1, help="Images that calibrate. (default: 512)"),
    method: str | None = typer.Option(
        None, "--method", help="auto, minmax, percentile, mse or entropy. (default: the recipe's)"
    ),
    percentile: float | None = typer.Option(None, "--percentile", help="For --method percentile. (default: 99.99)"),
    record: Path | None = typer.Option(None, "--record", help="Ranges measured before: a record.json. (with --int8)"),
    max_drop: float | None = typer.Option(
        None, "--max-drop", min=0, max=100, help="Points of agreement with fp32 that INT8 may lose; layers stay float."
    ),
    force: bool = typer.Option(False, "--force", help="Calibrate with images that look wrong."),
    target: str = typer.Option(
        "default", "--target", help="What engines and calib.cache are for: a file in export/, as jetpack61 or rtx."
    ),
    batch: str | None = typer.Option(
        None, "--batch", help="Engines' smallest, best served and largest batch. (default: the target's, 1:8:64)"
    ),
    engines: bool = typer.Option(
        True, "--engines/--no-engines", help="Build with the TensorRT that is installed here."
    ),
    convert: bool = typer.Option(False, "--convert", help="Resize and convert --data images that do not fit."),
    skip_bad: bool = user_onnx.SKIP_BAD,
    checkpoint: Path | None = typer.Option(
        None, "--checkpoint", help="Weights: .safetensors, or a .pth of tensors.", rich_help_panel=OWN
    ),
    name: str | None = typer.Option(
        None, "--name", help="What to call it. (default: from package.module:build or FILE)", rich_help_panel=OWN
    ),
    labels: str | None = typer.Option(
        None, "--labels", help="One a logit, with commas. (default: the images' classes)", rich_help_panel=OWN
    ),
    mean: str | None = typer.Option(
        None,
        "--mean",
        help="Of pixels from 0 to 1, a channel each. (default: measured on --data; FILE.onnx needs it or --pixels)",
        rich_help_panel=OWN,
    ),
    std: str | None = typer.Option(None, "--std", help="Likewise.", rich_help_panel=OWN),
    size: str | None = typer.Option(
        None, "--size", help="Height x width x channels: 32x32x3. (default: the images')", rich_help_panel=OWN
    ),
    kwargs: str | None = typer.Option(
        None, "--kwargs", help="JSON for the call: '{\"num_classes\": 10}'.", rich_help_panel=OWN
    ),
    pixels: str | None = user_onnx.PIXELS,
    layout: str | None = user_onnx.LAYOUT,
) -> dict[str, Any]:
    """Turn a model into a bundle: ONNX in every precision, ranges, golden vectors, a manifest; each file judged.

    Examples:
      toolkit export --int8 --fp16

      toolkit export my-net --int8 --data photos/ -o /tmp/my-bundle

      toolkit export mynet:build --checkpoint weights.pth --data photos/ --int8

      toolkit export theirs.onnx --data photos/ --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --int8
    """
    from toolkit.calibration.record import record_from_file
    from toolkit.cli.calibrate import show_choice
    from toolkit.cli.console import note, steps
    from toolkit.data.model_images import images_of_model
    from toolkit.exporting.artifacts import Options
    from toolkit.exporting.export import bundle_from_model
    from toolkit.exporting.qat_scales import qat_record
    from toolkit.exporting.user_onnx import model_from_onnx
    from toolkit.exporting.user_torch import model_from_request
    from toolkit.lazy import needs
    from toolkit.target import batch_from_text, target_from_name
    from toolkit.workspace import workspace

    with needs("load a model"):
        from toolkit.models.checkpoint import folder_of_model, load_model
        from toolkit.models.import_path import is_import_path

    if max_drop is not None and not int8:
        raise ToolkitError("--max-drop is about INT8", found="no --int8", fix="add --int8")
    built_for = target_from_name(target)
    if batch is not None:
        built_for = replace(built_for, batch=batch_from_text(batch))
    own = {"checkpoint": checkpoint, "name": name, "labels": labels, "mean": mean, "std": std, "size": size}
    own |= {"kwargs": kwargs, "pixels": pixels, "layout": layout}
    from_onnx = onnx_request(model, data, own, "export") if model is not None and model.endswith(".onnx") else None
    request = _request(model or "", data, own) if from_onnx is None and is_import_path(model or "") else None
    if request is None and from_onnx is None:
        _refuse_own(own)
    with steps() as step:
        reading: Any = {
            "count": images,
            "convert": convert,
            "skip_bad": skip_bad,
            "on_progress": lambda done, total: step("read images", done, total),
        }
        loaded: LoadedModel | OnnxModel
        if from_onnx is not None:
            loaded, found = model_from_onnx(from_onnx, **reading)
        elif request is not None:
            loaded, found = model_from_request(request, **reading)
        else:
            loaded = load_model(folder_of_model(model))
            card = loaded.card
            found = images_of_model(card.name, card.labels, card.preprocessing, data=data, **reading)
        card = loaded.card
        by_default = record is None and method is None and percentile is None and data is None and images is None
        learned = qat_record(card.name) if int8 and by_default and from_onnx is None and request is None else None
        options = Options(
            fp16=fp16,
            int8=int8,
            method=method or ("percentile" if percentile is not None else found.recipe.method),
            percentile=percentile if percentile is not None else found.recipe.percentile,
            record=learned if record is None else record_from_file(record),
            max_drop=max_drop,
            force=force,
            target=built_for if engines else None,
            tensorrt_version=built_for.tensorrt_version,
        )
        written = bundle_from_model(loaded, found, output or workspace() / "bundles" / card.name, options, step)
    if written.graphs.choice is not None:
        show_choice(written.graphs.choice)
    if written.graphs.budget is not None:
        _show_budget(written.graphs.budget)
    if learned is not None:
        note("INT8 with the scales that toolkit train --qat learned; --method auto measures others.")
    _show_decided(loaded, found)
    _show(written)
    from toolkit.exporting.export import scores_as_dict

    return {
        "ok": True,
        "bundle": str(written.folder.resolve()),
        "files": written.manifest["files"],
        "accuracy": scores_as_dict(written.parity),
        "calibration": written.manifest["calibration"],
        "kept_in_float": written.manifest["kept_in_float"],
        "curve": [point.as_dict() for point in written.graphs.budget.curve] if written.graphs.budget else None,
        "left_out": written.manifest["left_out"],
        "engines": written.engines,
        "no_engines": written.no_engines or None,
        "notes": list(written.notes),
        "decided": loaded.decided,
        "skipped": list(found.skipped),
    }


def _request(model: str, data: str | None, own: dict[str, Any]) -> Request:
    """What was asked for of somebody's own network."""
    from toolkit.exporting.user_torch import (
        Request,
        kwargs_from_text,
        labels_from_text,
        numbers_from_text,
        size_from_text,
    )

    alien = [f"--{option}" for option in ("pixels", "layout") if own[option] is not None]
    if alien:
        raise ToolkitError(f"{', '.join(alien)} is for an ONNX file", found=model, fix="leave it out")
    if data is None or own["checkpoint"] is None:
        missing = "--data" if data is None else "--checkpoint"
        raise ToolkitError(
            f"{model} needs {missing}",
            found=f"no {missing}",
            allowed="weights to load, and images to calibrate with and to judge every file on",
            fix=f"toolkit export {model} --checkpoint weights.pth --data FOLDER (or FILE.npz, cifar10, fashion-mnist)",
        )
    return Request(
        builder=model,
        checkpoint=own["checkpoint"],
        data=data,
        kwargs=kwargs_from_text(own["kwargs"]),
        name=own["name"],
        labels=labels_from_text(own["labels"]),
        mean=numbers_from_text(own["mean"], "--mean"),
        std=numbers_from_text(own["std"], "--std"),
        size=size_from_text(own["size"]),
    )


def _refuse_own(own: dict[str, Any]) -> None:
    """A model folder has all of this in its card: an option that is silently ignored would be a trap."""
    given = [f"--{option}" for option, value in own.items() if value is not None]
    if given:
        raise ToolkitError(
            f"{', '.join(given)} belongs to a network of your own",
            allowed="MODEL as an import path, package.module:build, or as FILE.onnx",
            fix="toolkit export package.module:build --checkpoint weights.pth --data ...",
        )


def _show_decided(loaded: LoadedModel | OnnxModel, images: ModelImages) -> None:
    from toolkit.cli.console import note, plain, say

    if loaded.decided.get("normalisation", "given") != "given":
        values = loaded.card.preprocessing
        numbers = ", ".join(f"{m:.4f}/{s:.4f}" for m, s in zip(values.mean, values.std, strict=True))
        say(
            f"[yellow]mean/std {numbers}[/yellow] {plain(loaded.decided['normalization'])}. "
            "If it was trained with others, give those: --mean and --std."
        )
    for what in ("labels", "weights", "repairs"):
        if what in loaded.decided:
            note(f"{what}: {loaded.decided[what]}")
    if images.skipped:
        say(f"[yellow]{len(images.skipped)} damaged files left out[/yellow]: {plain('; '.join(images.skipped[:3]))}"
            + (f"; and {len(images.skipped) - 3} more" if len(images.skipped) > 3 else ""))  # fmt: skip


def _top1(score: Score, images: int) -> str:
    """A file that is slow to judge was judged on fewer images, and says so."""
    fewer = f" (of {score.images:,})" if score.images != images else ""
    return f"{score.top1_percent:.2f} %{fewer}"


def _show_budget(budget: Budget) -> None:
    from toolkit.cli.console import say, table

    rows = [
        (f"{point.kept}", f"{point.int8_percent:.0f} %", f"{point.parity.percent:.2f} %",
         f"{100 * point.parity.relative_l2:.2f} %")
        for point in budget.curve
    ]  # fmt: skip
    columns = ("kept in float", "INT8 convolutions", "agrees with fp32", "rel. L2")
    table(f"Agreement on {budget.curve[0].parity.images} held-out calibration images", columns, rows)
    kept = ", ".join(layer.node for layer in budget.layers if layer.node in budget.keep_float)
    say(f"Kept in floating point: {kept}." if kept else "All convolutions in INT8 meet --max-drop.")


def _show(written: Written) -> None:
    from toolkit.bundle.manifest import VARIANTS
    from toolkit.cli.console import note, say, table

    count = written.manifest["evaluation"]["images"]
    accuracy = {VARIANTS[precision].file: value for precision, value in written.parity.items()}
    rows = []
    for name, entry in written.manifest["files"].items():
        if name.endswith(".json") and "/" in name:
            continue  # an engine's sidecar
        score = accuracy.get(name)
        rows.append(
            (
                name,
                f"{entry['bytes'] / 1024:,.1f} KiB",
                _top1(score.candidate_score, count) if score else "",
                f"{score.agreement_percent:.2f} %" if score else "",
                f"{score.flips}" if score else "",
            )
        )
    table(f"{written.folder}", ("file", "size", f"top-1 on {count:,}", "agrees with fp32", "flips"), rows)
    for entry in written.engines:
        layers = entry["census"]
        if layers and entry["precision"] == "int8":
            reading = layers["convolutions_reading"]
            say(
                f"TensorRT reads int8 in {reading['Int8']} of {layers['convolutions']} convolutions of the int8 engine."
            )
    share = written.graphs.share
    if share is not None:
        say(f"{share}, {100 * share.multiplications:.0f} % of their multiplications.")
        if share.multiplications < FEW_IN_INT8:
            say("[yellow]Most of this network stays in floating point: expect little of INT8.[/yellow]")
    for precision, reason in written.manifest["left_out"].items():
        note(f"No {precision} file: {reason}")
    for sentence in written.notes:
        note(sentence)
    if written.no_engines:
        note(f"No TensorRT engines: {written.no_engines}")
    say("Next: [bold]toolkit verify[/bold] and [bold]toolkit bench[/bold]; then copy the folder to the device.")
