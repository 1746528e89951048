"""`toolkit bench`: how long a call takes on every backend here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer


def command(
    bundle: Path | None = typer.Argument(None, help="A bundle's folder. (default: the newest in bundles/)"),
    backend: str = typer.Option(
        "all", "--backend", help="torch, ort, trt, ort-cuda, ort-trt, several with commas, or all that run here."
    ),
    precision: str = typer.Option(
        "all", "--precision", help="fp32, fp16, int8, int8-fp16, int8-cpu, several with commas, or all."
    ),
    batch: str = typer.Option("1,8,64", "--batch", help="Batch sizes, with commas."),
    seconds: float = typer.Option(0.3, "--seconds", min=0.05, max=600, help="Measuring time a runner and batch size."),
    run_builder: bool = typer.Option(
        False, "--run-builder", help="Run the Python that built the network: only for a bundle that you exported."
    ),
) -> dict[str, Any]:
    """Measure whole Python calls, copies included: warmed up, in interleaved rounds, as percentiles.

    Examples:
      toolkit bench

      toolkit bench bundles/my-net --backend torch,ort --batch 1,64
    """
    from toolkit import __version__
    from toolkit.bundle.reading import bundle_from_folder, require_precisions
    from toolkit.bundle.runners import open_runners, require_backends
    from toolkit.cli.console import note, parse_list, plain, say, steps, table
    from toolkit.latency import bench, host_conditions

    batches = parse_list(batch, "--batch", low=1, high=4096)
    opened_bundle = bundle_from_folder(bundle)
    note(f"bundle: {opened_bundle.folder}")
    backends = require_backends(backend)
    precisions = require_precisions(precision, opened_bundle)
    opened = open_runners(opened_bundle, backends, precisions, run_builder, by_name=precision != "all")
    try:
        images, _ = opened_bundle.golden()
        with steps() as step:
            found = bench(
                opened.runners,
                images.images_nhwc,
                batches,
                seconds=seconds,
                on_progress=lambda done, total: step("measure", done, total),
            )
        descriptions = {name: runner.description for name, runner in opened.runners.items()}
    finally:
        opened.close()
    host = host_conditions()
    rows = [
        (
            m.runner,
            f"{m.batch}",
            f"{m.p50_ms:.3f}",
            f"{m.p90_ms:.3f}",
            f"{m.p99_ms:.3f}",
            f"{m.images_per_s:,.0f}",
            f"{m.calls}",
            "" if m.stable else "[yellow]unsteady[/yellow]",
        )
        for m in found
    ]
    table(
        f"{opened_bundle.model}: ms a call on {host['cpu'] or 'this host'}, {host['cores']} cores",
        ("runner", "batch", "p50", "p90", "p99", "images/s", "calls", "<"),
        rows,
    )
    if any(not m.stable for m in found):
        note(f"unsteady: the medians of the rounds differ by more than 10 %; load here is {host['load_1min']}.")
    for name, reason in opened.unavailable.items():
        say(f"[yellow]not run: {name}[/yellow]: {plain(reason)}")
    missing = bool(opened.unavailable) and backend != "all"
    if missing:
        say("[red]A backend that was asked for cannot run here.[/red] Use --backend all to take those that can.")
    return {
        "ok": not missing,
        "bundle": str(opened_bundle.folder.resolve()),
        "tool": __version__,
        "host": host,
        "runners": descriptions,
        "latency": [m.as_dict() for m in found],
        "unavailable": opened.unavailable,
    }
