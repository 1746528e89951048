"""Against a saved run of the same device and model: which runner became slower, and whether that is noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from toolkit.benchmarking.result import Benchmark, Change, Comparison, Verdict
from toolkit.conditions.device import Device
from toolkit.errors import ToolkitError
from toolkit.storage.files import read_json
from toolkit.timing.latency import Latency
from toolkit.timing.rank_tests import Ratio, ratio_from_pairs, ratio_from_runs

SLOWER: Final = "slower"
MACHINE: Final = "the machine is slower"
UNDECIDED: Final = "undecided"
WITHIN: Final = "within the limit"
Key = tuple[str, int]  # runner, batch
AskedLoad = tuple[int, float | None, int]


@dataclass(frozen=True)
class Baseline:
    """A saved run, and where it lies."""

    path: Path
    run: Benchmark

    @property
    def load(self) -> AskedLoad:
        """Callers, calls a second on a schedule, and threads of ONNX Runtime."""
        asked = self.run.settings
        return asked.threads, asked.rate_hz, asked.ort_threads or 0

    @cached_property
    def medians_ms(self) -> dict[Key, tuple[float, ...]]:
        """Medians of its rounds by runner and batch."""
        return {(row.runner, row.batch): row.round_medians_ms for row in self.run.latency}


def baseline_from_file(path: Path) -> Baseline:
    """A run that `toolkit bench --save` kept.

    Raises:
        ToolkitError: it cannot be read, or is no such file.
    """
    document, fix = read_json(path, ToolkitError), f"measure a new baseline into {path}"
    return Baseline(path, Benchmark.from_dict(document, str(path), fix=fix))


def require_comparable(baseline: Baseline, device: Device, model: str, weights_sha256: str, load: AskedLoad) -> None:
    """Before anything is measured.

    Raises:
        ToolkitError: the baseline is of another device, model or load; says which and what it is.
    """
    again = f"measure a new baseline into {baseline.path} on this device and with these options"
    for name in ("machine", "cpu", "gpu"):
        then, now = getattr(baseline.run.device, name), getattr(device, name)
        if then != now:
            raise ToolkitError(
                f"{baseline.path} was measured on another device",
                found=f"{name} {then or 'none'!r}, this one has {now or 'none'!r}",
                allowed="a baseline of this device",
                fix=again,
            )
    if weights_sha256 != baseline.run.weights_sha256:
        raise ToolkitError(
            f"{baseline.path} was measured with another model",
            found=f"{baseline.run.model}, weights {baseline.run.weights_sha256[:16]}...",
            allowed=f"{model}, weights {weights_sha256[:16]}...",
            fix=again,
        )
    if load != baseline.load:
        raise ToolkitError(
            f"{baseline.path} was measured under another load",
            found=_load_in_words(baseline.load),
            allowed=_load_in_words(load),
            fix=again,
        )


def _load_in_words(load: AskedLoad) -> str:
    callers, rate_hz, ort_threads = load
    words = f"{callers} callers, " + ("back to back" if rate_hz is None else f"{rate_hz:g} calls a second")
    return words + (f", {ort_threads} threads of ONNX Runtime" if ort_threads else "")


def require_same_runners(baseline: Baseline, runners: list[str], batches: tuple[int, ...]) -> None:
    """Before anything is measured.

    Raises:
        ToolkitError: a runner or batch size is in one of the two runs only.
    """
    here = {(runner, batch) for runner in runners for batch in batches}
    gone, new = sorted(baseline.medians_ms.keys() - here), sorted(here - baseline.medians_ms.keys())
    if gone or new:
        parts = [f"only {where}: {_names(keys)}" for where, keys in (("there", gone), ("here", new)) if keys]
        raise ToolkitError(
            f"{baseline.path} holds another set of runners",
            found="; ".join(parts),
            allowed="the same runners and batch sizes in both",
            fix="choose them with `backends=`, `precisions=` and `batches=`, or save a new baseline",
        )


def _names(keys: list[Key]) -> str:
    return ", ".join(f"{runner} at batch {batch}" for runner, batch in keys)


def compare_with_baseline(
    baseline: Baseline, latency: list[Latency], machine: list[Latency], max_regression: float
) -> Comparison:
    """Two runs at two times. What changed on the machine in between is in the ratios; `machine` shows some of it.

    Args:
        machine: the fixed piece of work, measured in the same rounds as `latency`.
        max_regression: 0.03 allows 3 %.
    """
    then = {row.batch: row.round_medians_ms for row in baseline.run.machine}
    drift = {
        row.batch: ratio_from_runs(then[row.batch], row.round_medians_ms).ratio for row in machine if row.batch in then
    }
    changes = []
    for row in latency:
        found = ratio_from_runs(baseline.medians_ms[row.runner, row.batch], row.round_medians_ms)
        verdict = verdict_of(found, max_regression, drift.get(row.batch, 1.0))
        changes.append(Change(row.runner, row.batch, found.ratio, found.low, found.high, verdict))
    slowest = max(drift.values(), default=None)
    return _comparison(str(baseline.path), False, max_regression, slowest, changes)


def compare_in_rounds(reference: str, pairs: list[tuple[Latency, Latency]], max_regression: float) -> Comparison:
    """(reference, candidate) of one run, measured one after the other in every round: drift is in neither."""
    changes = []
    for before, after in pairs:
        found = ratio_from_pairs(before.round_medians_ms, after.round_medians_ms)
        verdict = verdict_of(found, max_regression)
        changes.append(Change(after.runner, after.batch, found.ratio, found.low, found.high, verdict))
    return _comparison(reference, True, max_regression, None, changes)


def _comparison(
    reference: str, paired: bool, max_regression: float, machine: float | None, changes: list[Change]
) -> Comparison:
    ok = all(change.verdict in (UNDECIDED, WITHIN) for change in changes)
    return Comparison(ok, reference, paired, max_regression, machine, tuple(changes))


def verdict_of(found: Ratio, max_regression: float, machine: float = 1.0) -> Verdict:
    """What a ratio says about a limit: "slower" only where noise is excluded.

    Args:
        machine: by how much the machine itself became slower; what that explains is not called the runner's.
    """
    limit = 1 + max_regression
    if found.low is not None and found.low > limit:
        return SLOWER if found.low / max(1.0, machine) > limit else MACHINE
    return UNDECIDED if found.low is None or found.ratio > limit else WITHIN
