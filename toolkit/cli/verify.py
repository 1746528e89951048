"""`toolkit verify`: is every file of a bundle, on every backend here, still the same model?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from toolkit.cli import options


def command(
    bundle: Path | None = typer.Argument(
        None, help="A bundle's folder, tar or name, else a model: is its card true? (default: the newest in bundles/)"
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
    sample: int | None = typer.Option(
        None, "--sample", min=1, help="Judge on so many of them. (default: 1000 of the model's own, all of --data)"
    ),
    gate: float = typer.Option(
        99.0, "--gate", min=0, max=100, help="Least top-1, in percent of the reference's; MLPerf's are 99 and 99.9."
    ),
    strict: bool = typer.Option(
        False, "--strict", help="The whole 95 % interval must reach the gate: too few images to decide exits 1."
    ),
    atol: float | None = typer.Option(
        None, "--atol", min=0, help="Beside the gate: a logit may differ by this, plus --rtol times the reference's."
    ),
    rtol: float | None = typer.Option(None, "--rtol", min=0, help="See --atol; as in numpy.allclose."),
    layers: bool = typer.Option(False, "--layers", help="Compare layer by layer too; name the node where they part."),
    save_worst: Path | None = typer.Option(
        None, "--save-worst", metavar="DIR", help="Write the images that flipped: a contact sheet (PNG) a runner."
    ),
    convert: bool = typer.Option(False, "--convert", help="Resize and convert --data images that do not fit."),
    resize: str | None = options.RESIZE,
    skip_bad: bool = typer.Option(False, "--skip-bad", help="Leave damaged files of a --data folder out, aloud."),
    card: bool = typer.Option(False, "--card", help="BUNDLE is the name of a model: is its card true?"),
    run_builder: bool = typer.Option(
        False, "--run-builder", help="Run the Python that built the network: only for a bundle that you exported."
    ),
    key: Path | None = options.KEY,
    min_version: int | None = options.MIN_VERSION,
) -> dict[str, Any]:
    """Compare every backend and precision with the fp32 model on the same images; exit 1 below the gate.

    A runner passes where it keeps at least --gate percent of the reference's right answers. The 95 % interval of that
    figure says whether so few images can tell: where they cannot, it is said, with how many would, and the measured
    figure decides the exit code; with --strict it is no success. A named fault exits 1 at any gate.

    Examples:
      toolkit verify

      toolkit verify --card resnet32x32-fashion --data fashion-mnist

      toolkit verify bundles/my-net --backend ort --data fashion-mnist --gate 99.9 --strict

      toolkit verify bundles/before bundles/after --save-worst flips/

      toolkit verify bundles/my-net theirs.onnx --layers
    """
    from toolkit.bundle.reading import bundle_from_folder
    from toolkit.bundle.requirements import requirement
    from toolkit.cli.console import note, say, steps
    from toolkit.cli.verify_tables import show, show_card
    from toolkit.verification.card import is_model, verify_card
    from toolkit.verification.contact_sheet import write_contact_sheets
    from toolkit.verification.verify import verify

    judging: Any = {"data": data, "sample": sample, "convert": convert, "resize": resize, "skip_bad": skip_bad}
    if bundle is not None and (card or is_model(bundle)):
        _require_only_torch(str(bundle), backend, precision, other)
        with steps() as step:
            true = verify_card(bundle, **judging, on_step=step)
        show_card(true)
        return true.as_dict()
    opened = bundle_from_folder(bundle, wanted=requirement(key, min_version))
    note(f"bundle: {opened.folder}")
    with steps() as step:
        found = verify(
            opened,
            other,
            backends=backend,
            precisions=precision,
            **judging,
            gate=gate,
            strict=strict,
            atol=atol,
            rtol=rtol,
            layers=layers,
            run_builder=run_builder,
            on_step=step,
        )
    show(found)
    sheets = [] if save_worst is None else write_contact_sheets(save_worst, found)
    for sheet in sheets:
        say(f"{sheet}: the images that flipped, surest first")
    return replace(found, sheets=tuple(sheet.resolve() for sheet in sheets)).as_dict()


def _require_only_torch(model: str, backend: str, precision: str, other: Path | None) -> None:
    """A model is no bundle: it runs on PyTorch in fp32, and is compared with its card alone."""
    from toolkit.errors import ToolkitError

    if other is not None:
        raise ToolkitError(
            f"'{model}' is a model, and only bundles are compared with each other",
            found=other,
            fix=f"toolkit export {model}, then toolkit verify bundles/{model} {other}",
        )
    if backend not in ("all", "torch") or precision not in ("all", "fp32"):
        raise ToolkitError(
            f"'{model}' is a model, not a bundle: it runs on torch in fp32 only",
            found=f"--backend {backend} --precision {precision}",
            fix=f"toolkit export {model} --int8 --fp16, then toolkit verify bundles/{model} --backend {backend}",
        )
