"""Claims about Triton repositories: every configuration parses by Triton's own schema and says what the files are."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.bundle.reading import Bundle, bundle_from_folder
from toolkit.bundle.sealing import manifest_text
from toolkit.contracts import preprocessing_from_dict
from toolkit.deployment.triton import LABELS, MARK, Serving, repository_from_bundle
from toolkit.engine.bundle_engines import files_of_folder
from toolkit.errors import BundleError, ToolkitError

SOURCE = Path(__file__).parents[1] / "bundle/format-1"
ROOT = Path(__file__).parents[2]
SHIPPED = sorted(path.parent.name for path in (ROOT / "models").glob("*/card.json"))


@pytest.fixture(scope="session")
def schema() -> Any:
    """Triton's generated ModelConfig messages, without its gRPC client around them."""
    found = importlib.util.find_spec("tritonclient")
    if found is None or not found.submodule_search_locations:
        pytest.skip("Triton's schema is not installed here: pip install --no-deps tritonclient")
    path = Path(next(iter(found.submodule_search_locations))) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """The small bundle with an engine as full TensorRT 10.3 writes them, and one of TensorRT-RTX: bytes and sidecar."""
    folder = Path(shutil.copytree(SOURCE, tmp_path / "b"))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "engines").mkdir()
    for kind, stem in (("tensorrt", "model.int8-fp16"), ("tensorrt-rtx", "model")):
        plan = folder / "engines" / f"{stem}.engine"
        plan.write_bytes(kind.encode())
        sidecar = {
            "format": 1, "tensorrt": {"kind": kind, "version": "10.3.0"}, "compute_capabilities": [], "flags": [],
            "builder": {"device": "Orin", "machine": "aarch64"}, "onnx": {"file": f"{stem}.onnx", "sha256": "0"},
            "plan": {"sha256": hashlib.sha256(plan.read_bytes()).hexdigest(), "bytes": plan.stat().st_size},
            "profile": {"images": [[1, 16, 16, 3], [4, 16, 16, 3], [16, 16, 16, 3]]},
        }  # fmt: skip
        plan.with_name(f"{plan.name}.json").write_text(json.dumps(sidecar))
        precision = "int8-fp16" if kind == "tensorrt" else "fp32"
        manifest["engines"].append({"file": f"engines/{plan.name}", "precision": precision, "target": "x"})
    return written(folder, manifest)


def written(folder: Path, manifest: dict[str, Any]) -> Bundle:
    """A bundle of whatever lies in a folder."""
    (folder / "manifest.json").write_text(manifest_text({**manifest, "files": files_of_folder(folder)}))
    return bundle_from_folder(folder)


def parsed(schema: Any, folder: Path) -> Any:
    """A model's configuration, by Triton's schema: an unknown field or a wrong type fails here."""
    from google.protobuf import text_format

    return text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())


def test_every_variant_parses_and_describes_its_file(schema: Any, bundle: Bundle, tmp_path: Path) -> None:
    made = repository_from_bundle(bundle, tmp_path / "repo", bundle.precisions, Serving(32, 250, 2))
    names = {model.name for model in made.written}
    assert names == {"tiny-fp32", "tiny-int8", "tiny-int8-cpu", "tiny-model-int8-fp16-trt"}
    assert names == {path.name for path in (tmp_path / "repo").iterdir() if path.is_dir()}
    images, _ = bundle.golden()
    for model in made.written:
        folder = tmp_path / "repo" / model.name
        config = parsed(schema, folder)
        file = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}[config.backend]
        assert (folder / "1" / file).read_bytes() == (bundle.folder / model.source).read_bytes()
        assert config.name == folder.name
        assert config.max_batch_size == (16 if config.backend == "tensorrt" else 32)
        assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [("images", 2, [16, 16, 3])]
        assert [(o.name, o.data_type, list(o.dims)) for o in config.output] == [("logits", 11, [3])]
        assert (folder / LABELS).read_text().splitlines() == list(bundle.labels)
        assert config.output[0].label_filename == LABELS
        assert config.dynamic_batching.max_queue_delay_microseconds == 250
        assert config.instance_group[0].count == 2
        assert [w.batch_size for w in config.model_warmup] == [1, config.max_batch_size]
        for warmup in config.model_warmup:
            data = (folder / "warmup" / warmup.inputs["images"].input_data_file).read_bytes()
            pixels = np.frombuffer(data, np.uint8).reshape(tuple(warmup.inputs["images"].dims))
            assert np.array_equal(pixels, images.images_nhwc[0])


def test_the_graphs_have_the_inputs_and_outputs_that_the_configurations_name(
    schema: Any, bundle: Bundle, tmp_path: Path
) -> None:
    import onnxruntime

    made = repository_from_bundle(bundle, tmp_path / "repo", ("fp32", "int8", "int8-cpu"))
    for model in made.written:
        folder = tmp_path / "repo" / model.name
        config = parsed(schema, folder)
        session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
        [taken], [given] = session.get_inputs(), session.get_outputs()
        assert (taken.name, taken.type, taken.shape[1:]) == ("images", "tensor(uint8)", list(config.input[0].dims))
        assert (given.name, given.type, given.shape[1:]) == ("logits", "tensor(float)", list(config.output[0].dims))


