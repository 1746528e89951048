"""A bundle as a model repository of Triton Inference Server: a folder a model, each ready to load.

There is no ensemble: preprocessing is in the graph, so a client sends pixels. What each setting means is NVIDIA's
"Model Configuration" page; which parameters the ONNX Runtime backend takes is read off its source (onnxruntime.cc: an
unknown one keeps a model from loading). The text is checked against Triton's protobuf schema by the tests; that a
server loads the models and answers rightly only that server can show: it runs the warm-up on golden images.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from toolkit.bundle.manifest import VARIANTS, Variant
from toolkit.bundle.reading import Bundle
from toolkit.deployment.openers import plan_of_bundle
from toolkit.errors import BundleError, EngineError, ToolkitError
from toolkit.storage.documents import Document
from toolkit.storage.files import json_text, read_json
from toolkit.storage.folders import folder_replaced
from toolkit.storage.hints import Apart
from toolkit.storage.replacing import require_replaceable
from toolkit.version import __version__

MARK = "toolkit-triton.json"  # beside the models, where Triton reads folders only
LABELS, WARMUP, CONFIG, VERSION = "labels.txt", "warmup", "config.pbtxt", "1"
WORKSPACE_BYTES = 1 << 30
ONLY_A_SERVER = (
    "that the server's backends read these files, and that its TensorRT is the engines' own",
    "that its answers are the golden logits: the warm-up runs golden images, it does not compare",
    "throughput and latency: perf_analyzer, see docs/scale.md",
)
LEFT_OUT = "ONNX Runtime's TensorRT takes one precision_mode and this file needs FP16 and INT8; its engine serves"


@dataclass(frozen=True)
class Serving:
    """How every model is served.

    Attributes:
        max_batch: largest batch that Triton makes for an ONNX file; an engine has its own.
        delay_us: microseconds that a request may wait for others.
        instances: copies of each model, on each GPU or on the CPU.
    """

    max_batch: int = 64
    delay_us: int = 100
    instances: int = 1


@dataclass(frozen=True)
class Model:
    """One folder of the repository: its name, backend ("onnxruntime" or "tensorrt"), file, and what it needs."""

    name: str
    backend: str
    source: str
    needs: str


@dataclass(frozen=True)
class Repository(Document):
    """What toolkit triton wrote and prints.

    Attributes:
        repository: the folder.
        models: a folder each, by name.
        left_out: for each file of the bundle that is not served, why.
        only_a_server_can_show: what was not tried.
        written: the models, with what each needs; in memory only.
    """

    SCHEMA = "toolkit/triton/1"
    ok: Literal[True]
    repository: Path
    models: tuple[str, ...]
    left_out: dict[str, str]
    only_a_server_can_show: tuple[str, ...]
    written: Apart[tuple[Model, ...]] = ()


def repository_from_bundle(
    bundle: Bundle, target: Path, precisions: tuple[str, ...], serving: Serving | None = None
) -> Repository:
    """Writes the repository whole; an older one of ours at `target` is replaced.

    Args:
        precisions: of the ONNX files and engines to serve.

    Raises:
        BundleError: nothing is left to serve, or a label holds a line break. ToolkitError: `target` cannot be
            written, or is another model's.
    """
    serving = serving or Serving()
    if any("\n" in label or "\r" in label for label in bundle.labels):
        raise BundleError("a label holds a line break, and Triton's labels are lines", found=bundle.labels)
    left_out: dict[str, str] = {}
    written: list[Model] = []
    with folder_replaced(target, MARK, _own_files(target, bundle).__contains__) as fresh:
        for precision in precisions:
            if len(VARIANTS[precision].types) > 1:
                left_out[VARIANTS[precision].file] = LEFT_OUT
                continue
            written.append(_write_onnx(fresh, bundle, precision, serving))
        for entry in bundle.engines():
            if entry["precision"] not in precisions:
                continue
            model, reason = _write_engine(fresh, bundle, entry, serving)
            if model is None:
                left_out[entry["file"]] = reason
            else:
                written.append(model)
        if not written:
            raise BundleError("there is nothing that Triton can serve", found=json.dumps(left_out))
        (fresh / MARK).write_text(json_text(_mark(bundle, written, left_out)))
    names = tuple(model.name for model in written)
    return Repository(True, target.resolve(), names, left_out, ONLY_A_SERVER, tuple(written))


def _own_files(target: Path, bundle: Bundle) -> set[str]:
    """What an earlier call wrote there, by its own mark.

    Raises:
        ToolkitError: it is of another model, or cannot be read.
    """
    if not (target / MARK).is_file():
        return set()
    ours = f'"model": {json.dumps(bundle.model)}'.encode()
    require_replaceable(target / MARK, f"repository of {bundle.model}", lambda data: ours in data, "output")
    mark = read_json(target / MARK, ToolkitError)
    files = (
        CONFIG,
        LABELS,
        f"{WARMUP}/{bundle.preprocessing.as_dict()['input']}",
        f"{VERSION}/model.onnx",
        f"{VERSION}/model.plan",
    )
    return {MARK, *(f"{model['name']}/{file}" for model in mark.get("models", []) for file in files)}


def _write_onnx(root: Path, bundle: Bundle, precision: str, serving: Serving) -> Model:
    variant = VARIANTS[precision]
    kind = "KIND_CPU" if not variant.for_tensorrt else "KIND_GPU" if variant.types else "KIND_AUTO"
    needs = {"KIND_CPU": "a CPU", "KIND_GPU": "an NVIDIA GPU", "KIND_AUTO": "a GPU, else a CPU"}[kind]
    model = Model(f"{bundle.model}-{precision}", "onnxruntime", variant.file, needs)
    extra = _accelerator(bundle, variant, serving) if kind == "KIND_GPU" else ""
    config = _config(bundle, model, kind, serving.max_batch, serving) + extra
    _write_model(root / model.name, bundle, config, "model.onnx", bundle.onnx(precision).data)
    return model


def _write_engine(root: Path, bundle: Bundle, entry: dict[str, Any], serving: Serving) -> tuple[Model | None, str]:
    """An engine as a model, or why Triton cannot serve it."""
    try:
        plan = plan_of_bundle(bundle, entry, f"`toolkit.build({str(bundle.folder)!r})`")
        sidecar = plan.sidecar
        name = bundle.preprocessing.as_dict()["input"]
        largest = int(sidecar["profile"][name][2][0])
    except EngineError as error:
        return None, error.what
    except (KeyError, IndexError, TypeError, ValueError):
        return None, "its sidecar has no batch profile"
    built, maker = sidecar["tensorrt"], sidecar["builder"]
    if built["kind"] != "tensorrt":
        return None, f"{built['kind']} built it, and Triton's TensorRT backend runs plans of full TensorRT only"
    needs = (
        f"TensorRT {built['version']}, {maker.get('machine')}, {maker.get('device')}: an engine runs where it was built"
    )
    stem = plan.path.name.removesuffix(".engine").replace(".", "-")
    model = Model(f"{bundle.model}-{stem}-trt", "tensorrt", entry["file"], needs)
    config = _config(bundle, model, "KIND_GPU", largest, serving)
    _write_model(root / model.name, bundle, config, "model.plan", plan.data)
    return model, ""


def _write_model(folder: Path, bundle: Bundle, config: str, file: str, data: bytes) -> None:
    (folder / VERSION).mkdir(parents=True)
    (folder / WARMUP).mkdir()
    (folder / CONFIG).write_text(config)
    (folder / LABELS).write_text("".join(f"{label}\n" for label in bundle.labels))
    # Named as the input, so that `perf_analyzer --input-data` of this folder sends the same pixels.
    (folder / WARMUP / bundle.preprocessing.as_dict()["input"]).write_bytes(bundle.golden()[0].images_nhwc[0].tobytes())
    (folder / VERSION / file).write_bytes(data)


def _config(bundle: Bundle, model: Model, kind: str, max_batch: int, serving: Serving) -> str:
    """The protobuf text of one model; a name or label never reaches it unquoted."""
    pixels, output = bundle.preprocessing.as_dict(), bundle.manifest["output"]
    dims = ", ".join(map(str, bundle.preprocessing.shape))
    return f"""name: {_quoted(model.name)}
