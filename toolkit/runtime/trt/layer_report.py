"""What an engine is made of, read off RTX's log or the engine inspector: what reads INT8, what only converts."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


def layer_report_of_plan(
    trt: Any, logger: Any, plan: bytes, profile: dict[str, list[list[int]]], dla_core: int | None
) -> tuple[LayerReport | None, str]:
    """The layers, or None and why there is none. Never fails: the engine is good without its list of layers.

    With an open batch the inspector leaves types out ("N/A due to dynamic shapes") until a context with concrete
    shapes is given to it; the best-served ones are.

    Args:
        profile: {input: [min, opt, max]}.
    """
    if not hasattr(trt, "Runtime") or not hasattr(trt, "EngineInspector"):
        return None, "this TensorRT has no engine inspector"
    try:
        return layer_report_from_text(_inspected(trt, logger, plan, profile, dla_core))
    except _NothingToInspect as error:
        return None, str(error)
    except Exception as error:  # TensorRT's are RuntimeError, TypeError, MemoryError and its own
        return None, f"the engine inspector gave no answer: {type(error).__name__}: {error}"


def layer_report_from_text(text: object) -> tuple[LayerReport | None, str]:
    """The layers of what `IEngineInspector.get_engine_information(JSON)` returned, or None and why there is none.

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
    layers = layer_report_from_inspector(document)
    if layers is not None and any(kind in CONVOLUTIONS and UNTYPED in reads for kind, reads, *_ in layers.kinds):
        return None, f'the engine inspector names no types: "{UNTYPED}"'
    return layers, "" if layers else "the engine inspector lists no layers"


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


CONVOLUTIONS = ("correlation", "convolution")  # what the build log calls a convolution; Myelin says correlation
UNTYPED = "N/A due to dynamic shapes"  # what the engine inspector says of a tensor whose shape is still open
LAYER_IN_LOG = re.compile(
    r"Name: (.*?), LayerType: (\w+), Inputs: \[(.*?)\], Constants: \[.*?\], Outputs: \[(.*?)\], Tactic(.*)"
)


@dataclass(frozen=True)
class LayerReport:
    """What an engine is made of.

    Attributes:
        kinds: (layer kind, types read, types written, how many), the most frequent first; types as TensorRT names
            them, several joined by "+".
        fused: (layer, the ONNX nodes that it computes) of every layer that computes more than one, in the engine's
            order; empty where the build kept no node names.
    """

    kinds: tuple[tuple[str, str, str, int], ...]
    fused: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return sum(count for *_, count in self.kinds)

    def convolutions(self, reads: str | None = None) -> int:
        """How many convolutions there are, or how many whose image input is of type `reads` ("Int8", "Half")."""
        return sum(
            count for kind, read, _, count in self.kinds if kind in CONVOLUTIONS and reads in (None, read.split("+")[0])
        )

    @property
    def reformats(self) -> int:
        """Layers that only move data into another layout or type, by their own name."""
        return sum(count for kind, *_, count in self.kinds if "reformat" in kind.lower())

    @property
    def on_dla(self) -> int:
        """Layers that a DLA computes; each may hold many of the network's."""
        return sum(count for kind, *_, count in self.kinds if kind == "DLA")

    @property
    def conversions(self) -> int:
        """Layers that only change a type or a layout: one tensor in, the same in another type out, or a reformat."""
        return sum(
            count
            for kind, reads, writes, count in self.kinds
            if "reformat" in kind.lower()
            or (kind not in CONVOLUTIONS and reads and writes and "+" not in reads + writes and reads != writes)
        )

    def as_dict(self) -> dict[str, Any]:
        """For sidecars and reports."""
        reading = {name: self.convolutions(name) for name in ("Int8", "Half", "Float")}
        kinds = [dict(zip(("kind", "reads", "writes", "count"), entry, strict=True)) for entry in self.kinds]
        return {
            "layers": self.layers,
            "convolutions": self.convolutions(),
            "convolutions_reading": reading,
            "conversions": self.conversions,
            "reformats": self.reformats,
            "kinds": kinds,
            "fused": [{"layer": layer, "nodes": list(nodes)} for layer, nodes in self.fused],
        }


def layer_report_from_log(lines: Iterable[str]) -> tuple[LayerReport | None, str]:
    """The layers that a build with ProfilingVerbosity.DETAILED listed, or None and why there are none.

    TensorRT-RTX lists them in this form (seen on 1.7.1); full TensorRT has them in its engine inspector.
    """
    listing = next((m for m in lines if m.startswith("Layers:")), None)
    if listing is None:
        return None, "the build log lists no layers"
    found = []
    # Not splitlines(): it also splits at the control character 0x1E, which stands inside a line.
    for line in listing.split("I/O Tensors:")[0].split("\n"):
        if match := LAYER_IN_LOG.match(line):
            reads, writes = (tuple(re.findall(r"Datatype: (\w+)", match[i])) for i in (3, 4))
            found.append(Layer(match[1], match[2], reads, writes, _nodes(match[5])))
        elif line.startswith("Name:"):  # a count without this one would be wrong
            return None, f"the build log lists a layer in a form that is not known: {line[:120]}"
    return _layer_report(found), "" if found else "the build log lists no layers"


