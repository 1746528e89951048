"""One engine in a process of its own: built, listed layer by layer as TensorRT writes it, or called.

python benchmarks/gpu_engine.py build ONNX PLAN [--batch 1:8:256] [--opt-level 0]     facts as JSON
python benchmarks/gpu_engine.py layers ENGINES MODEL SOURCE OUT                       OUT gets the inspector's text
python benchmarks/gpu_engine.py calls ENGINES MODEL COUNT                             calls of the fp32 engine
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from toolkit.bundle.reading import bundle_from_folder
from toolkit.errors import EngineError, ToolkitError
from toolkit.runtime.trt.layer_report import layer_report_from_text
from toolkit.runtime.trt.module import Log, require_can_run
from toolkit.runtime.trt.preflight import sidecar_of_plan
from toolkit.storage.cache import cache_folder

SOURCES = ("int8-fp16", "int8", "fp16", "fp32")


def plan_of(engines: Path, model: str, source: str) -> Path:
    """The plan that was built from a source, in the bundle or beside it.

    Raises:
        EngineError: there is none.
    """
    for entry in bundle_from_folder(engines / model).engines():
        if entry["precision"] == source:
            return engines / model / str(entry["file"])
    beside = engines / "extra" / f"{model}.{source}.engine"
    if beside.is_file():
        return beside
    raise EngineError(f"no engine of {model} was built from its {source} file", fix="see the log of its build")


def build(options: argparse.Namespace) -> dict[str, Any]:
    """Builds one file with the timing cache; what the sidecar says."""
    from toolkit.engine.build import BuildSettings
    from toolkit.engine.engine_from_onnx import engine_from_onnx

    low, best, high = (int(part) for part in options.batch.split(":"))
    settings = BuildSettings(optimization_level=options.opt_level, timing_cache=cache_folder() / "timing")
    options.plan.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    engine = engine_from_onnx(options.onnx, options.plan, batch=(low, best, high), settings=settings)
    return {"seconds": round(time.perf_counter() - began, 3), "notes": engine.notes, **engine.sidecar}


def layers(options: argparse.Namespace) -> dict[str, Any]:
    """The layers of every engine of a model, as far as they were built; the first that matter most come first.

    Raises:
        EngineError: there is no engine at all.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    for source in SOURCES:
        try:
            found[source] = layers_of(options.engines, options.model, source, options.out)
        except (ToolkitError, RuntimeError, ValueError) as error:
            found[source] = {"error": f"{type(error).__name__}: {error}"}
        print(f"{options.model} {source}: {json.dumps(found[source], default=str)[:300]}", file=sys.stderr, flush=True)
    if all("error" in one for one in found.values()):
        raise EngineError(f"no layers of {options.model} are known", found=json.dumps(found)[:1500])
    return {"model": options.model, "engines": found}


def layers_of(engines: Path, model: str, source: str, out: Path) -> dict[str, Any]:
    """The inspector's text, control characters and all, into a file; the convolutions of it as a value."""
    plan = plan_of(engines, model, source)
    sidecar = sidecar_of_plan(plan)
    trt = require_can_run().module
    log = Log(trt)
    runtime = trt.Runtime(log.logger)
    engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise EngineError("TensorRT does not load the plan", found="; ".join(log.errors()[-3:]))
    context = engine.create_execution_context()
    for name, (_, best, _) in sidecar["profile"].items():
        context.set_input_shape(name, tuple(best))
    inspector = engine.create_engine_inspector()
    inspector.execution_context = context
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    (out / f"{model}.{source}.json").write_text(str(text), errors="replace")
    layer_report, reason = layer_report_from_text(text)
    facts = {"device_memory": getattr(engine, "device_memory_size_v2", None), "layers": engine.num_layers}
    return {"plan_bytes": plan.stat().st_size, **facts,
            "census": layer_report and layer_report.as_dict(), "reason": reason, "log": log.text()[-4000:]}  # fmt: skip


def calls(options: argparse.Namespace) -> dict[str, Any]:
    """Answers noise, with graphs and without."""
    from toolkit.runtime.trt.runner import TrtRunner

    shape = bundle_from_folder(options.engines / options.model).preprocessing.shape
    images = np.random.default_rng(0).integers(0, 256, (8, *shape), np.uint8)
    with TrtRunner(plan_of(options.engines, options.model, "fp32")) as one:
        logits = [one.logits(images[: 1 + i % 2 * 7]) for i in range(options.count)]
        with one.without_graph() as plain:
            equal = all(np.array_equal(plain.logits(images[: len(found)]), found) for found in logits[:4])
        return {"calls": len(logits), "equal": equal, "description": one.description}


def main() -> None:
    """Prints what was found as one line of JSON; an error in words ends with 1."""
    parser = argparse.ArgumentParser(description="One engine.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("build")
    one.add_argument("onnx", type=Path)
    one.add_argument("plan", type=Path)
    one.add_argument("--batch", default="1:8:256")
    one.add_argument("--opt-level", type=int, default=None)
    two, three = verbs.add_parser("layers"), verbs.add_parser("calls")
    for verb in (two, three):
        verb.add_argument("engines", type=Path)
        verb.add_argument("model")
    two.add_argument("out", type=Path)
    three.add_argument("count", type=int)
    options = parser.parse_args()
    try:
        print(json.dumps({"build": build, "layers": layers, "calls": calls}[options.verb](options), default=str))
    except ToolkitError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
