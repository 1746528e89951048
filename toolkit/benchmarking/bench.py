"""`toolkit.bench`: how long a bundle's runners take here, on which machine in which state, and against what."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from toolkit.benchmarking.baseline import (
    Baseline,
    baseline_from_file,
    compare_in_rounds,
    compare_with_baseline,
    require_comparable,
    require_same_runners,
)
from toolkit.benchmarking.layer_profiles import layer_profiles
from toolkit.benchmarking.lineup import GRAPHS, Lineup
from toolkit.benchmarking.result import Benchmark, Comparison, Graph, Settings, Wait
from toolkit.benchmarking.warnings import Warned, warnings_of_gpu, warnings_of_host, warnings_of_rows
from toolkit.bundle.reading import ALL, Bundle, names_of, opened_bundle, require_precisions
from toolkit.conditions.device import device_fingerprint
from toolkit.conditions.machine import Conditions, MachineState
from toolkit.contracts import UInt8
from toolkit.deployment.runners import require_backends
from toolkit.errors import ToolkitError
from toolkit.runtime.cuda import wait_for_gpu_by
from toolkit.runtime.driver import probe_driver
from toolkit.runtime.runner import Runner
from toolkit.runtime.runner_id import RunnerId
from toolkit.timing.latency import Latency, Load, Timed, phases_of, times_phases
from toolkit.timing.latency import bench as measure
from toolkit.timing.reference_work import NAME, reference_work
from toolkit.version import __version__

BATCHES = (1, 8, 64)
MAX_REGRESSION = 0.03
MOST_THREADS, MOST_BATCH, MOST_ORT_THREADS = 64, 4096, 1024  # as on the command line


def bench(
    bundle: str | os.PathLike[str] | Bundle | None = None,
    *,
    backends: str | Sequence[str] = "all",
    precisions: str | Sequence[str] = "all",
    batches: Sequence[int] = BATCHES,
    seconds: float = 0.3,
    iterations: int | None = None,
    warmup_s: float | None = None,
    callers: int = 1,
    ort_threads: int = 0,
    streams: int | None = None,
    rate_hz: float | None = None,
    graph: str = "on",
    wait: str = "auto",
    energy: bool = False,
    dump_profile: bool = False,
    comparable: bool = False,
    baseline: str | os.PathLike[str] | None = None,
    against: str | os.PathLike[str] | Bundle | None = None,
    max_regression: float = MAX_REGRESSION,
    run_builder: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Benchmark:
    """Measures whole calls, host memory to host memory, of every runner that a bundle has here.

    Args:
        bundle: the folder or tar, or an opened bundle; the newest of the workspace where there is none.
        backends: "all", or names, with commas or as a sequence; precisions likewise.
        batches: images in a call.
        seconds: most measuring time of a runner at a batch size; less where the median is known to 1 % before.
        iterations: so many calls of a runner at a batch size, instead of `seconds`.
        warmup_s: seconds of calls before each measurement; None: until they take no less than before.
        callers: threads that call at once, each as soon as it is answered.
        ort_threads: of one operator in ONNX Runtime on the CPU; 0: every core, as in `toolkit.load`.
        streams: calls that an engine runs at once on a GPU; None: one for each caller. Runners on the host have none.
        rate_hz: calls a second on a schedule; a latency then counts from when its call was due. None: back to back.
        graph: "on", "off" or "both", for runners that replay a CUDA graph.
        wait: how threads wait for the GPU, in this whole process: "spin", "block" or "auto", CUDA's choice.
        energy: also measure millijoules a call where the device has a meter; about a second a row.
        dump_profile: also time each layer, in calls made for that alone, where the engine does: TensorRT and ONNX
            Runtime on the CPU.
        comparable: measure what a later `baseline` needs; a baseline or `against` implies it.
        baseline: a document that an earlier run saved, of the same device and model.
        against: another bundle, measured in the same rounds, for each runner that both have.
        max_regression: 0.03 lets a median be 3 % longer.
        run_builder: import the Python that built a user's network.

    Raises:
        ToolkitError: an unknown name; a baseline of another device, model, load or set of runners.
        BackendUnavailable: nothing can run here.
    """
    opened, load, sizes = opened_bundle(bundle), Load(callers, rate_hz), tuple(batches)
    _require_sane(load, sizes, seconds, iterations, warmup_s, ort_threads, graph, streams, max_regression)
    before = _checked_baseline(baseline, against, opened, load, ort_threads)
    rival = None if against is None else opened_bundle(against, wanted=opened.wanted.of_any_version())
    wait_for_gpu_by(wait)
    state = MachineState()
    lineup = Lineup(state.device_mib, ort_threads)
    try:
        if energy:
            state.measure_idle()
        names, chosen = require_backends(backends), require_precisions(precisions, opened)
        by_name = names_of(precisions) != ALL
        lineup.open(opened, names, chosen, run_builder, by_name, graph)
        if before:
            require_same_runners(before, list(map(str, lineup.runners)), sizes)
        if rival is not None:
            lineup.open_rivals(rival, opened, names, by_name, graph)
        lineup.allow_streams(streams or callers)
        descriptions = {str(name): runner.description for name, runner in lineup.runners.items()}
        compared = comparable or before is not None or against is not None
        images = opened.golden()[0].images_nhwc
        looks = _and_look(on_progress, state)
        named = {str(name): name for name in lineup.runners}
        fixed: dict[str, Timed] = {NAME: reference_work} if compared and against is None else {}
        measured: dict[str, Timed] = {name: lineup.runners[one] for name, one in named.items()}
        found = measure(
            measured | fixed,
            images,
            sizes,
            seconds=seconds,
            iterations=iterations,
            warmup_s=warmup_s,
            load=load,
            paired=compared,
            on_progress=looks,
        )
        conditions = state.conditions()
        machine = [row for row in found if row.runner in fixed]
        rows = [
            _with_device(row, named[row.runner], lineup.runners[named[row.runner]], images, state, energy)
            for row in found
            if row.runner not in fixed
        ]
        profiles, untimed = (
            layer_profiles(opened, lineup.runners, rows, images, seconds=seconds, ort_threads=ort_threads)
            if dump_profile
            else (None, [])
        )
    finally:
        state.close()
        lineup.close()
    comparison = _comparison(before, lineup, rows, machine, max_regression)
    missing = bool(lineup.unavailable) and names_of(backends) != ALL
    return Benchmark(
        bundle=str(opened.folder.resolve()),
        model=opened.model,
        manifest_sha256=opened.manifest_sha256,
        weights_sha256=_weights(opened),
        tool=__version__,
        device=device_fingerprint(probe_driver()),
        settings=Settings(
            seconds,
            callers,
            streams or callers,
            rate_hz,
            cast(Graph, graph),
            sizes,
            cast(Wait, wait),
            ",".join(names_of(backends)),
            ",".join(names_of(precisions)),
            ort_threads or None,
            iterations,
            warmup_s,
        ),
        runners=descriptions,
        openings={str(name): opening for name, opening in lineup.openings.items()},
        latency=tuple(rows),
        machine=tuple(machine),
        conditions=conditions,
        warnings=(*_warnings(rows, conditions, state, lineup, graph), *untimed),
        comparison=comparison,
        unavailable={str(name): reason for name, reason in lineup.unavailable.items()},
        host=conditions.host,
        profiles=profiles,
        ok=not missing and (comparison is None or comparison.ok) and not any(row.rate_held is False for row in rows),
    )


def _require_sane(
    load: Load,
    batches: tuple[int, ...],
    seconds: float,
    iterations: int | None,
    warmup_s: float | None,
    ort_threads: int,
    graph: str,
    streams: int | None,
    max_regression: float,
) -> None:
    """What the command line refuses in its own words, for callers in Python."""
    for what, value, right in (
        ("batches", batches, bool(batches) and all(batch in range(1, MOST_BATCH + 1) for batch in batches)),
        ("seconds", seconds, 0 < seconds < float("inf")),
        ("iterations", iterations, iterations is None or iterations >= load.threads),
        ("warmup_s", warmup_s, warmup_s is None or 0 <= warmup_s < float("inf")),
        ("ort_threads", ort_threads, ort_threads in range(MOST_ORT_THREADS + 1)),
        ("callers", load.threads, load.threads in range(1, MOST_THREADS + 1)),
        ("streams", streams, streams is None or streams in range(1, MOST_THREADS + 1)),
        ("rate_hz", load.rate_hz, load.rate_hz is None or 0 < load.rate_hz <= 1e9),
    ):
        if not right:
            raise ToolkitError(
                f"{what} cannot be measured with",
                found=value,
                allowed=f"numbers above 0; {MOST_THREADS} callers, an iteration for each; batches up to {MOST_BATCH}",
            )
    if not 0 <= max_regression <= 10:  # NaN would let everything pass
        raise ToolkitError("no median can be held to max_regression", found=max_regression, allowed="0 to 10, as 0.03")
    if graph not in GRAPHS:
        raise ToolkitError("unknown choice of CUDA graphs", found=graph, allowed=", ".join(GRAPHS))


def _warnings(
    rows: list[Latency], conditions: Conditions, state: MachineState, lineup: Lineup, graph: str
) -> tuple[Warned, ...]:
    found = warnings_of_rows(rows) + warnings_of_host(conditions.host, conditions.during)
    if conditions.jetson or any(name.on_device for name in lineup.runners):
        found += warnings_of_gpu(state.states, os.getpid())
    if graph != "on" and not lineup.has_graphs:
        found.append(Warned("no-graph", "", f"no runner here replays a CUDA graph: graph={graph} changes nothing"))
    return tuple(found)


def _weights(bundle: Bundle) -> str:
    return str(bundle.manifest["model"].get("weights_sha256", ""))


def _checked_baseline(
    baseline: str | os.PathLike[str] | None, against: object, bundle: Bundle, load: Load, ort_threads: int
) -> Baseline | None:
    if baseline is None:
        return None
    if against is not None:
        raise ToolkitError("a run is compared with one thing", found="a baseline and another bundle", allowed="one")
    found = baseline_from_file(Path(baseline))
    device = device_fingerprint(probe_driver())
    require_comparable(found, device, bundle.model, _weights(bundle), (load.threads, load.rate_hz, ort_threads))
    return found


def _and_look(on_progress: Callable[[int, int], None], state: MachineState) -> Callable[[int, int], None]:
    def both(done: int, total: int) -> None:
        state.look()
        on_progress(done, total)

    return both


def _with_device(
    row: Latency, name: RunnerId, runner: Runner, images: UInt8, state: MachineState, energy: bool
) -> Latency:
    """A row with the parts of its time on a device, and its energy, or the reasons why it has none."""
    pixels = np.ascontiguousarray(np.resize(images, (row.batch, *images.shape[1:])))
    timed, why = times_phases(runner), dict(row.why_null)
    phases = None
    if timed is None:
        why["phases"] = "it runs on the host, or does not time its parts"
    else:
        try:
            phases = phases_of(timed, pixels, row.p50_ms)
        except ToolkitError as error:  # a batch that the engine takes in several calls, say
            why["phases"] = error.what
    spent, reason = None, "not asked for (energy)"
    if energy:
        spent, reason = state.energy_mj(lambda: runner.logits(pixels), name.on_device)
    if spent is None:
        why["energy_mj"] = reason
    return replace(row, phases=phases, energy_mj=spent, why_null=why)


def _comparison(
    before: Baseline | None, lineup: Lineup, rows: list[Latency], machine: list[Latency], max_regression: float
) -> Comparison | None:
    if before:
        return compare_with_baseline(before, rows, machine, max_regression)
    if not lineup.rivals:
        return None
    found = {(row.runner, row.batch): row for row in rows}
    rivals = {str(name): str(rival) for name, rival in lineup.rivals.items()}
    pairs = [(found[rivals[name], batch], row) for (name, batch), row in found.items() if name in rivals]
    return compare_in_rounds(lineup.rival_folder, pairs, max_regression)
