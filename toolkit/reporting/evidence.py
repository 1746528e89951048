"""Everything a report is drawn from: a bundle's own files, and the documents that were measured on it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from toolkit.benchmarking.result import Benchmark
from toolkit.calibration.record import Record
from toolkit.compare.parity import Parity
from toolkit.contracts import UInt8
from toolkit.errors import ToolkitError
from toolkit.quantization.sensitivity import Budget, Sensitivities
from toolkit.runtime.runner_id import FIRST, RunnerId
from toolkit.timing.latency import Latency
from toolkit.verification.hypotheses import Cause
from toolkit.verification.result import Pair, Source, Verification

BACKENDS = {
    "torch": "PyTorch",
    "ort": "ONNX Runtime",
    "ort-cuda": "ONNX Runtime on CUDA",
    "ort-trt": "ONNX Runtime with TensorRT",
    "trt": "TensorRT",
}


@dataclass(frozen=True)
class Evidence:
    """What is known about a bundle.

    Attributes:
        folder: where the bundle is, as people type it.
        manifest: `manifest.json`; manifest_sha256: of its bytes.
        files: the ONNX file of each precision.
        record: `record.json`, where the bundle is calibrated.
        sidecars: each engine's JSON, by the engine's file.
        verify, bench, sensitivity: what was measured, now or when a document was saved; None where nothing was.
        pixels_nhwc: the images that verify judged, in its order; None where they are not at hand.
        images_options: the options of toolkit verify that draw those; None where they are not known.
        say: how the page says what the library advises.
    """

    folder: str
    manifest: dict[str, Any]
    manifest_sha256: str
    files: dict[str, str]
    record: Record | None = None
    sidecars: dict[str, dict[str, Any]] = field(default_factory=dict)
    verify: Verification | None = None
    bench: Benchmark | None = None
    sensitivity: Sensitivities | None = None
    pixels_nhwc: UInt8 | None = None
    images_options: str | None = None
    say: Callable[[str], str] = str

    def __post_init__(self) -> None:
        for name, found in (("verify", self.verify), ("bench", self.bench)):
            if found is not None and found.manifest_sha256 != self.manifest_sha256:
                raise _of_another_bundle(name, found.manifest_sha256, self.manifest_sha256)
        if self.verify is not None and self.verify.other is not None:
            raise ToolkitError(
                "what was verified compares two bundles",
                found=self.verify.other,
                allowed="a document of one bundle",
                fix="`toolkit.verify(BUNDLE)`",
            )

    @property
    def model(self) -> str:
        """Its name."""
        return str(self.manifest["model"]["name"])

    @property
    def is_user_model(self) -> bool:
        """Whether it was made of a network of the user's: an ONNX file, or Python that builds one."""
        return bool({"file", "builder"} & (self.manifest["model"].get("arch") or {}).keys())

    @property
    def network(self) -> str:
        """What its layers are measured of: the model in models/, or the bundle's file where there is none."""
        return f"{self.folder}/{self.files['fp32']}" if self.is_user_model else self.model

    @property
    def labels(self) -> list[str]:
        """Of the classes, in the order of the logits."""
        return [str(label) for label in self.manifest["labels"]]

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Each runner that verify compared."""
        return self.verify.parity if self.verify else ()

    @cached_property
    def measured(self) -> dict[str, Parity]:
        """What export measured of each file against fp32, by variant; empty where a manifest does not say."""
        found = {}
        for variant, entry in (self.manifest.get("accuracy") or {}).items():
            with contextlib.suppress(ToolkitError):  # of a later version
                found[variant] = Parity.from_dict(entry, "the entry accuracy of manifest.json")
        return found

    @property
    def judged_at_export(self) -> bool:
        """Whether export's images decided, because few of them are here."""
        return any(pair.verdict.measured_images is not None for pair in self.pairs)

    def parity_of(self, pair: Pair) -> Parity:
        """What decided about a runner: its answers here, or those of its file at export, to more images."""
        one = RunnerId.from_name(pair.runner)
        if not self.judged_at_export or one.side != FIRST or one.backend == "torch":
            return pair.parity
        return self.measured.get(one.variant, pair.parity)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The steps that verify took apart."""
        return self.verify.sources if self.verify else ()

    @property
    def causes(self) -> tuple[Cause, ...]:
        """The faults that verify named."""
        return self.verify.likely_causes if self.verify else ()

    @property
    def latencies(self) -> tuple[Latency, ...]:
        """Each runner and batch size that bench measured."""
        return self.bench.latency if self.bench else ()

    @cached_property
    def pair_of(self) -> dict[str, Pair]:
        """By runner."""
        return {pair.runner: pair for pair in self.pairs}

    @cached_property
    def budget(self) -> Budget | None:
        """What was measured to meet a budget of INT8, where export was given one."""
        found = self.manifest.get("budget")
        return None if found is None else Budget.from_dict(found, "the entry budget of manifest.json")

    @property
    def smallest_batch(self) -> int | None:
        """The batch size at which runners are compared first."""
        return min((latency.batch for latency in self.latencies), default=None)

    @cached_property
    def latency_of(self) -> dict[str, Latency]:
        """By runner, at the smallest batch size."""
        return {found.runner: found for found in self.latencies if found.batch == self.smallest_batch}

    @property
    def runners(self) -> list[str]:
        """Every runner that either document names, in their order."""
        return list(dict.fromkeys([*self.pair_of, *(found.runner for found in self.latencies)]))

    @property
    def unavailable(self) -> dict[str, str]:
        """What could not run here, and why."""
        verified, benched = self.verify, self.bench
        reasons = (verified.unavailable if verified else {}) | (benched.unavailable if benched else {})
        return {name: self.say(reason) for name, reason in reasons.items()}

    def file_of(self, runner: str) -> str | None:
        """The file in the bundle that a runner reads; None for one that reads none of it."""
        one = RunnerId.from_name(runner)
        if one.side != FIRST:  # measured beside this bundle's, with another bundle's file
            return None
        if one.backend == "trt":
            engines = self.manifest.get("engines") or []
            return next((str(e["file"]) for e in engines if e.get("precision") == one.variant), None)
        return self.files.get(one.variant) if one.backend in BACKENDS and one.backend != "torch" else None

    def bytes_of(self, runner: str) -> int | None:
        """The size of that file."""
        entry = self.manifest["files"].get(self.file_of(runner) or "")
        return None if entry is None else int(entry["bytes"])


def backend_of(runner: str) -> str:
    """The backend of a runner as a document names it."""
    return RunnerId.from_name(runner).backend


def _of_another_bundle(name: str, found: str, wanted: str) -> ToolkitError:
    return ToolkitError(
        f"this document of toolkit {name} was measured on another bundle, or on this one before it changed",
        found=f"manifest sha256 {found}",
        allowed=f"manifest sha256 {wanted}",
        fix=f"toolkit {name} > {name}.json on this bundle, or leave --{name} out: it is measured then",
    )
