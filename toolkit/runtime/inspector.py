"""The layers of a plan as full TensorRT's engine inspector lists them, read on the GPU that built it."""

from __future__ import annotations

import json
from typing import Any

from toolkit.runtime.census import Census, census_from_inspector


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
        return _listed(trt, logger, plan, profile, dla_core)
    except Exception as error:  # TensorRT's are RuntimeError, TypeError, MemoryError and its own
        return None, f"the engine inspector gave no answer: {type(error).__name__}: {error}"


def _listed(
    trt: Any, logger: Any, plan: bytes, profile: dict[str, list[list[int]]], dla_core: int | None
) -> tuple[Census | None, str]:
    runtime = trt.Runtime(logger)
    if hasattr(runtime, "engine_host_code_allowed"):
        runtime.engine_host_code_allowed = True  # a plan that was made here a moment ago
    if dla_core is not None:
        runtime.DLA_core = dla_core
    engine = runtime.deserialize_cuda_engine(plan)
    context = None if engine is None else engine.create_execution_context()
    if context is None:
        return None, "TensorRT built the plan but does not load it: see its log"
    for name, (_, best, _) in profile.items():
        context.set_input_shape(name, tuple(best))
    inspector = engine.create_engine_inspector()
    inspector.execution_context = context
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    census = census_from_inspector(json.loads(text))
    return census, "" if census else "the engine inspector lists no layers"
