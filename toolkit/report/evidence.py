"""Everything a report is drawn from: a bundle's own files, and the documents that were measured on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from toolkit.contracts import UInt8
from toolkit.errors import ToolkitError
from toolkit.report.facts import (
    Accuracy,
    Latency,
    Source,
    accuracies_from_document,
    causes_from_document,
    latencies_from_document,
    sources_from_document,
)
from toolkit.runtime.runner_id import FIRST, RunnerId
from toolkit.verification.hypotheses import Cause

Read = TypeVar("Read")
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
        verify, bench, sensitivity: documents; None where there is none.
        pixels_nhwc: the images that verify judged, in its order; None where they are not at hand.
        images_options: the options of toolkit verify that draw those; None where they are not known.
    """

    folder: str
    manifest: dict[str, Any]
    manifest_sha256: str
    files: dict[str, str]
    record: dict[str, Any] | None = None
    sidecars: dict[str, dict[str, Any]] = field(default_factory=dict)
    verify: dict[str, Any] | None = None
    bench: dict[str, Any] | None = None
    sensitivity: dict[str, Any] | None = None
    pixels_nhwc: UInt8 | None = None
    images_options: str | None = None

    def __post_init__(self) -> None:
        for name, document in (("verify", self.verify), ("bench", self.bench)):
            if document is not None:
                _require_of_bundle(name, document, self.manifest_sha256)
        if self.verify is not None and self.verify.get("other") is not None:
            raise ToolkitError(
                "this document of toolkit verify compares two bundles",
                found=self.verify["other"],
                allowed="a document of one bundle",
                fix="toolkit verify BUNDLE > verify.json",
            )

    @property
    def model(self) -> str:
        """Its name."""
        return str(self.manifest["model"]["name"])

    @property
    def labels(self) -> list[str]:
        """Of the classes, in the order of the logits."""
        return [str(label) for label in self.manifest["labels"]]

    @cached_property
    def accuracies(self) -> tuple[Accuracy, ...]:
        """Each runner that verify compared."""
        return _read("verify", lambda: accuracies_from_document(self.verify))

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """The steps that verify took apart."""
        return _read("verify", lambda: sources_from_document(self.verify))

    @cached_property
    def causes(self) -> tuple[Cause, ...]:
        """The faults that verify named."""
        return _read("verify", lambda: causes_from_document(self.verify))

    @cached_property
    def latencies(self) -> tuple[Latency, ...]:
        """Each runner and batch size that bench measured."""
        return _read("bench", lambda: latencies_from_document(self.bench))

    @cached_property
    def accuracy_of(self) -> dict[str, Accuracy]:
        """By runner."""
        return {found.runner: found for found in self.accuracies}

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
        return list(dict.fromkeys([*self.accuracy_of, *(found.runner for found in self.latencies)]))

    @property
    def unavailable(self) -> dict[str, str]:
        """What could not run here, and why."""
        found: dict[str, str] = {}
        for document in (self.verify, self.bench):
            found |= {str(name): str(reason) for name, reason in ((document or {}).get("unavailable") or {}).items()}
        return found

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


def _read(name: str, reading: Callable[[], tuple[Read, ...]]) -> tuple[Read, ...]:
    try:
        return reading()
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ToolkitError(
            f"the document of toolkit {name} lacks an entry or has a wrong one",
            found=f"{type(error).__name__}: {error}",
            fix=f"toolkit {name} > {name}.json, without changing it",
        ) from error


def _require_of_bundle(name: str, document: dict[str, Any], manifest_sha256: str) -> None:
    found = document.get("manifest_sha256")
    if found != manifest_sha256:
        raise ToolkitError(
            f"this document of toolkit {name} was measured on another bundle, or on this one before it changed",
            found=f"manifest sha256 {found}" if found else f"no manifest_sha256, of {document.get('bundle')}",
            allowed=f"manifest sha256 {manifest_sha256}",
            fix=f"toolkit {name} > {name}.json on this bundle, or leave --{name} out: it is measured then",
        )
