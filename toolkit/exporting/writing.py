"""Writing a bundle: export, check, measure, quantize, judge; a folder appears only when all of it held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.bundle.entries import FileEntry
from toolkit.bundle.manifest import FOR_TENSORRT, FORMAT, GOLDEN, VARIANTS, old_bundle
from toolkit.bundle.sealing import manifest_text
from toolkit.calibration.record import RECORD, Record
from toolkit.compare.answers import PROBABILITIES, SIGMOIDS
from toolkit.compare.classes import classes_from_answers, classes_that_vanish
from toolkit.compare.parity import answers_of, logits_in_batches, parity_from_logits
from toolkit.data.model_images import ModelImages
from toolkit.data.subsets import balanced
from toolkit.engine.bundle_engines import engines_of_files, files_of_folder, tensorrt_for_target
from toolkit.engine.resolver import why_not_read
from toolkit.errors import BackendUnavailable, EngineError, ExportError
from toolkit.exporting.artifacts import Graphs, Options, graphs_of_model
from toolkit.exporting.numbers import notes_of_weights
from toolkit.exporting.result import Exported, judged
from toolkit.graph.newer_exporter import EXPORTER
from toolkit.graph.normal.opset import OPSET
from toolkit.quantization.calib_cache import CALIB_CACHE
from toolkit.quantization.charts import png_of_curve
from toolkit.runtime.ort.runner import OrtRunner
from toolkit.runtime.runner_id import RunnerId
from toolkit.storage.files import json_text
from toolkit.storage.folders import folder_replaced
from toolkit.version import __version__
from toolkit.workspace import MANIFEST

if TYPE_CHECKING:
    import onnx

    from toolkit.exporting.user_onnx import OnnxModel
    from toolkit.models.checkpoint import LoadedModel

GOLDEN_IMAGES = 64
CURVE = "accuracy-against-int8.png"
Step = Callable[[str, int, int], None]


def bundle_from_model(
    model: LoadedModel | OnnxModel,
    images: ModelImages,
    target: Path,
    options: Options,
    on_step: Step = lambda what, done, total: None,
) -> Exported:
    """Exports a model in every wanted precision and judges each on the evaluation images.

    Args:
        on_step: called with (what is being done, done, total).

    Raises:
        ExportError: a file would not be the same model; CalibrationError, DataError, ToolkitError likewise. Nothing
            is left in `target` that was not there before. BundleError: another model's bundle lies there.
    """
    old = old_bundle(target, model.card.name)
    with folder_replaced(target, MANIFEST, old.own) as fresh:
        on_step("export to ONNX", 0, 1)
        made = graphs_of_model(model, images, options, on_step)
        graphs, record = made.onnx, made.record
        _write_graphs(fresh, made)
        logits = {"fp32": made.fp32.logits}
        logits |= {p: _logits(fresh / VARIANTS[p].file, p, images, on_step) for p in graphs if p != "fp32"}
        labels, fp32 = images.evaluation.labels, RunnerId("ort", "fp32")
        parity = {
            p: parity_from_logits(fp32, RunnerId("ort", p), logits["fp32"], got, labels) for p, got in logits.items()
        }
        classes = {p: classes_from_answers(answers_of(got), labels, model.card.labels) for p, got in logits.items()}
        vanished = {p: tuple(classes_that_vanish(classes["fp32"], found)) for p, found in classes.items()}
        _write_golden(fresh / GOLDEN, images, logits)
        built = tuple(precision for precision in graphs if precision in FOR_TENSORRT)
        engines, no_engines, notes = _build_engines(fresh, built, options, on_step)
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "tool": __version__,
            "model": {
                "name": model.card.name,
                "arch": model.card.arch,
                "weights_sha256": model.card.weights_sha256,
                "folder_hint": _folder_hint(model),
                **({"decided": model.decided} if model.decided else {}),
            },
            "labels": list(model.card.labels),
            "preprocessing": model.card.preprocessing.as_dict(),
            "output": _output(made, len(model.card.labels)),
            "opset": OPSET,
            "files": files_of_folder(fresh),
            "engines": engines,
            "calibration": None
            if record is None
            else {"key": record.key, **record.belongs_to, "images": len(record.images), "notes": record.notes},
            "kept_in_float": sorted(made.keep_float),
            "left_out": made.left_out,
            **({"budget": made.budget.as_dict()} if made.budget is not None else {}),
            "evaluation": {
                "source": images.evaluation.source,
                "images": len(images.evaluation),
                "sha256": images.evaluation.sha256,
                **({"read": asdict(images.origin)} if images.origin is not None else {}),
            },
            "accuracy": {p: value.as_dict() for p, value in parity.items()},
            "checks": made.facts,
        }
        (fresh / MANIFEST).write_text(manifest_text(manifest))
        replaced = old.said({entry["file"] for entry in engines})
    said = [replaced, f"{made.cut.note}." if made.cut.operators else "", *images.notes, *_doubts_in_words(made)]
    said += notes_of_weights(made.onnx["fp32"])
    said.append(_exporter_in_words(made))
    notes = (*filter(None, said), *notes)
    return Exported(
        ok=True,
        bundle=target.resolve(),
        files={name: FileEntry(**entry) for name, entry in manifest["files"].items()},
        accuracy={precision: judged(value) for precision, value in parity.items()},
        calibration=manifest["calibration"],
        kept_in_float=tuple(sorted(made.keep_float)),
        curve=None if made.budget is None else made.budget.curve,
        left_out=made.left_out,
        engines=tuple(engines),
        no_engines=no_engines or None,
        notes=notes,
        decided=model.decided,
        skipped=tuple(images.skipped),
        manifest=manifest,
        parity=parity,
        graphs=made,
        classes=classes,
        vanished={precision: sentences for precision, sentences in vanished.items() if sentences},
    )


def _doubts_in_words(made: Graphs) -> list[str]:
    """What was exported in spite of, with --force."""
    return [f"In spite of a doubt: {doubt.what}." for doubt in made.fp32.doubts]


def _exporter_in_words(made: Graphs) -> str:
    """Where the usual exporter could not."""
    properties = {entry.key: entry.value for entry in made.onnx["fp32"].metadata_props}
    return f"{properties[EXPORTER]}." if EXPORTER in properties else ""


def _output(made: Graphs, classes: int) -> dict[str, Any]:
    """The manifest's entry: `kind` where the numbers are no logits, `stripped` where a softmax behind them is gone."""
    output: dict[str, Any] = {"name": "logits", "dtype": "float32", "shape": ["batch", classes]}
    if made.fp32.kind in (PROBABILITIES, SIGMOIDS):
        output["kind"] = made.fp32.kind
    return {**output, **({"stripped": made.cut.operators} if made.cut.operators else {})}


