"""What becomes of classifiers of every family, whichever way they come, and who reads their files: docs/zoo.md.

    python -m benchmarks.zoo [--nets vgg,vit] [--walk] [--cifar10] [-o docs/zoo.md]

Each net of tests/zoo comes as a module, as a file of PyTorch's older exporter and as one of today's: seeded random
weights, settled norms, 48 images. It becomes a file in every precision; ONNX Runtime, onnx's reference evaluator and
OpenVINO answer each, TensorRT-RTX builds engines. `--walk` sends the module through `toolkit calibrate`, `export` and
`verify`, too. The default model is read on its own images, and with `--cifar10` the others on theirs. Nothing is timed:
two runs on one machine print the same. The page goes to stderr or into `-o`, JSON to stdout.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.zoo.made import Form, answers_of, engine_of, form_of, made_of
from tests.zoo.readers import COUNTS, Reading, readings_of
from tests.zoo.walk import walked
from tests.zoo.ways import NETS, OPEN, REFUSED, WAYS, graph_of, images, settled
from toolkit.bundle.manifest import FOR_TENSORRT, VARIANTS
from toolkit.compare.parity import parity_without_labels, relative_l2
from toolkit.contracts import Preprocessing, UInt8
from toolkit.data.model_images import images_of_model
from toolkit.errors import ToolkitError
from toolkit.exporting.artifacts import fp32_graph_of_model
from toolkit.graph.int8_layers import axes_of_layers
from toolkit.graph.qdq_placement import layers_in_graph
from toolkit.models.checkpoint import folder_of_model, load_model
from toolkit.workspace import DEFAULT_MODEL

if TYPE_CHECKING:
    import onnx

CIFAR = ("resnet20-cifar10", "resnet32x32-cifar10", "resnet56-cifar10")
VERSIONS = ("torch", "onnx", "onnxruntime", "openvino", "tensorrt-rtx-cu13-bindings")
JUDGING: Mapping[str, int] = {"reference": 2, "openvino": 1000}  # images, of the reference models


@dataclass(frozen=True)
class File:
    """One precision: images on which it does not answer as the network, and what the readers made of it."""

    flips: int
    readings: dict[str, Reading]
    built: str = ""


@dataclass(frozen=True)
class Row:
    """A net that came one way.

    Attributes:
        export: "written", the reason why it is not, or the way whose graph it is, up to names.
        distance: of fp32's logits from the network's, relative L2.
        int8: "convolutions and products in INT8 of all".
        walk: how `verify` ended; empty where it was not asked for.
    """

    net: str
    way: str
    export: str
    distance: float = float("nan")
    int8: str = ""
    files: dict[str, File] | None = None
    walk: str = ""


def rows_of_net(net: str, folder: Path, walk: bool) -> Iterator[Row]:
    """A row a way; a graph that an earlier way gave is not measured again."""
    seen: dict[Form, str] = {}
    for way in WAYS:
        if (net, way) in REFUSED:
            yield Row(net, way, "refused by the exporter: a pool to a size that does not divide")
            continue
        try:
            graph = graph_of(net, way, folder)
        except ToolkitError as error:
            yield Row(net, way, f"refused: {error.what}")
            continue
        same = seen.setdefault(form_of(graph), way)
        distance = relative_l2(settled(net).answers, answers_of(graph))
        if same != way:
            yield Row(net, way, f"as {same}", distance)
            continue
        files = files_of(graph, net, folder)
        ended = _walk(net, folder) if walk and way == "module" else ""
        yield Row(net, way, "written", distance, _int8(graph), files, ended)


def files_of(graph: onnx.ModelProto, net: str, folder: Path) -> dict[str, File]:
    """Every precision, answered and built."""
    found, expected = made_of(graph).files, settled(net).answers
    result = {}
    for precision in VARIANTS:
        model, plain = found[precision], answers_of(found[precision], optimize=False)
        flips = parity_without_labels(expected, plain).flips
        built = _built(model, folder) if precision in FOR_TENSORRT else ""
        result[precision] = File(flips, readings_of(model, images(), plain), built)
    return result


def _built(model: onnx.ModelProto, folder: Path) -> str:
    try:
        engine_of(model, folder, batch=(1, 4, 8))
    except ToolkitError as error:
        return error.what
    return "built"


def _int8(graph: onnx.ModelProto) -> str:
    return f"{len(layers_in_graph(graph))} of {len(axes_of_layers(graph))}"


def _walk(net: str, folder: Path) -> str:
    os.environ["TOOLKIT_WORKSPACE"] = str(folder)
    try:
        return "0" if walked(net, folder).ok else "1"
    except ToolkitError as error:
        return error.what


def readings_of_model(name: str, data: str | None) -> dict[str, File]:
    """A reference model's files, calibrated and read on its own images; flips are against fp32."""
    model = load_model(folder_of_model(name))
    preprocessing: Preprocessing = model.card.preprocessing
    own = images_of_model(name, model.card.labels, preprocessing, data=data, count=256)
    judging: UInt8 = own.evaluation.images_nhwc[: max(JUDGING.values())]
    files = made_of(fp32_graph_of_model(model), own.calibration.images_nhwc, preprocessing).files
    answers = {precision: answers_of(files[precision], False, judging) for precision in VARIANTS}
    return {
        precision: File(
            parity_without_labels(answers["fp32"], answers[precision]).flips,
            readings_of(files[precision], judging, answers[precision], JUDGING),
        )
        for precision in VARIANTS
    }


