"""Against a saved run of the same device and model: which runner became slower, and whether that is noise."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.documents import Above, Each, Maybe, Some, require_shape
from toolkit.errors import ToolkitError
from toolkit.files import read_json
from toolkit.timing.latency import Latency
from toolkit.timing.rank_tests import Ratio, ratio_from_pairs, ratio_from_runs

SCHEMA = "toolkit/bench/1"
SLOWER, MACHINE, UNDECIDED, WITHIN = "slower", "the machine is slower", "undecided", "within the limit"
Key = tuple[str, int]  # runner, batch
MEDIANS = Some(Above(0))
SHAPE = {
    "device": Each(str),
    "model": str,
    "weights_sha256": str,
    "settings": {"threads": int, "rate_hz": Maybe(Above(0))},
    "latency": [{"runner": str, "batch": int, "round_medians_ms": MEDIANS}],
    "machine": [{"batch": int, "round_medians_ms": MEDIANS}],
}


@dataclass(frozen=True)
class Change:
    """One runner at one batch size, now over then.

    Attributes:
        ratio: of the medians; 1.02 is 2 % slower.
        low: the true ratio of the two measurements is below it once in 1,000; None where there are too few rounds.
        verdict: "slower", "the machine is slower", "undecided" or "within the limit".
    """

    runner: str
    batch: int
    ratio: float
    low: float | None
    high: float | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """All that both runs measured.

    Attributes:
        reference: the file or folder compared with.
        paired: measured in the same rounds, so that drift of the machine is not in the ratios.
        machine: ratio of a fixed piece of work between the two runs; None when paired.
    """

    reference: str
    paired: bool
    max_regression: float
    machine: float | None
    changes: tuple[Change, ...]

    @property
    def ok(self) -> bool:
        """Nothing is slower beyond the limit, and the machine did not hide it."""
        return all(change.verdict in (UNDECIDED, WITHIN) for change in self.changes)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"ok": self.ok, **asdict(self)}


@dataclass(frozen=True)
class Baseline:
    """A saved run.

    Attributes:
        medians_ms: medians of its rounds by runner and batch.
        machine_ms: those of the fixed piece of work by batch.
    """

    path: Path
    device: dict[str, str]
    model: str
    weights_sha256: str
    load: tuple[int, float | None]
    medians_ms: dict[Key, list[float]]
    machine_ms: dict[int, list[float]]


def baseline_from_file(path: Path) -> Baseline:
    """A run that `toolkit bench --save` kept.

    Raises:
        ToolkitError: it cannot be read, or is no such file.
    """
    document, fix = read_json(path, ToolkitError), f"measure a new baseline into {path}"
    what = f"{path} is no saved benchmark: it"
    if document.get("schema") != SCHEMA:
        raise ToolkitError(
            f"{path} is no saved benchmark", found=f"schema {document.get('schema')!r}", allowed=SCHEMA, fix=fix
        )
    require_shape(document, SHAPE, what, ToolkitError, fix)
    return Baseline(
        path,
        document["device"],
        document["model"],
        document["weights_sha256"],
        (document["settings"]["threads"], document["settings"]["rate_hz"]),
        {(row["runner"], row["batch"]): row["round_medians_ms"] for row in document["latency"]},
        {row["batch"]: row["round_medians_ms"] for row in document["machine"]},
    )


def require_comparable(
    baseline: Baseline, device: dict[str, str], model: str, weights_sha256: str, load: tuple[int, float | None]
) -> None:
    """Before anything is measured.

    Raises:
        ToolkitError: the baseline is of another device, model or load; says which and what it is.
    """
    again = f"measure a new baseline into {baseline.path} on this device and with these options"
    for key in sorted(device.keys() | baseline.device.keys()):
        if device.get(key) != baseline.device.get(key):
            raise ToolkitError(
                f"{baseline.path} was measured on another device",
                found=f"{key} {baseline.device.get(key) or 'none'!r}, this one has {device.get(key) or 'none'!r}",
                allowed="a baseline of this device",
                fix=again,
            )
    if weights_sha256 != baseline.weights_sha256:
        raise ToolkitError(
            f"{baseline.path} was measured with another model",
            found=f"{baseline.model}, weights {baseline.weights_sha256[:16]}...",
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


def _load_in_words(load: tuple[int, float | None]) -> str:
    return f"{load[0]} threads, " + ("back to back" if load[1] is None else f"{load[1]:g} calls a second")


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
    drift = {
        row.batch: ratio_from_runs(baseline.machine_ms[row.batch], row.round_medians_ms).ratio
        for row in machine
        if row.batch in baseline.machine_ms
    }
    changes = []
    for row in latency:
        found = ratio_from_runs(baseline.medians_ms[row.runner, row.batch], row.round_medians_ms)
        verdict = verdict_of(found, max_regression, drift.get(row.batch, 1.0))
        changes.append(Change(row.runner, row.batch, found.ratio, found.low, found.high, verdict))
    slowest = max(drift.values(), default=None)
    return Comparison(str(baseline.path), False, max_regression, slowest, tuple(changes))


def compare_in_rounds(reference: str, pairs: list[tuple[Latency, Latency]], max_regression: float) -> Comparison:
    """(reference, candidate) of one run, measured one after the other in every round: drift is in neither."""
    changes = []
    for before, after in pairs:
        found = ratio_from_pairs(before.round_medians_ms, after.round_medians_ms)
        verdict = verdict_of(found, max_regression)
        changes.append(Change(after.runner, after.batch, found.ratio, found.low, found.high, verdict))
    return Comparison(reference, True, max_regression, None, tuple(changes))


def verdict_of(found: Ratio, max_regression: float, machine: float = 1.0) -> str:
    """What a ratio says about a limit: "slower" only where noise is excluded.

    Args:
        machine: by how much the machine itself became slower; what that explains is not called the runner's.
    """
    limit = 1 + max_regression
    if found.low is not None and found.low > limit:
        return SLOWER if found.low / max(1.0, machine) > limit else MACHINE
    return UNDECIDED if found.low is None or found.ratio > limit else WITHIN
