"""`toolkit export`: a model becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from toolkit.cli import options

if TYPE_CHECKING:
    from toolkit.exporting.result import Exported
    from toolkit.quantization.sensitivity import Budget

FEW_IN_INT8 = 0.5  # of all multiplications
USERS = "For package.module:build and FILE.onnx"


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
    percentile: float | None = typer.Option(
        None, "--percentile", min=50, max=100, help="For --method percentile. (default: 99.99)"
    ),
    record: Path | None = typer.Option(None, "--record", help="Ranges measured before: a record.json. (with --int8)"),
    max_drop: float | None = typer.Option(
        None, "--max-drop", min=0, max=100, help="Points of agreement with fp32 that INT8 may lose; layers stay float."
    ),
    force: bool = typer.Option(False, "--force", help="Go on although images or answers look wrong."),
    expect_top1: float | None = typer.Option(
        None,
        "--expect-top1",
        min=0,
        max=100,
        help="Percent of the images that fp32 must have right.",
    ),
    target: str = typer.Option(
        "default", "--target", help="What engines and calib.cache are for: a file in export/, as jetpack61 or rtx."
    ),
    batch: str | None = typer.Option(
        None, "--batch", help="Engines' smallest, best served and largest batch. (default: the target's, 1:8:64)"
    ),
    engines: bool = typer.Option(
        True, "--engines/--no-engines", help="Build with the TensorRT that is installed here."
    ),
    convert: bool = options.CONVERT,
    resize: str | None = options.RESIZE,
    skip_bad: bool = options.SKIP_BAD,
    checkpoint: Path | None = typer.Option(
        None, "--checkpoint", help="Weights: .safetensors, or a .pth of tensors.", rich_help_panel=USERS
    ),
    weights: str | None = typer.Option(
        None,
        "--weights",
        help="Which of a checkpoint's: state_dict, model_ema. (default: a moving average, if any)",
        rich_help_panel=USERS,
    ),
    name: str | None = typer.Option(
        None, "--name", help="What to call it. (default: from package.module:build or FILE)", rich_help_panel=USERS
    ),
    labels: str | None = typer.Option(
        None, "--labels", help="One a logit, with commas. (default: the images' classes)", rich_help_panel=USERS
    ),
    mean: str | None = typer.Option(
        None,
        "--mean",
        help="Of the pixels that it sees, a channel each or one for all. (default: measured; not of FILE.onnx)",
        rich_help_panel=USERS,
    ),
    std: str | None = typer.Option(None, "--std", help="Likewise.", rich_help_panel=USERS),
    size: str | None = typer.Option(
        None, "--size", help="Height x width x channels: 32x32x3. (default: the images')", rich_help_panel=USERS
    ),
    kwargs: str | None = typer.Option(
        None, "--kwargs", help="JSON for the call: '{\"num_classes\": 10}'.", rich_help_panel=USERS
    ),
    pixels: str | None = options.PIXELS,
    layout: str | None = options.LAYOUT,
    output_name: str | None = options.OUTPUT_NAME,
    bgr: bool = typer.Option(
        False, "--bgr", help="The network wants blue first; --mean and --std are in that order.", rich_help_panel=USERS
    ),
) -> dict[str, Any]:
    """Turn a model into a bundle: ONNX in every precision, ranges, golden vectors, a manifest; each file judged.

    Examples:
      toolkit export --int8 --fp16

      toolkit export my-net --int8 --data photos/ -o /tmp/my-bundle

      toolkit export mynet:build --checkpoint weights.pth --data photos/ --int8

      toolkit export theirs.onnx --data photos/ --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --int8
    """
    from toolkit.cli.calibrate import show_choice
    from toolkit.cli.console import note, steps
    from toolkit.exporting.export import export
    from toolkit.exporting.options import ExportOptions

    user = options.user_model(
        mean=mean, std=std, size=size, labels=labels, kwargs=kwargs, checkpoint=checkpoint, weights=weights,
        pixels=pixels, layout=layout, output_name=output_name, name=name, bgr=bgr,
    )  # fmt: skip
    wanted = ExportOptions(
        data=data, images=images, method=method, percentile=percentile, record=record, max_drop=max_drop,
        expect_top1=expect_top1, force=force, convert=convert, resize=resize, skip_bad=skip_bad, int8=int8, fp16=fp16,
        target=target, batch=options.batch_from_text(batch), engines=engines,
    )  # fmt: skip
    with steps() as step:
        made = export(model, output, wanted, user=user, on_step=step)
    if made.graphs.choice is not None:
        show_choice(made.graphs.choice)
    if made.graphs.budget is not None:
        _show_budget(made.graphs.budget)
    if made.graphs.record is not None and made.graphs.record.from_qat:
        note("INT8 with the scales that toolkit train --qat learned; --method auto measures others.")
    _show_decided(made)
    _show(made)
    return made.as_dict()


def _show_decided(made: Exported) -> None:
    from toolkit.cli.console import note, say, yellow

    decided, skipped = made.decided, made.skipped
    if decided.get("normalisation", "given") != "given":
        values = made.manifest["preprocessing"]
        numbers = ", ".join(f"{m:.4f}/{s:.4f}" for m, s in zip(values["mean"], values["std"], strict=True))
        say(
            yellow(f"mean/std {numbers}"),
            f" {decided['normalisation']}. If it was trained with others, give those: --mean and --std.",
        )
    for what in ("labels", "weights", "repairs"):
        if what in decided:
            note(f"{what}: {decided[what]}")
    if skipped:
        say(yellow(f"{len(skipped)} damaged files left out"), f": {'; '.join(skipped[:3])}"
            + (f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""))  # fmt: skip


def _show_budget(budget: Budget) -> None:
    from toolkit.cli.console import say, table

    rows = [
        (f"{point.kept_in_float}", f"{point.int8_percent:.0f} %", f"{point.parity.percent:.2f} %",
         f"{100 * point.parity.relative_l2:.2f} %")
        for point in budget.curve
    ]  # fmt: skip
    columns = ("kept in float", "INT8 convolutions", "agrees with fp32", "rel. L2")
    table(f"Agreement on {budget.curve[0].parity.images} held-out calibration images", columns, rows)
    kept = ", ".join(layer.node for layer in budget.layers if layer.node in budget.keep_float)
    say(f"Kept in floating point: {kept}." if kept else "All convolutions in INT8 meet --max-drop.")


def _show(made: Exported) -> None:
    from toolkit.bundle.manifest import VARIANTS
    from toolkit.cli.class_tables import show_classes, show_warnings
    from toolkit.cli.console import bold, note, say, table, yellow

    count = made.manifest["evaluation"]["images"]
    show_warnings((made.classes or {}).get("fp32"), made.vanished)
    accuracy = {VARIANTS[precision].file: value for precision, value in made.parity.items()}
    rows = []
    for name, entry in made.manifest["files"].items():
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
    columns = ("file", "size", f"top-1 on {count:,}", "agrees with fp32", "flips")
    table(f"{made.bundle}", columns, rows, drop=("agrees with fp32",))
    classes = made.classes or {}
    show_classes("fp32", classes.get("fp32"), {name: one for name, one in classes.items() if name != "fp32"})
    for entry in made.engines:
        layers = entry["census"]
        if layers and entry["precision"] == "int8":
            reading = layers["convolutions_reading"]
            say(
                f"TensorRT reads int8 in {reading['Int8']} of {layers['convolutions']} convolutions of the int8 engine."
            )
    share = made.graphs.share
    if share is not None:
        say(f"{share}, {100 * share.multiplications:.0f} % of their multiplications.")
        if share.multiplications < FEW_IN_INT8:
            say(yellow("Most of this network stays in floating point: expect little of INT8."))
    for precision, reason in made.manifest["left_out"].items():
        note(f"No {precision} file: {reason}")
    for sentence in made.notes:
        note(sentence)
    if made.no_engines:
        note(f"No TensorRT engines: {made.no_engines}")
    say("Next: ", bold("toolkit verify"), " and ", bold("toolkit bench"), "; then copy the folder to the device.")
