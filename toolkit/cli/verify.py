"""`toolkit verify`: is every file of a bundle, on every backend here, still the same model?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from toolkit.cli import options


def command(
    bundle: Path | None = typer.Argument(
        None, help="A bundle's folder or tar, or a model: is its card true? (default: the newest in bundles/)"
    ),
    other: Path | None = typer.Argument(
        None, help="A second bundle, or an ONNX file: held against the first, runner by runner."
    ),
    backend: str = typer.Option(
        "all", "--backend", help="torch, ort, trt, ort-cuda, ort-trt, several with commas, or all that run here."
    ),
    precision: str = typer.Option(
        "all", "--precision", help="fp32, fp16, int8, int8-fp16, int8-cpu, several with commas, or all."
    ),
    data: str | None = typer.Option(
        None, "--data", help="Evaluate on the test part of fashion-mnist, cifar10, a folder or a .npz."
    ),
    images: int | None = typer.Option(
        None, "--images", min=1, help="Evaluation images. (default: 1000 of the model's own, all of --data)"
    ),
    gate: float = typer.Option(
        99.0, "--gate", min=0, max=100, help="Least top-1, in percent of the reference's; MLPerf's are 99 and 99.9."
    ),
    strict: bool = typer.Option(
        False, "--strict", help="The whole 95 % interval must reach the gate: too few images to decide exits 1."
    ),
    layers: bool = typer.Option(False, "--layers", help="Compare layer by layer too; name the node where they part."),
    save_worst: Path | None = typer.Option(
        None, "--save-worst", metavar="DIR", help="Write the images that flipped as one PNG sheet a runner."
    ),
    convert: bool = typer.Option(False, "--convert", help="Resize and convert --data images that do not fit."),
    resize: str | None = options.RESIZE,
    skip_bad: bool = typer.Option(False, "--skip-bad", help="Leave damaged files of a --data folder out, aloud."),
    run_builder: bool = typer.Option(
        False, "--run-builder", help="Run the Python that built the network: only for a bundle that you exported."
    ),
) -> dict[str, Any]:
    """Compare every backend and precision with the fp32 model on the same images; exit 1 below the gate.

    A runner passes where it keeps at least --gate percent of the reference's right answers. The 95 % interval of that
    figure says whether so few images can tell: where they cannot, it is said, with how many would, and the measured
    figure decides the exit code; with --strict it is no success. A named fault exits 1 at any gate.

    Examples:
      toolkit verify

      toolkit verify resnet32x32-fashion --data fashion-mnist

      toolkit verify bundles/my-net --backend ort --data fashion-mnist --gate 99.9 --strict

      toolkit verify bundles/before bundles/after --save-worst flips/

      toolkit verify bundles/my-net theirs.onnx --layers
    """
    from toolkit.bundle.reading import bundle_from_folder
    from toolkit.cli.console import note, say, steps
    from toolkit.cli.verify_model import is_model, require_only_torch, verify_model
    from toolkit.cli.verify_tables import show
    from toolkit.verification.contact_sheet import write_contact_sheets
    from toolkit.verification.verify import verify

    if bundle is not None and is_model(bundle):
        require_only_torch(str(bundle), backend, precision, other)
        return verify_model(str(bundle), data, images, convert, skip_bad)
    opened = bundle_from_folder(bundle)
    note(f"bundle: {opened.folder}")
    with steps() as step:
        found = verify(
            opened,
            other,
            backends=backend,
            precisions=precision,
            data=data,
            images=images,
            gate=gate,
            strict=strict,
            layers=layers,
            convert=convert or resize is not None,
            resize=resize,
            skip_bad=skip_bad,
            run_builder=run_builder,
            on_step=step,
        )
    show(found)
    sheets = [] if save_worst is None else write_contact_sheets(save_worst, found)
    for sheet in sheets:
        say(f"{sheet}: the images that flipped, surest first")
    return replace(found, sheets=tuple(sheet.resolve() for sheet in sheets)).as_dict()