def test_where_a_model_runs_is_in_its_configuration(schema: Any, bundle: Bundle, tmp_path: Path) -> None:
    repository_from_bundle(bundle, tmp_path / "repo", bundle.precisions)
    kinds = {"tiny-fp32": "KIND_AUTO", "tiny-int8": "KIND_GPU", "tiny-int8-cpu": "KIND_CPU"}
    for name, kind in (kinds | {"tiny-model-int8-fp16-trt": "KIND_GPU"}).items():
        config = parsed(schema, tmp_path / "repo" / name)
        assert config.instance_group[0].Kind.Name(config.instance_group[0].kind) == kind
        accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
        assert [a.name for a in accelerators] == (["tensorrt"] if name == "tiny-int8" else [])
    assert accelerators == []
    [tensorrt] = parsed(
        schema, tmp_path / "repo/tiny-int8"
    ).optimization.execution_accelerators.gpu_execution_accelerator
    assert tensorrt.parameters["precision_mode"] == "INT8"
    assert tensorrt.parameters["trt_profile_max_shapes"] == "images:64x16x16x3"


def test_what_triton_cannot_serve_is_named(bundle: Bundle, tmp_path: Path) -> None:
    plan = bundle.folder / "engines" / "model.int8-fp16.engine"
    made = repository_from_bundle(bundle, tmp_path / "repo", bundle.precisions)
    assert set(made.left_out) == {"model.int8-fp16.onnx", "engines/model.engine"}
    assert "full TensorRT" in made.left_out["engines/model.engine"]
    assert json.loads((tmp_path / "repo" / MARK).read_text())["left_out"] == made.left_out
    plan.write_bytes(b"other")
    with pytest.raises(BundleError, match="changed since"):
        repository_from_bundle(bundle, tmp_path / "repo", ("int8", "int8-fp16"))
    agreed = written(bundle.folder, bundle.manifest)
    made = repository_from_bundle(agreed, tmp_path / "repo", ("int8", "int8-fp16"))
    assert "cut short" in made.left_out["engines/model.int8-fp16.engine"]
    with pytest.raises(BundleError, match="nothing that Triton"):
        repository_from_bundle(agreed, tmp_path / "other", ("int8-fp16",))
    assert not (tmp_path / "other").exists()


def test_a_repository_is_replaced_whole_and_somebody_elses_never(bundle: Bundle, tmp_path: Path) -> None:
    repository_from_bundle(bundle, tmp_path / "repo", ("fp32", "int8-cpu"))
    repository_from_bundle(bundle, tmp_path / "repo", ("int8-cpu",))
    assert [path.name for path in (tmp_path / "repo").iterdir() if path.is_dir()] == ["tiny-int8-cpu"]
    (tmp_path / "theirs" / "bert").mkdir(parents=True)
    with pytest.raises(ToolkitError, match="not empty"):
        repository_from_bundle(bundle, tmp_path / "theirs", ("fp32",))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_model_has_a_configuration_that_parses(
    schema: Any, bundle: Bundle, tmp_path: Path, name: str
) -> None:
    card = json.loads((ROOT / "models" / name / "card.json").read_text())
    preprocessing = preprocessing_from_dict(card["preprocessing"])
    shape = preprocessing.shape
    np.savez(bundle.folder / "golden.npz", images=np.zeros((2, *shape), np.uint8), labels=np.zeros(2, np.int64))
    labels = tuple(card["labels"])
    opened = written(bundle.folder, bundle.manifest)
    other = replace(opened, model=name, labels=labels, preprocessing=preprocessing)
    made = repository_from_bundle(other, tmp_path / "repo", bundle.precisions)
    assert len(made.written) == 4
    for model in made.written:
        config = parsed(schema, tmp_path / "repo" / model.name)
        assert config.name.startswith(name)
        assert list(config.input[0].dims) == list(shape)
        assert list(config.output[0].dims) == [len(labels)]
        assert (tmp_path / "repo" / model.name / LABELS).read_text().splitlines() == list(labels)


def test_odd_labels_are_lines_or_refused(bundle: Bundle, tmp_path: Path) -> None:
    odd = ('a "quoted" one', "größer", "tab\there")
    other = replace(bundle, labels=odd)
    repository_from_bundle(other, tmp_path / "repo", ("fp32",))
    assert (tmp_path / "repo/tiny-fp32" / LABELS).read_text().splitlines() == list(odd)
    lines = replace(bundle, labels=("a\nb",))
    with pytest.raises(BundleError, match="line break"):
        repository_from_bundle(lines, tmp_path / "repo", ("fp32",))
