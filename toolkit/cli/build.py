"""`toolkit build`: TensorRT engines in a bundle, on the machine that will run them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from toolkit.bundle.building import Built
    from toolkit.export.resolver import Resolved


def command(
    bundle: Path | None = typer.Argument(None, help="A bundle's folder. (default: the newest in bundles/)"),
    precision: str = typer.Option(
        "best", "--precision", help="fp32, fp16, int8 or best for this TensorRT; several with commas."
    ),
    target: str = typer.Option("default", "--target", help="What for: a file in export/, such as jetpack61 or rtx."),
    batch: str | None = typer.Option(
        None, "--batch", help="Smallest, best served and largest batch. (default: the target's, 1:8:64)"
    ),
    explain: bool = typer.Option(False, "--explain", help="Say what would be built and why, and build nothing."),
) -> dict[str, Any]:
    """Build engines into BUNDLE/engines/, each with a JSON sidecar; the files that TensorRT reads decide the precision.

    An engine runs on the TensorRT version and the GPU that built it: run this on the device. TensorRT-RTX also builds
    on a machine without a GPU.

    Examples:
      toolkit build

      toolkit build bundles/my-net --target rtx --precision fp16,int8

      toolkit build --explain
    """
    from toolkit.bundle.building import build_engines, resolved_for, tensorrt_for_target
    from toolkit.bundle.reading import bundle_from_folder
    from toolkit.cli.console import note, steps
    from toolkit.export.target import batch_from_text, target_from_name

    opened = bundle_from_folder(bundle, packed=False)
    note(f"bundle: {opened.folder}")
    chosen = target_from_name(target)
    if batch is not None:
        chosen = replace(chosen, batch=batch_from_text(batch))
    wanted = tuple(dict.fromkeys(part.strip() for part in precision.split(",")))
    if explain:
        tensorrt = tensorrt_for_target(chosen)
        resolved = resolved_for(opened, wanted, tensorrt)
        _show_reasons(resolved, (*tensorrt.reasons, f"{tensorrt.name} builds for target {chosen.name}"))
        return {"ok": True, "tensorrt": tensorrt.name, "resolved": [_as_dict(answer) for answer in resolved]}
    with steps() as step:
        built = build_engines(opened, wanted, chosen, step)
    _show(opened.folder, built)
    return {
        "ok": True,
        "bundle": str(opened.folder.resolve()),
        "engines": list(built.engines),
        "resolved": [_as_dict(answer) for answer in built.resolved],
    }


def _as_dict(answer: Resolved) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(answer)


def _show_reasons(resolved: tuple[Resolved, ...], facts: tuple[str, ...]) -> None:
    from toolkit.bundle.reading import ONNX_FILES
    from toolkit.cli.console import note, say

    for fact in facts:
        note(fact)
    for answer in resolved:
        say(f"[bold]{answer.precision}[/bold] from {ONNX_FILES[answer.source]}")
        for reason in answer.reasons:
            note(f"  {reason}")


def _show(folder: Path, built: Built) -> None:
    from toolkit.cli.console import say, table

    rows = []
    for entry in built.engines:
        reading = (entry["census"] or {}).get("convolutions_reading", {})
        size = (folder / entry["file"]).stat().st_size
        of = (entry["census"] or {}).get("convolutions")
        rows.append(
            (entry["file"], f"{size / 1024:,.0f} KiB", f"{entry['build_seconds']:.1f} s",
             "unknown" if of is None else f"{reading['Int8']} of {of}")
        )  # fmt: skip
    columns = ("engine", "size", "build", "convolutions in int8")
    table(f"{folder}, built with {built.tensorrt.name}", columns, rows)
    say("Next: [bold]toolkit inspect[/bold] an engine, and [bold]toolkit verify[/bold] on the device.")
