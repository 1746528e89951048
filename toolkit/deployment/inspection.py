"""What an engine is made of, and whether it can run here: read off its sidecar, without running anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from toolkit.bundle.manifest import variant_of_file
from toolkit.errors import BackendUnavailable
from toolkit.runtime.driver import probe_driver
from toolkit.runtime.trt.layer_report import LayerReport, layer_report_from_dict, warnings_of_layer_report
from toolkit.runtime.trt.module import find_tensorrt
from toolkit.runtime.trt.preflight import obstacle_to_running, sidecar_of_plan
from toolkit.storage.documents import Document
from toolkit.storage.hints import Apart, Count


@dataclass(frozen=True)
class Inspection(Document):
    """What toolkit inspect prints.

    Attributes:
        engine: the plan.
        sidecar: what lies beside it.
        conversions: layers that only convert; null where the layers are not known.
        reformats: of those, the ones that are called so.
        warnings: what makes INT8 not pay, in sentences.
        runs_here: on this machine, with the TensorRT that is here.
        obstacle: why not; null where it does.
        layer_report: the layers, counted; in memory only.
    """

    SCHEMA = "toolkit/inspect/1"
    ok: Literal[True]
    engine: Path
    sidecar: dict[str, Any]
    conversions: Count | None
    reformats: Count | None
    warnings: tuple[str, ...]
    runs_here: bool
    obstacle: str | None
    layer_report: Apart[LayerReport | None] = None


def inspection_of_engine(plan: Path) -> Inspection:
    """Reads an engine's sidecar, and asks whether this machine could run it.

    Raises:
        EngineError: there is no plan or no sidecar, or they do not belong together.
    """
    sidecar = sidecar_of_plan(plan)
    found = layer_report_from_dict(sidecar.get("census"))
    obstacle = _obstacle(sidecar)
    return Inspection(
        ok=True,
        engine=plan.resolve(),
        sidecar=sidecar,
        conversions=None if found is None else found.conversions,
        reformats=None if found is None else found.reformats,
        warnings=() if found is None else warnings_of_layer_report(found, _is_int8(sidecar)),
        runs_here=not obstacle,
        obstacle=obstacle or None,
        layer_report=found,
    )


def _obstacle(sidecar: dict[str, Any]) -> str:
    try:
        driver = probe_driver()
        return obstacle_to_running(sidecar, find_tensorrt(driver=driver), driver)
    except BackendUnavailable as error:
        return error.what


def _is_int8(sidecar: dict[str, Any]) -> bool:
    """By its file, or by the flag of a build that took its ranges from calib.cache."""
    variant = variant_of_file(sidecar["onnx"]["file"])
    return (variant is not None and variant.is_int8) or "INT8" in sidecar["flags"]