def layer_report_from_inspector(document: dict[str, Any]) -> LayerReport | None:
    """The layers of `EngineInspector.get_engine_information(JSON)`; None where it lists none.

    Three forms are read, told apart by their fields: 8.6 and 10 put a tensor's type into "Format/Datatype", as words
    ("Thirty-two wide channel vectorized row major Int8 format"); 11 has "Datatype" by itself; an engine that was not
    built with ProfilingVerbosity.DETAILED lists bare names, which say nothing. NVIDIA's guide describes the first
    ("Engine Inspector") and the change ("TensorRT 10.x to 11.x, IEngineInspector").
    """
    found = []
    for layer in document.get("Layers") or ():
        if not isinstance(layer, dict):
            return None
        kind = str(layer.get("LayerType", ""))
        if layer.get("ParameterType") == "Convolution" or "convolution" in kind.lower():
            kind = "convolution"
        reads, writes = (tuple(map(_type_of_tensor, layer.get(end) or ())) for end in ("Inputs", "Outputs"))
        nodes = layer.get("Metadata") or ""
        found.append(Layer(str(layer.get("Name", "")), kind, reads, writes, _nodes(str(nodes))))
    return _layer_report(found)


@dataclass(frozen=True)
class Layer:
    """A layer of an engine: its name, its kind, the types of its tensors, and the ONNX nodes that it computes."""

    name: str
    kind: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    nodes: tuple[str, ...]


def _layer_report(layers: list[Layer]) -> LayerReport | None:
    kinds = Counter((layer.kind, "+".join(layer.reads), "+".join(layer.writes)) for layer in layers)
    fused = tuple((layer.name, layer.nodes) for layer in layers if len(layer.nodes) > 1)
    return LayerReport(tuple((*kind, count) for kind, count in kinds.most_common()), fused) if layers else None


def _nodes(metadata: str) -> tuple[str, ...]:
    """The ONNX nodes of "[ONNX Layer: a][ONNX Layer: b]", each once; full TensorRT puts control characters between."""
    return tuple(dict.fromkeys(re.findall(r"\[ONNX Layer: (.*?)\](?=\[|\s|[\x00-\x1f]|$)", metadata)))


def _type_of_tensor(tensor: Any) -> str:
    """Int8, Half, Float, ... of one tensor, in the words of any version; the words themselves where none is known."""
    if isinstance(tensor, dict):
        tensor = tensor.get("Datatype") or tensor.get("Format/Datatype") or ""
    words = str(tensor)
    # 10.6 has "Channel major UInt8 format", 8.6 "row major INT8 format" beside "row major Int8 format".
    names = (("UInt8", "UInt8"), ("Int8", "Int8"), ("INT8", "Int8"), ("FP16", "Half"), ("Half", "Half"),
             ("BF16", "BFloat16"), ("FP32", "Float"), ("Float", "Float"))  # fmt: skip
    return next((name for sign, name in names if sign in words), words)


def layer_report_from_dict(document: dict[str, Any] | None) -> LayerReport | None:
    """The layers of a sidecar; None where the build listed no layers."""
    if document is None:
        return None
    kinds = tuple((k["kind"], k["reads"], k["writes"], int(k["count"])) for k in document["kinds"])
    return LayerReport(kinds, tuple((f["layer"], tuple(f["nodes"])) for f in document.get("fused", ())))


def warnings_of_layer_report(layers: LayerReport, quantized: bool) -> tuple[str, ...]:
    """What makes INT8 not pay, in sentences; nothing for a file that is not quantized."""
    total, int8 = layers.convolutions(), layers.convolutions("Int8")
    if not quantized or total == 0:  # a DLA's layers say nothing about their convolutions
        return ()
    if int8 == 0:
        return ("No convolution reads int8: Q/DQ costs here and gains nothing. Build the FP16 file.",)
    found = []
    if int8 < total:
        found.append(f"{total - int8} of {total} convolutions run in floating point.")
    back = sum(n for kind, reads, writes, n in layers.kinds if kind in CONVOLUTIONS and _turns_back(reads, writes))
    if back:
        found.append(
            f"{back} of {int8} int8 convolutions write floating point, and {layers.conversions} layers convert: "
            "FP16 may be faster. `toolkit.bench` decides."
        )
    return tuple(found)


def _turns_back(reads: str, writes: str) -> bool:
    return reads.split("+")[0] == "Int8" and writes != "Int8"