def _write_graphs(folder: Path, made: Graphs) -> None:
    for precision, graph in made.onnx.items():
        _label(graph, precision, made.record)
        (folder / VARIANTS[precision].file).write_bytes(graph.SerializeToString())
    if made.record is not None:
        (folder / RECORD).write_text(json_text(made.record.as_dict()))
    if made.calib_cache:
        (folder / CALIB_CACHE).write_text(made.calib_cache)
    if made.budget is not None:
        (folder / CURVE).write_bytes(
            png_of_curve(
                "images that answer as fp32 does, in percent, against convolutions in INT8, in percent",
                [(point.int8_percent, point.parity.percent) for point in made.budget.curve],
            )
        )


def _label(graph: onnx.ModelProto, precision: str, record: Record | None) -> None:
    """Says in the ONNX file itself what it is, so that a file without its bundle is not a riddle."""
    entries = {"toolkit.precision": precision}
    if VARIANTS[precision].is_int8 and record is not None:
        entries["toolkit.calibration_key"] = record.key
    for key, value in entries.items():
        graph.metadata_props.add(key=key, value=value)


def _folder_hint(model: LoadedModel | OnnxModel) -> str | None:
    """Where the weights were, for a model that is found by no name."""
    by_name = model.folder.parent.name == "models" or model.card.arch["family"] in ("python", "onnx")
    return None if by_name else str(model.folder.resolve())


def _logits(path: Path, precision: str, images: ModelImages, on_step: Step) -> Any:
    """Logits of the evaluation images; refuses a file that answers with NaN."""
    slow = not VARIANTS[precision].optimize
    with OrtRunner(path, optimize=not slow) as runner:
        logits = logits_in_batches(
            runner,
            images.evaluation.images_nhwc,
            lambda done, total: on_step(f"evaluate {precision}", done, total),
        )
    bad = int((~np.isfinite(logits)).sum())
    if bad:
        raise ExportError(f"the {precision} model answers with NaN or infinity", found=f"{bad} of {logits.size} logits")
    return logits


def _write_golden(path: Path, images: ModelImages, logits: dict[str, Any]) -> None:
    chosen = balanced(images.evaluation.labels, GOLDEN_IMAGES)
    answers = {f"logits_{precision}": values[chosen] for precision, values in logits.items()}
    part = images.evaluation.take(chosen)
    np.savez_compressed(path, images=part.images_nhwc, labels=part.labels, **answers)


def _build_engines(
    folder: Path, precisions: tuple[str, ...], options: Options, on_step: Step
) -> tuple[list[dict[str, Any]], str, tuple[str, ...]]:
    """Engines of every precision that the TensorRT here takes, or why there are none; and what there is to say."""
    if options.target is None:
        return [], "not asked for", ()
    try:
        tensorrt = tensorrt_for_target(options.target)
    except (BackendUnavailable, EngineError) as error:
        return [], error.in_one_line(), ()
    refused = {precision: why_not_read(tensorrt, precision) for precision in precisions}
    taken = tuple(precision for precision, reason in refused.items() if not reason)
    engines, notes = engines_of_files(folder, taken, options.target, tensorrt, on_step)
    left_out = (f"no engine of {VARIANTS[p].file}: {reason}" for p, reason in refused.items() if reason)
    return engines, "", (*left_out, *notes)
