"""`toolkit verify`: is every file of a bundle, on every backend here, still the same model?"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from toolkit.bundle.reading import Bundle
    from toolkit.contracts import LabelledImages
    from toolkit.parity import Parity


def command(
    bundle: Path | None = typer.Argument(
        None, help="A bundle's folder, or a model: is its card true? (default: the newest in bundles/)"
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
    gate: float = typer.Option(99.0, "--gate", min=0, max=100, help="Least top-1, in percent of the reference's."),
    convert: bool = typer.Option(False, "--convert", help="Resize and convert --data images that do not fit."),
    skip_bad: bool = typer.Option(False, "--skip-bad", help="Leave damaged files of a --data folder out, aloud."),
    run_builder: bool = typer.Option(
        False, "--run-builder", help="Run the Python that built the network: only for a bundle that you exported."
    ),
) -> dict[str, Any]:
    """Compare every backend and precision with the fp32 model on the same images; exit 1 below the gate.

    Examples:
      toolkit verify

      toolkit verify resnet32x32-fashion --data fashion-mnist

      toolkit verify bundles/my-net --backend ort --data fashion-mnist --gate 99.9
    """
    from toolkit.bundle.evaluation import evaluation_images
    from toolkit.bundle.reading import bundle_from_folder, require_precisions
    from toolkit.bundle.runners import open_runners, require_backends
    from toolkit.cli.console import note, steps
    from toolkit.cli.verify_model import verify_model
    from toolkit.parity import logits_in_batches, parity_from_logits

    if bundle is not None and _is_model(bundle):
        _require_only_torch(str(bundle), backend, precision)
        return verify_model(str(bundle), data, images, convert, skip_bad)
    opened_bundle = bundle_from_folder(bundle)
    note(f"bundle: {opened_bundle.folder}")
    backends = require_backends(backend)
    precisions = require_precisions(precision, opened_bundle)
    opened = open_runners(opened_bundle, backends, precisions, run_builder, by_name=precision != "all")
    try:
        judged = evaluation_images(opened_bundle, data, images, convert, skip_bad)
        answers = {}
        with steps() as step:
            for name, runner in opened.runners.items():
                answers[name] = logits_in_batches(runner, judged.images_nhwc, partial(step, f"run {name}"))
            reference = next((name for name in answers if name.endswith("fp32")), None)
            expected = answers[reference] if reference else _reference(opened_bundle, judged)
    finally:
        opened.close()
    label = reference or "ort fp32"
    found = [parity_from_logits(label, name, expected, got, judged.labels) for name, got in answers.items()]
    return _verdict(opened_bundle, judged, found, opened.unavailable, gate, asked=backend != "all")


def _require_only_torch(model: str, backend: str, precision: str) -> None:
    from toolkit.errors import ToolkitError

    if backend not in ("all", "torch") or precision not in ("all", "fp32"):
        raise ToolkitError(
            f"'{model}' is a model, not a bundle: it runs on torch in fp32 only",
            found=f"--backend {backend} --precision {precision}",
            fix=f"toolkit export {model} --int8 --fp16, then toolkit verify bundles/{model} --backend {backend}",
        )


def _is_model(path: Path) -> bool:
    """A model folder, or the name of one that is no folder here."""
    from toolkit.card import CARD
    from toolkit.workspace import find_in_room

    if path.is_dir():
        return (path / CARD).is_file()
    return len(path.parts) == 1 and find_in_room("models", path.name) is not None


def _reference(bundle: Bundle, images: LabelledImages) -> Any:
    """The fp32 answers where no fp32 runner was asked for."""
    from toolkit.parity import logits_in_batches
    from toolkit.runtime.ort import OrtRunner

    with OrtRunner(bundle.onnx_file("fp32")) as runner:
        return logits_in_batches(runner, images.images_nhwc)


def _verdict(
    bundle: Bundle, images: LabelledImages, found: list[Parity], unavailable: dict[str, str], gate: float, asked: bool
) -> dict[str, Any]:
    from toolkit.cli.console import plain, say, table

    passed = {p.candidate: p.retention_percent >= gate and p.nonfinite == 0 for p in found}
    rows = [
        (
            p.candidate,
            f"{p.candidate_score.top1_percent:.2f} %",
            f"{p.candidate_score.low_percent:.2f} - {p.candidate_score.high_percent:.2f}",
            f"{p.agreement_percent:.2f} %",
            f"{p.flips} (-{p.lost} +{p.gained})",
            f"{p.mcnemar_p:.2g}",
            f"{p.relative_l2:.1e}",
            "[green]pass[/green]" if passed[p.candidate] else "[red]FAIL[/red]",
        )
        for p in found
    ]
    columns = ("runner", "top-1", "95 %", "agrees", "flips", "p", "rel. L2", f"gate {gate:g} %<")
    table(f"{bundle.model} on {len(images):,} images of {images.source}, against {found[0].reference}", columns, rows)
    for name, reason in unavailable.items():
        say(f"[yellow]not run: {name}[/yellow]: {plain(reason)}")
    missing = bool(unavailable) and asked
    ok = all(passed.values()) and not missing
    if missing:
        say("[red]A backend that was asked for cannot run here.[/red] Use --backend all to take those that can.")
    elif ok:
        say("[green]Every runner is still the same model.[/green] Next: [bold]toolkit bench[/bold]")
    else:
        say(f"[red]Below the gate: {', '.join(name for name, good in passed.items() if not good)}[/red]")
    return {
        "ok": ok,
        "bundle": str(bundle.folder.resolve()),
        "images": {"source": images.source, "count": len(images), "sha256": images.sha256},
        "gate_percent": gate,
        "passed": passed,
        "parity": [p.as_dict() for p in found],
        "unavailable": unavailable,
    }