def page(rows: list[Row], models: dict[str, dict[str, File]]) -> str:
    """docs/zoo.md; its command names what was asked for."""
    nets = list(dict.fromkeys(row.net for row in rows))
    some = "" if nets == list(NETS) else f" --nets {','.join(nets)}"
    asked = f"{some}{' --walk' if _ends(rows) else ''}{' --cifar10' if len(models) > 1 else ''}"
    words = f"python -m benchmarks.zoo{asked} -o docs/zoo.md"
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in VERSIONS)
    *most, last = OPEN
    told = f"{', '.join(most)} and {last}"
    head = HEAD.format(command=words, versions=versions, walk=_walks(rows), open=told)
    return "\n".join([head, *_table(rows), "", MODELS, *_models(models), ""])


def _ends(rows: list[Row]) -> dict[str, str]:
    """How the walk of each net ended that went it."""
    return {row.net: row.walk for row in rows if row.walk}


def _walks(rows: list[Row]) -> str:
    if not (ends := _ends(rows)):
        return ""
    others = "".join(f"; {net}: {end}" for net, end in ends.items() if end != "0")
    count = list(ends.values()).count("0")
    return f"- `toolkit calibrate`, `export` and `verify` of the module end with 0: {count} of {len(ends)}{others}.\n"


HEAD = """# Classifiers of every family

Written by this command with {versions}:

```sh
{command}
```

The nets are those of `tests/zoo`: written small, random weights, settled norms, 48 images. `make test` holds their
files to the limits of `tests/zoo/test_zoo.py` and `tests/zoo/readers.py`.

- way: PyTorch's older exporter is told that the batch is open; today's only for {open}, whose batch
  moves to another axis or into another size: their files for one batch are refused, those of the others are opened.
- export: "as module" is the graph of the module, operator by operator: its files are the same, and are not made again.
- fp32: relative L2 of its logits from the network's own in PyTorch. Everywhere all 48 answers are the same.
- fp16, int8, int8-fp16, int8-cpu: images of 48 that the file answers otherwise than the network. Its weights are random
  and its answers close to each other; of trained nets see below and [int8-lab.md](int8-lab.md).
- INT8: convolutions and matrix products that are in INT8, of all that have constant weights.
- RTX: TensorRT-RTX builds the four files that are TensorRT's.
- reference, OpenVINO: the farthest that this reader's logits are from ONNX Runtime's on the same file, of fp32, int8
  and int8-cpu / of fp16 and int8-fp16, where every reader rounds where it likes to. 4 and 48 images.
{walk}
| net | way | export | fp32 | fp16 | int8 | int8-fp16 | int8-cpu | INT8 | RTX | reference | OpenVINO |
|---|---|---|---|---|---|---|---|---|---|---|---|"""

MODELS = """## The reference models

Their files on 1,000 of their own test images (the reference evaluator: 2), against ONNX Runtime without optimization:
images that are answered otherwise, and the relative L2 of the logits. `--cifar10` reads the three models of it, too.

| model | file | reference | OpenVINO |
|---|---|---|---|"""


def _table(rows: list[Row]) -> Iterator[str]:
    for row in rows:
        start = f"| {row.net} | {row.way} | {row.export} | "
        if row.files is None:
            yield start + (f"{row.distance:.0e}" if row.export.startswith("as ") else "") + " |" * 9
            continue
        flips = [str(row.files[precision].flips) for precision in list(VARIANTS)[1:]]
        built = {row.files[precision].built for precision in FOR_TENSORRT}
        cells = [f"{row.distance:.0e}", *flips, row.int8, "all" if built == {"built"} else "; ".join(sorted(built))]
        yield start + " | ".join([*cells, *(_farthest(row.files, reader) for reader in COUNTS)]) + " |"


def _farthest(files: dict[str, File], reader: str) -> str:
    groups = (("fp32", "int8", "int8-cpu"), ("fp16", "int8-fp16"))
    return " / ".join(_far([files[precision].readings[reader] for precision in group]) for group in groups)


def _far(readings: list[Reading]) -> str:
    failed = [reading.failed for reading in readings if reading.failed]
    return f"fails in {failed[0]}" if failed else f"{max(reading.relative_l2 for reading in readings):.0e}"


def _models(models: dict[str, dict[str, File]]) -> Iterator[str]:
    for name, files in models.items():
        for precision, file in files.items():
            read = [file.readings[reader] for reader in JUDGING]
            cells = " | ".join(f"{one.flips} of {one.images:,} ({one.relative_l2:.0e})" for one in read)
            yield f"| {name} | {precision} | {cells} |"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="What becomes of classifiers of every family.")
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--walk", action="store_true", help="calibrate, export and verify each module, too")
    parser.add_argument("--cifar10", action="store_true", help="read the CIFAR-10 models, too")
    parser.add_argument("-o", "--output", type=Path, help="write the page here")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for net in options.nets.split(","):
            for row in rows_of_net(net, Path(folder), options.walk):
                rows.append(row)
                print(f"{row.net} {row.way}: {row.export} {row.walk}", file=sys.stderr, flush=True)
    data = {DEFAULT_MODEL: None} | (dict.fromkeys(CIFAR, "cifar10") if options.cifar10 else {})
    models = {name: readings_of_model(name, source) for name, source in data.items()}
    text = page(rows, models)
    print(text, file=sys.stderr)
    if options.output:
        options.output.write_text(text)
    named = {name: {key: asdict(file) for key, file in files.items()} for name, files in models.items()}
    print(json.dumps({"rows": [asdict(row) for row in rows], "models": named}))


if __name__ == "__main__":
    main()
