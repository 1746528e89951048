"""A made-up bundle and what verify and bench say of it, in the very form that those commands give."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.benchmarking.result import Benchmark, Settings
from toolkit.benchmarking.warnings import Warned
from toolkit.calibration.record import Record
from toolkit.compare.classes import classes_from_answers
from toolkit.compare.flips import flips_from_logits
from toolkit.compare.gate import verdict_from_counts
from toolkit.compare.parity import answers_of, parity_from_logits
from toolkit.conditions.device import Device
from toolkit.conditions.host import Disturbances, Host
from toolkit.conditions.machine import Conditions
from toolkit.deployment.runners import Opening
from toolkit.reporting.evidence import Evidence
from toolkit.runtime.trt.layer_report import LayerReport
from toolkit.timing.latency import Intervals, Latency
from toolkit.timing.percentiles import percentile_interval, quantiles_from_sorted
from toolkit.verification.result import JudgingImages, Pair, Source, Verification

SHA = "ab" * 32
FILES = {"fp32": "model.onnx", "int8": "model.int8.onnx", "int8-cpu": "model.int8-cpu.onnx"}
SIZES = {"model.onnx": 1_800_000, "model.int8.onnx": 1_850_000, "model.int8-cpu.onnx": 500_000, "record.json": 15_000}
MEDIANS_MS = {"torch fp32": 2.5, "ort fp32": 1.0, "ort int8": 2.4, "ort int8-cpu": 0.4}
NOISE = {"torch fp32": 0.0, "ort fp32": 1e-6, "ort int8": 0.5, "ort int8-cpu": 0.5}


@dataclass(frozen=True)
class Made:
    """What to make a report of; each part can be changed before `evidence` joins them."""

    model: str = "tiny-net"
    labels: tuple[str, ...] = ("cat", "dog", "ship", "truck")
    images: int = 400
    shape: tuple[int, int, int] = (16, 16, 3)
    seed: int = 0
    medians_ms: dict[str, float] = field(default_factory=lambda: dict(MEDIANS_MS))
    noise: dict[str, float] = field(default_factory=lambda: dict(NOISE))

    def manifest(self) -> dict[str, Any]:
        """`manifest.json`."""
        height, width, channels = self.shape
        kinds = (
            ("correlation", "Int8", "Float", 12),
            ("correlation", "Float", "Float", 3),
            ("kgen", "Float", "Int8", 7),
        )
        engine = {
            "file": "engines/model.int8.engine",
            "precision": "int8",
            "tensorrt": {"kind": "tensorrt-rtx", "version": "1.7.1.116"},
            "census": LayerReport(kinds).as_dict(),
            "build_seconds": 0.25,
        }
        sizes = SIZES | {"engines/model.int8.engine": 2_500_000}
        return {
            "format": 1,
            "model": {"name": self.model, "arch": {"family": "resnet"}},
            "labels": list(self.labels),
            "preprocessing": {"height": height, "width": width, "channels": channels},
            "files": {name: {"sha256": SHA, "bytes": count} for name, count in sizes.items()},
            "engines": [engine],
            "calibration": {"key": SHA, "method": "mse", "images": 512, "graph_sha256": SHA, "images_sha256": SHA},
            "kept_in_float": [],
        }

    def record(self) -> Record:
        """`record.json`."""
        names = [f"stage.{n}/Relu_output" for n in range(9)]
        amax = {name: 2.0 + n for n, name in enumerate(names)}
        largest = {name: 1.5 * value for name, value in amax.items()}
        return Record(amax, largest, {"graph_sha256": SHA, "method": "mse"}, ())

    def verified(self, gate: float = 99.0) -> Verification:
        """What toolkit.verify returns."""
        draws = np.random.default_rng(self.seed)
        labels = draws.integers(0, len(self.labels), self.images)
        exact = draws.normal(0, 1, (self.images, len(self.labels))).astype(np.float32)
        exact[np.arange(self.images), labels] += 2.5
        pairs, classes = [], {}
        for name in self.medians_ms:
            got = exact + draws.normal(0, 1, exact.shape).astype(np.float32) * self.noise.get(name, 0.3)
            parity = parity_from_logits("torch fp32", name, exact, got, labels)
            verdict = verdict_from_counts(parity.both_right, parity.lost, parity.gained, self.images, gate)
            classes[name] = classes_from_answers(answers_of(got), labels, self.labels)
            pairs.append(Pair(parity, flips_from_logits(exact, got, labels), verdict))
        return Verification(
            ok=True,
            bundle=Path("/bundles/tiny-net"),
            other=None,
            model=self.model,
            labels=self.labels,
            manifest_sha256=SHA,
            tool="0.1.0",
            images=JudgingImages("a test set", self.images, SHA),
            gate_percent=gate,
            strict=False,
            reference="torch fp32",
            passed={pair.parity.candidate: pair.verdict.holds(strict=False) for pair in pairs},
            verdicts={pair.parity.candidate: pair.verdict.word for pair in pairs},
            parity=tuple(pairs),
            sources=(Source("quantisation", pairs[-1].parity),),
            likely_causes=(),
            not_checked={},
            layers=(),
            unavailable={"trt": "no NVIDIA driver: libcuda.so.1: cannot open; try: use --backend ort here"},
            classes={"torch fp32": classes_from_answers(answers_of(exact), labels, self.labels), **classes},
        )

    def benched(self) -> Benchmark:
        """What toolkit.bench returns."""
        draws = np.random.default_rng(self.seed)
        rows = [self._row(draws, name, ms, batch) for batch in (1, 8) for name, ms in self.medians_ms.items()]
        host = Host("A CPU", 2, 0.1, None, None, None, None, {"governor": "no cpufreq"})
        calm = Disturbances(1.0, {}, 0.1, 0.0, None)
        return Benchmark(
            ok=True,
            bundle="/bundles/tiny-net",
            model=self.model,
            manifest_sha256=SHA,
            weights_sha256=SHA,
            tool="0.1.0",
            device=Device("x86_64", "A CPU", ""),
            settings=Settings(0.3, 1, 1, None, "on", (1, 8), "auto"),
            runners={name: f"an engine, {name}" for name in self.medians_ms},
            openings={name: Opening(20.5, 12.5, None) for name in self.medians_ms},
            latency=tuple(rows),
            machine=(),
            conditions=Conditions(host, calm, None, None, 210.0, {"gpu": "there is no NVML"}),
            warnings=(Warned("busy-machine", "", "others take 0.3 of 2 cores"),),
            comparison=None,
            unavailable={},
            host=host,
        )

    def _row(self, draws: np.random.Generator, name: str, median_ms: float, batch: int) -> Latency:
        values = median_ms * batch * (0.97 + draws.gamma(1.2, 0.03, 2000))
        ordered = np.sort(values)
        quantiles = quantiles_from_sorted(ordered)
        return Latency(
            runner=name,
            batch=batch,
            threads=1,
            rate_hz=None,
            calls=len(values),
            p50_ms=quantiles[50],
            p90_ms=quantiles[90],
            p95_ms=quantiles[95],
            p99_ms=quantiles[99],
            p99_9_ms=None,
            intervals_ms=Intervals(percentile_interval(values, ordered, 50), None, None, None, None),
            min_ms=quantiles[0],
            mean_ms=float(values.mean()),
            max_ms=quantiles[100],
            images_per_s=1000 * batch / quantiles[50],
            quantiles_ms=tuple(quantiles),
            round_medians_ms=(quantiles[50],),
            stable=True,
            converged=True,
            warmup_calls=6,
            first_ms=3 * median_ms,
            rate_reached_hz=None,
            rate_held=None,
            phases=None,
            energy_mj=None,
            why_null={"p99_9_ms": "2,000 calls; 3,688 independent ones are needed"},
        )

    def pixels(self) -> Any:
        """The judged images, uint8 (N, H, W, C): noise, which no PNG makes smaller."""
        return np.random.default_rng(self.seed).integers(0, 256, (self.images, *self.shape), dtype=np.uint8)

    def evidence(self, **changes: Any) -> Evidence:
        """All of it joined; `changes` replace parts."""
        parts: dict[str, Any] = {
            "folder": f"bundles/{self.model}",
            "manifest": self.manifest(),
            "manifest_sha256": SHA,
            "files": FILES,
            "record": self.record(),
            "verify": self.verified(),
            "bench": self.benched(),
            "pixels_nhwc": self.pixels(),
            "images_options": f"--sample {self.images}",
        }
        return Evidence(**(parts | changes))
