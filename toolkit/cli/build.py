"""`toolkit build`: TensorRT engines in a bundle, on the machine that will run them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from toolkit.cli import options

if TYPE_CHECKING:
    from toolkit.engine.bundle_engines import Built
    from toolkit.engine.planning import Plan
    from toolkit.engine.resolver import Resolved


def command(
    bundle: Path | None = typer.Argument(None, help="A bundle's folder. (default: the newest in bundles/)"),
    precision: str = typer.Option(
        "best", "--precision", help="fp32, fp16, int8 or best for this TensorRT; several with commas."
    ),
    target: str = typer.Option("default", "--target", help="What for: a file in export/, such as jetpack61 or rtx."),
    batch: str | None = typer.Option(
        None, "--batch", help="Smallest, best served and largest batch. (default: the target's, 1:8:64)"
    ),
    dla: int | None = typer.Option(
        None,
        "--dla",
        min=0,
        max=7,
        help="Put layers on this core of a Jetson's DLA; the GPU takes the rest, and which is said.",
    ),
    workspace_mib: int | None = typer.Option(
        None,
        "--workspace-mib",
        min=0,
        max=1_048_576,
        help="Scratch memory that a layer may use. (default: the target's)",
    ),
    opt_level: int | None = typer.Option(
        None, "--opt-level", min=0, max=5, help="0 builds fastest, 5 tries most kernels. (default: TensorRT's, 3)"
    ),
    compatible: str | None = typer.Option(
        None, "--compatible", help="version: the plan also loads in later TensorRTs. hardware: also on other GPUs."
    ),
    check: bool = typer.Option(
        False, "--check", help="Run each engine on the golden images; one that answers otherwise is not kept."
    ),
    repeat: int = typer.Option(
        1, "--repeat", min=1, max=50, help="With --check: build so often and keep the fastest that passes."
    ),
    explain: bool = typer.Option(False, "--explain", help="Say what would be built and why, and build nothing."),
    key: Path | None = options.KEY,
    min_version: int | None = options.MIN_VERSION,
) -> dict[str, Any]:
    """Build engines into BUNDLE/engines/, each with a JSON sidecar; the files that TensorRT reads decide the precision.

    An engine runs on the TensorRT version and the GPU that built it: run this on the device. TensorRT-RTX also builds
    on a machine without a GPU. TensorRT's whole log lies beside each engine.

    Examples:
      toolkit build

      toolkit build bundles/my-net --target rtx --precision fp16,int8

      toolkit build --target jetpack61 --dla 0 --precision int8 --batch 4:4:4

      toolkit build --precision int8 --repeat 5 --check

      toolkit build --explain
    """
    from toolkit.bundle.reading import bundle_from_folder, names_of
    from toolkit.bundle.requirements import requirement
    from toolkit.cli.console import note, steps
    from toolkit.cli.options import batch_from_text
    from toolkit.engine.bundle_engines import build
    from toolkit.engine.planning import BuildOptions, plan_of_build
    from toolkit.target import target_from_name

    wanted = BuildOptions(
        batch=batch_from_text(batch), dla_core=dla, workspace_mib=workspace_mib, optimization_level=opt_level,
        compatible=compatible, check=check, repeats=repeat,
    )  # fmt: skip
    opened = bundle_from_folder(bundle, packed=False, wanted=requirement(key, min_version))
    note(f"bundle: {opened.folder}")
    if explain:
        chosen, notes = wanted.applied_to(target_from_name(target))
        return _explained(plan_of_build(opened, names_of(precision), chosen), chosen.name, notes)
    with steps() as step:
        built = build(opened, precision, target, wanted, on_step=step)
    _show(opened.folder, built)
    return built.as_dict()


def _explained(plan: Plan, target: str, notes: tuple[str, ...]) -> dict[str, Any]:
    """Shows what would be built and why, and what stands in the way of it here."""
    from toolkit.cli.console import note

    reasons = plan.described.reasons if plan.described else ()
    _show_reasons(plan.resolved, (*reasons, f"{plan.tensorrt} builds for target {target}"))
    for sentence in notes:
        note(sentence)
    if plan.obstacle:
        note(f"not on this machine: {plan.obstacle}")
    return plan.as_dict()


def _show_reasons(resolved: tuple[Resolved, ...], facts: tuple[str, ...]) -> None:
    from toolkit.bundle.manifest import VARIANTS
    from toolkit.cli.console import bold, note, say

    for fact in facts:
        note(fact)
    for answer in resolved:
        say(bold(answer.precision), f" from {VARIANTS[answer.source].file}")
        for reason in answer.reasons:
            note(f"  {reason}")


def _show(folder: Path, built: Built) -> None:
    from toolkit.cli.console import bold, note, say, table

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
    maker = built.tensorrt.name if built.tensorrt else "TensorRT"
    table(f"{folder}, built with {maker}", columns, rows)
    for sentence in built.notes:
        note(sentence)
    note(f"TensorRT's words: {folder / 'engines'}/*.log")
    say("Next: ", bold("toolkit inspect"), " an engine, and ", bold("toolkit verify"), " on the device.")
