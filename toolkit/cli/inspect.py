"""`toolkit inspect`: what an engine is made of, and whether it can run here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from toolkit.runtime.trt.layer_report import LayerReport

SHOWN_FUSIONS = 12  # a ResNet-56 has 59; --all shows them


def command(
    engine: Path = typer.Argument(..., help="A plan with its sidecar, as in bundles/NAME/engines/model.int8.engine."),
    all_layers: bool = typer.Option(False, "--all", help="List every fused layer, not the first dozen."),
) -> dict[str, Any]:
    """Say which convolutions really run in INT8, what was fused, what only reformats, and whether it can run here.

    The layers are those that TensorRT named when it built the engine: no TensorRT is needed to read them.

    Examples:
      toolkit inspect bundles/resnet32x32-fashion/engines/model.int8.engine
    """
    from toolkit.cli.console import note, say, yellow
    from toolkit.deployment.inspection import inspection_of_engine

    found = inspection_of_engine(engine)
    _show_maker(found.sidecar)
    if found.layer_report is None:
        say(yellow("layers unknown"), f": {found.sidecar.get('census_reason')!s}")
    else:
        _show_layer_report(engine, found.layer_report, None if all_layers else SHOWN_FUSIONS)
    for warning in found.warnings:
        say(yellow(warning))
    note(f"it cannot run here: {found.obstacle}" if found.obstacle else "it can run here")
    return found.as_dict()


def _show_maker(sidecar: dict[str, Any]) -> None:
    """What built it, from what, where, how; and the draws, where there were several."""
    from toolkit.cli.console import note, table

    built, maker = sidecar["tensorrt"], sidecar["builder"]
    where = maker.get("device") or f"a {maker.get('machine')} machine without a GPU"
    note(f"{built['kind']} {built['version']} built it from {sidecar['onnx']['file']} on {where}")
    dla = sidecar.get("dla")
    if dla:
        note(
            f"DLA core {dla['core']} takes {dla['layers'] - len(dla['layers_on_gpu'])} of {dla['layers']} layers; "
            f"the GPU keeps {', '.join(dla['layers_on_gpu']) or 'none'}"
        )
    trials = sidecar.get("trials")
    if trials:
        rows = [
            (f"{index + 1}{' (kept)' if index == sidecar['trials_kept'] else ''}", f"{trial['build_seconds']:.1f} s",
             _number(trial["p50_ms"], ".3f"), _number(trial["relative_l2"], ".1e"), trial["reason"] or "passes")
            for index, trial in enumerate(trials)
        ]  # fmt: skip
        table("builds", ("build", "took", f"median ms at batch {trials[0]['batch']}", "relative L2", "verdict<"), rows)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _nodes_in_words(nodes: Sequence[str]) -> str:
    """Names of nodes; Q/DQ pairs, which any layer in INT8 has a dozen of, are counted."""
    named = [node for node in nodes if not node.endswith(("/Quantize", "/Dequantize"))]
    pairs = len(nodes) - len(named)
    return ", ".join([*named, *([f"{pairs} of Q/DQ"] if pairs else [])])


def _show_layer_report(engine: Path, layer_report: LayerReport, most: int | None) -> None:
    from toolkit.cli.console import note, say, table

    rows = [(kind, reads or "-", writes or "-", f"{count}") for kind, reads, writes, count in layer_report.kinds]
    table(f"{engine}: {layer_report.layers} layers", ("layer", "reads<", "writes<", "count"), rows)
    say(
        f"{layer_report.convolutions('Int8')} of {layer_report.convolutions()} convolutions read int8; "
        f"{layer_report.conversions} layers only convert, {layer_report.reformats} of them by name reformats"
        + (f"; {layer_report.on_dla} are on the DLA." if layer_report.on_dla else ".")
    )
    if layer_report.fused:
        shown = layer_report.fused[:most]
        fused = [(_nodes_in_words(nodes), name) for name, nodes in shown]
        table("fused", ("ONNX nodes", "layer<"), fused, drop=("layer",))
        if len(shown) < len(layer_report.fused):
            note(f"and {len(layer_report.fused) - len(shown)} more: --all")
