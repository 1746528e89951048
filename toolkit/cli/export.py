"""`toolkit export`: a model becomes a bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from toolkit.errors import ToolkitError

if TYPE_CHECKING:
    from toolkit.bundle.writing import Written
    from toolkit.calibration.sensitivity import Budget


def command(
    model: str | None = typer.Argument(
        None, help="A name in models/, a model folder, or nothing: the shipped default."
    ),
    int8: bool = typer.Option(False, "--int8", help="Calibrate and write every INT8 artefact."),
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
    target: str = typer.Option("default", "--target", help="What engines are for: a file in export/, such as rtx."),
    batch: str | None = typer.Option(
        None, "--batch", help="Engines' smallest, best served and largest batch. (default: the target's, 1:8:64)"
    ),
    engines: bool = typer.Option(
        True, "--engines/--no-engines", help="Build with the TensorRT that is installed here."
    ),
    convert: bool = typer.Option(False, "--convert", help="Resize and convert --data images that do not fit."),
) -> dict[str, Any]:
    """Turn a model into a bundle: ONNX in every precision, ranges, golden vectors, a manifest; each file judged.

    Examples:
      toolkit export --int8 --fp16

      toolkit export my-net --int8 --data photos/ -o /tmp/my-bundle
    """
    from toolkit.bundle.graphs import Options
    from toolkit.bundle.images import images_of_model
    from toolkit.bundle.writing import bundle_from_model
    from toolkit.calibration.record import record_from_file
    from toolkit.cli.calibrate import show_choice
    from toolkit.cli.console import steps
    from toolkit.export.target import target_from_name
    from toolkit.lazy import needs
    from toolkit.workspace import workspace

    with needs("load a model"):
        from toolkit.models.checkpoint import folder_of_model, load_model

    if max_drop is not None and not int8:
        raise ToolkitError("--max-drop is about INT8", found="no --int8", fix="add --int8")
    built_for = target_from_name(target) if engines else None
    if built_for is not None and batch is not None:
        built_for = replace(built_for, batch=_batch(batch))
    loaded = load_model(folder_of_model(model))
    card = loaded.card
    with steps() as step:
        found = images_of_model(
            card.name,
            card.labels,
            card.preprocessing,
            data=data,
            count=images,
            convert=convert,
            on_progress=lambda done, total: step("read images", done, total),
        )
        options = Options(
            fp16=fp16,
            int8=int8,
            method=method or ("percentile" if percentile is not None else found.recipe.method),
            percentile=percentile if percentile is not None else found.recipe.percentile,
            record=None if record is None else record_from_file(record),
            max_drop=max_drop,
            force=force,
            target=built_for,
        )
        written = bundle_from_model(loaded, found, output or workspace() / "bundles" / card.name, options, step)
    if written.graphs.choice is not None:
        show_choice(written.graphs.choice)
    if written.graphs.budget is not None:
        _show_budget(written.graphs.budget)
    _show(written)
    from toolkit.bundle.writing import scores_as_dict

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
    }


def _batch(text: str) -> tuple[int, int, int]:
    from toolkit.export.target import require_batch

    try:
        smallest, best, largest = (int(part) for part in text.split(":"))
    except ValueError as error:
        raise ToolkitError(
            "--batch cannot be read", found=text, allowed="smallest:best:largest, as in 1:8:64"
        ) from error
    return require_batch(smallest, best, largest)


def _show_budget(budget: Budget) -> None:
    from toolkit.cli.console import say, table

    rows = [
        (f"{point.kept}", f"{point.int8_percent:.0f} %", f"{point.agreement.percent:.2f} %",
         f"{100 * point.agreement.relative_l2:.2f} %")
        for point in budget.curve
    ]  # fmt: skip
    columns = ("kept in float", "INT8 convolutions", "agrees with fp32", "rel. L2")
    table(f"Agreement on {budget.curve[0].agreement.images} held-out calibration images", columns, rows)
    kept = ", ".join(layer.node for layer in budget.layers if layer.node in budget.keep_float)
    say(f"Kept in floating point: {kept}." if kept else "All convolutions in INT8 meet --max-drop.")


def _show(written: Written) -> None:
    from toolkit.bundle.reading import ONNX_FILES
    from toolkit.cli.console import note, say, table

    accuracy = {ONNX_FILES[precision]: value for precision, value in written.parity.items()}
    rows = []
    for name, entry in written.manifest["files"].items():
        if name.endswith(".json") and "/" in name:
            continue  # an engine's sidecar
        score = accuracy.get(name)
        rows.append(
            (
                name,
                f"{entry['bytes'] / 1024:,.1f} KiB",
                f"{score.candidate_score.top1_percent:.2f} %" if score else "",
                f"{score.agreement_percent:.2f} %" if score else "",
                f"{score.flips}" if score else "",
            )
        )
    count = written.manifest["evaluation"]["images"]
    table(f"{written.folder}", ("file", "size", f"top-1 on {count:,}", "agrees with fp32", "flips"), rows)
    for entry in written.engines:
        census = entry["census"]
        if census and entry["precision"] == "int8":
            reading = census["convolutions_reading"]
            say(
                f"TensorRT reads int8 in {reading['Int8']} of {census['convolutions']} convolutions of the int8 engine."
            )
    for precision, reason in written.manifest["left_out"].items():
        note(f"No {precision} file: {reason}")
    if written.no_engines:
        note(f"No TensorRT engines: {written.no_engines}")
    say("Next: [bold]toolkit verify[/bold] and [bold]toolkit bench[/bold]; then copy the folder to the device.")
