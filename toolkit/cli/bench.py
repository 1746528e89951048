"""`toolkit bench`: how long a call takes on every backend here, and whether that became longer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from toolkit.cli import options

if TYPE_CHECKING:
    from toolkit.benchmarking.result import Benchmark, Comparison

MOST_LAYERS = 12  # of a table; the document has all of them
DROPPED = ("p99.9", "calls", "p99", "p90", "images/s")  # in this order where a terminal is narrow


def command(
    bundle: Path | None = typer.Argument(None, help="A bundle's folder or tar. (default: the newest in bundles/)"),
    backend: str = typer.Option(
        "all", "--backend", help="torch, ort, trt, ort-cuda, ort-trt, several with commas, or all that run here."
    ),
    precision: str = typer.Option(
        "all", "--precision", help="fp32, fp16, int8, int8-fp16, int8-cpu, several with commas, or all."
    ),
    batch: str = typer.Option("1,8,64", "--batch", help="Batch sizes, with commas."),
    seconds: float = typer.Option(0.3, "--seconds", min=0.05, max=600, help="Measuring time a runner and batch size."),
    iterations: int | None = typer.Option(
        None, "--iterations", min=1, max=10**7, help="So many calls a runner and batch size, instead of --seconds."
    ),
    warmup: float | None = typer.Option(
        None, "--warmup", min=0, max=600, help="Seconds of calls before measuring. (default: until they are steady)"
    ),
    callers: int = typer.Option(1, "--callers", min=1, max=64, help="Threads that call at once."),
    ort_threads: int = typer.Option(
        0, "--ort-threads", min=0, max=1024, help="Of an operator in ONNX Runtime on the CPU; 0: every core."
    ),
    streams: int | None = typer.Option(
        None, "--streams", min=1, max=64, help="Calls that TensorRT runs at once. (default: one for each caller)"
    ),
    rate: float | None = typer.Option(
        None, "--rate", min=0.01, max=1e6, help="Calls a second on a schedule; latency counts from when a call was due."
    ),
    graph: str = typer.Option("on", "--graph", help="CUDA graphs of TensorRT: on, off or both."),
    wait: str = typer.Option(
        "auto",
        "--wait",
        help="How to wait for the GPU: spin (keeps a core busy), block (sleeps), auto: CUDA's choice.",
    ),
    energy: bool = typer.Option(False, "--energy", help="Also millijoules a call, where there is a meter; 1 s a row."),
    dump_profile: bool = typer.Option(
        False, "--dump-profile", help="Time each layer too, in a run of its own: TensorRT, and ONNX Runtime on the CPU."
    ),
    save: Path | None = typer.Option(None, "--save", help="Keep this run as a baseline in a JSON file."),
    baseline: Path | None = typer.Option(None, "--baseline", help="Compare with a saved run of this device and model."),
    against: Path | None = typer.Option(
        None,
        "--against",
        help="Another bundle, in the same rounds: sees smaller differences than a baseline.",
    ),
    max_regression: str = typer.Option("3%", "--max-regression", help="How much longer a median may be than before."),
    run_builder: bool = typer.Option(
        False, "--run-builder", help="Run the Python that built the network: only for a bundle that you exported."
    ),
    csv: Path | None = typer.Option(None, "--csv", metavar="FILE.csv", help="A line a runner and batch size."),
    key: Path | None = options.KEY,
    min_version: int | None = options.MIN_VERSION,
) -> dict[str, Any]:
    """Measure whole Python calls, copies included: warmed up, in interleaved rounds, as percentiles with intervals.

    Exits 1 where a backend that was named cannot run, a rate cannot be held, or a runner is slower than --baseline or
    --against by more than --max-regression and noise does not explain it.

    Examples:
      toolkit bench

      toolkit bench bundles/my-net --backend torch,ort --batch 1,64 --seconds 5

      toolkit bench --backend ort --precision int8-cpu --batch 1 --rate 500

      toolkit bench --backend trt --batch 1 --dump-profile

      toolkit bench --save before.json

      toolkit bench --baseline before.json --max-regression 3%

      toolkit bench bundles/new --against bundles/old --max-regression 1%
    """
    from toolkit.benchmarking.bench import bench
    from toolkit.bundle.reading import bundle_from_folder, require_apart
    from toolkit.bundle.requirements import requirement
    from toolkit.cli.console import note, red, say, show_unavailable, steps
    from toolkit.cli.options import numbers_within, part_from_percent
    from toolkit.storage.files import write_bytes, write_json
    from toolkit.storage.replacing import require_replaceable
    from toolkit.timing.latency import rows_as_csv

    batches, allowed = numbers_within(batch, "--batch", low=1, high=4096), part_from_percent(max_regression)
    opened = bundle_from_folder(bundle, wanted=requirement(key, min_version))
    if save is not None:
        require_apart(opened, save, "--save")
        require_replaceable(save, "run that toolkit bench saved", lambda data: b'"toolkit/bench/' in data, "save")
    if csv is not None:
        require_replaceable(csv, "table of toolkit bench", lambda data: data.startswith(b"runner,batch,"), "csv")
    note(f"bundle: {opened.folder}")
    with steps() as step:
        found = bench(
            opened,
            backends=backend,
            precisions=precision,
            batches=batches,
            seconds=seconds,
            iterations=iterations,
            warmup_s=warmup,
            callers=callers,
            ort_threads=ort_threads,
            streams=streams,
            rate_hz=rate,
            graph=graph,
            wait=wait,
            energy=energy,
            dump_profile=dump_profile,
            comparable=save is not None,
            baseline=baseline,
            against=against,
            max_regression=allowed,
            run_builder=run_builder,
            on_progress=lambda done, total: step("measure", done, total),
        )
    _show(found)
    _show_profiles(found)
    show_unavailable(found.unavailable, backend != "all")
    missing = bool(found.unavailable) and backend != "all"
    if missing:
        say(red("A backend that was asked for cannot run here."), " Use --backend all to take those that can.")
    if found.comparison:
        _show_comparison(found.comparison)
    if csv is not None:
        write_bytes(csv, rows_as_csv(found.latency).encode())
        note(f"{csv}: {len(found.latency)} lines")
    document = found.as_dict()
    if save is not None:
        write_json(save, document)
        note(f"saved: {save}")
    return document


def _show(found: Benchmark) -> None:
    from toolkit.cli.console import note, say, significant, table, yellow

    rows = [
        (
            m.runner,
            f"{m.batch}",
            significant(m.p50_ms),
            _plus_minus(m.intervals_ms.p50),
            significant(m.p90_ms),
            *("" if (value := m.percentile_ms(name)) is None else significant(value) for name in ("p99", "p99_9")),
            f"{m.images_per_s:,.0f}",
            f"{m.calls}",
            "" if m.stable else yellow("unsteady"),
        )
        for m in found.latency
    ]
    host = found.host
    columns = ("runner", "batch", "p50", "+-", "p90", "p99", "p99.9", "images/s", "calls", "<")
    table(f"{found.model}: ms a call on {host.cpu or 'this host'}, {host.cores} cores", columns, rows, drop=DROPPED)
    _show_devices(found)
    unsteady = [warned for warned in found.warnings if warned.kind == "unstable"]
    for warned in found.warnings:
        if warned.kind != "unstable":
            say(yellow(warned.about or warned.kind), f": {warned.text}")
    if unsteady:
        note(f"unsteady: the medians of the rounds differ by more than 10 %; load here is {host.load_1min}.")


def _plus_minus(interval: tuple[float, float] | None) -> str:
    """Half of a 95 % interval in percent of its middle."""
    return "" if interval is None else f"{100 * (interval[1] - interval[0]) / (interval[0] + interval[1]):.1f}%"


def _show_devices(found: Benchmark) -> None:
    """Where the time goes on a device, and what a call costs."""
    from toolkit.cli.console import significant, table

    rows = [
        (m.runner, f"{m.batch}", *(significant(value) for value in m.phases.as_dict().values()))
        for m in found.latency
        if m.phases
    ]
    if rows:
        table(
            "where the time goes, ms",
            ("runner", "batch", "Python", "copy in", "GPU", "copy out", "enqueue"),
            rows,
            drop=("enqueue", "Python"),
        )
    spent = [(m.runner, f"{m.batch}", significant(m.energy_mj)) for m in found.latency if m.energy_mj is not None]
    if spent:
        table("energy above idle", ("runner", "batch", "mJ a call"), spent)


def _show_profiles(found: Benchmark) -> None:
    """The layers that take longest, a table a runner and batch size; all of them are in the document."""
    from toolkit.cli.console import note, significant, table

    for profile in found.profiles or ():
        longest = sorted(profile.layers, key=lambda layer: -layer.ms)[:MOST_LAYERS]
        rows = [(layer.name, layer.kind, significant(layer.ms), f"{100 * layer.part:.1f}") for layer in longest]
        more = f", the longest of {len(profile.layers)}" if len(profile.layers) > MOST_LAYERS else ""
        title = f"{profile.runner} at batch {profile.batch}: layers{more}; ms a call, mean of {profile.calls}"
        table(title, ("layer", "kind<", "ms", "%"), rows, drop=("kind",))
    if found.profiles is not None:
        note("each layer is timed by itself: their sum is not a call's time. All of them: --json or -o FILE.json.")
        if not any(profile.runner.startswith("trt") for profile in found.profiles):
            note("none of them is TensorRT's: no engine of this bundle runs here, or it was not asked for.")


def _show_comparison(comparison: Comparison) -> None:
    from toolkit.benchmarking.baseline import MACHINE, SLOWER
    from toolkit.cli.console import Styled, note, red, say, table

    colors = {SLOWER: "red", MACHINE: "red", "undecided": "yellow"}
    rows = [
        (
            c.runner,
            f"{c.batch}",
            f"{c.ratio:.3f}",
            "" if c.low is None or c.high is None else f"{c.low:.3f} to {c.high:.3f}",
            Styled(c.verdict, colors.get(c.verdict, "green")),
        )
        for c in comparison.changes
    ]
    table(f"now over {comparison.reference}", ("runner", "batch", "ratio", "99.8 % interval", "<"), rows)
    if comparison.machine is not None:
        note(f"the machine itself, by a fixed piece of work: {comparison.machine:.3f} of the time it took then")
    if comparison.paired is False:
        note("two runs at two times: what the machine did in between is in the ratios; --against has no such part.")
    if any(c.verdict == MACHINE for c in comparison.changes):
        say(red("The machine is slower than then, which says nothing about the runners."), " Try --against.")
    if any(c.verdict == SLOWER for c in comparison.changes):
        say(red(f"Slower by more than {100 * comparison.max_regression:g} %."))