backend: {_quoted(model.backend)}
max_batch_size: {max_batch}
version_policy {{ latest {{ num_versions: 1 }} }}
input [ {{ name: {_quoted(pixels["input"])} data_type: TYPE_UINT8 dims: [ {dims} ] }} ]
output [
  {{ name: {_quoted(output["name"])} data_type: TYPE_FP32 dims: [ {len(bundle.labels)} ] label_filename: "{LABELS}" }}
]
dynamic_batching {{ max_queue_delay_microseconds: {serving.delay_us} }}
instance_group [ {{ count: {serving.instances} kind: {kind} }} ]
{"".join(_warmup(pixels["input"], dims, batch) for batch in sorted({1, max_batch}))}"""


def _warmup(name: str, dims: str, batch: int) -> str:
    """A golden image, which Triton repeats to the batch."""
    data = f"data_type: TYPE_UINT8 dims: [ {dims} ] input_data_file: {_quoted(name)}"
    return f"""model_warmup [
  {{ name: "golden, batch {batch}" batch_size: {batch} inputs {{ key: {_quoted(name)} value {{ {data} }} }} }}
]
"""


def _accelerator(bundle: Bundle, variant: Variant, serving: Serving) -> str:
    """TensorRT inside ONNX Runtime, with one profile for every batch, so that no request waits for a new engine."""
    name, shape = bundle.preprocessing.as_dict()["input"], "x".join(map(str, bundle.preprocessing.shape))
    (mode,) = variant.types
    best = max(1, serving.max_batch // 8)
    parameters = {
        "precision_mode": mode,
        "max_workspace_size_bytes": str(WORKSPACE_BYTES),
        "trt_profile_min_shapes": f"{name}:1x{shape}",
        "trt_profile_opt_shapes": f"{name}:{best}x{shape}",
        "trt_profile_max_shapes": f"{name}:{serving.max_batch}x{shape}",
    }
    lines = "\n".join(f"    parameters {{ key: {_quoted(k)} value: {_quoted(v)} }}" for k, v in parameters.items())
    return f"""optimization {{ execution_accelerators {{
  gpu_execution_accelerator [ {{
    name: "tensorrt"
{lines}
  }} ]
}} }}
"""


def _quoted(text: str) -> str:
    """A string of protobuf's text format; JSON's escapes of ASCII are among its own."""
    return json.dumps(text, ensure_ascii=False)


def _mark(bundle: Bundle, models: list[Model], left_out: dict[str, str]) -> dict[str, Any]:
    return {
        "format": 1,
        "tool": __version__,
        "model": bundle.model,
        "manifest_sha256": bundle.manifest_sha256,
        "models": [asdict(model) for model in models],
        "left_out": left_out,
    }
