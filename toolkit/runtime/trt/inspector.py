"""The layers of a plan as full TensorRT's engine inspector lists them, read on the GPU that built it."""

from __future__ import annotations

import json
from typing import Any

from toolkit.runtime.trt.layer_report import CONVOLUTIONS, UNTYPED, Census, census_from_inspector


def census_of_plan(
    trt: Any, logger: Any, plan: bytes, profile: dict[str, list[list[int]]], dla_core: int | None
) -> tuple[Census | None, str]:
    """The census, or None and why there is none. Never fails: the engine is good without its list of layers.

    With an open batch the inspector leaves types out ("N/A due to dynamic shapes") until a context with concrete
    shapes is given to it; the best-served ones are.

    Args:
        profile: {input: [min, opt, max]}.
    """
    if not hasattr(trt, "Runtime") or not hasattr(trt, "EngineInspector"):
        return None, "this TensorRT has no engine inspector"
    try:
        return census_from_text(_inspected(trt, logger, plan, profile, dla_core))
    except _NothingToInspect as error:
        return None, str(error)
    except Exception as error:  # TensorRT's are RuntimeError, TypeError, MemoryError and its own
        return None, f"the engine inspector gave no answer: {type(error).__name__}: {error}"


def census_from_text(text: object) -> tuple[Census | None, str]:
    """The census of what `IEngineInspector.get_engine_information(JSON)` returned, or None and why there is none.

    TensorRT joins the ONNX names of a fused layer with the control character 0x1E and may write it as it is, which
    JSON forbids and Python's reader allows with `strict=False`.
    """
    if not isinstance(text, str) or not text.strip():
        return None, "the engine inspector returned no text"
    try:
        document = json.loads(text, strict=False)
    except ValueError as error:
        return None, f"the engine inspector's text is no JSON: {error}"
    layers = document.get("Layers") if isinstance(document, dict) else None
    if not isinstance(layers, list) or not layers:
        return None, "the engine inspector lists no layers"
    if not all(isinstance(layer, dict) for layer in layers):
        return None, "the engine inspector lists bare names: this plan was not built with detailed profiling"
    census = census_from_inspector(document)
    if census is not None and any(kind in CONVOLUTIONS and UNTYPED in reads for kind, reads, *_ in census.kinds):
        return None, f'the engine inspector names no types: "{UNTYPED}"'
    return census, "" if census else "the engine inspector lists no layers"


class _NothingToInspect(Exception):
    """TensorRT returned nothing where an object was asked for; the text says which."""


def _inspected(trt: Any, logger: Any, plan: bytes, profile: dict[str, list[list[int]]], dla_core: int | None) -> object:
    runtime = trt.Runtime(logger)
    if hasattr(runtime, "engine_host_code_allowed"):
        runtime.engine_host_code_allowed = True  # a plan that was made here a moment ago
    if dla_core is not None:
        runtime.DLA_core = dla_core
    engine = runtime.deserialize_cuda_engine(plan)
    context = None if engine is None else engine.create_execution_context()
    if context is None:
        raise _NothingToInspect("TensorRT built the plan but does not load it: see its log")
    for name, (_, best, _) in profile.items():
        if context.set_input_shape(name, tuple(best)) is False:
            raise _NothingToInspect(f"TensorRT refuses the shape {tuple(best)} of {name}, of its own profile")
    inspector = engine.create_engine_inspector()
    inspector.execution_context = context
    return inspector.get_engine_information(trt.LayerInformationFormat.JSON)
