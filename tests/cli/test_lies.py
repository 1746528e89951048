"""Files that are not what they say: each ends in one error that names the entry, and nothing is written."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toolkit as package
from tests.cli.conftest import Answer, Toolkit, in_this_process
from tests.manifests import rehashed
from toolkit.bundle.signing import new_key
from toolkit.compare.parity import UnlabeledParity
from toolkit.errors import ToolkitError
from toolkit.quantization.sensitivity import Sensitivities, Sensitivity
from toolkit.storage.files import sha256_of_file, write_together

SOURCE = Path(__file__).parents[1] / "bundle/format-1"
ORT = ("--backend", "ort", "--precision", "int8-cpu")
QUICK = (*ORT, "--batch", "1", "--seconds", "0.05")
Change = Callable[[Any], None]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Toolkit:
    """Commands in an empty folder that holds the committed bundle as `b`."""
    shutil.copytree(SOURCE, tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOOLKIT_WORKSPACE", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return in_this_process(capsys)


def refused(answer: Answer, *words: str) -> None:
    """One error with these words, and one document."""
    assert answer.code == (2 if answer.document["error"] in ("UsageError", "WrongValue") else 1)
    assert answer.document["ok"] is False
    assert len(re.findall(r"^(?:e|E)rror:", answer.text, re.MULTILINE)) == 1
    said = " ".join(str(answer.document[part]) for part in ("what", "found", "allowed", "fix"))
    assert [word for word in words if word not in said] == []


def changed(path: Path, change: dict[str, Any]) -> Path:
    """A JSON file with other entries; the path of one may go deep: "latency.0.p50_ms"."""
    document = json.loads(path.read_text())
    for place, value in change.items():
        *parents, last = [int(part) if part.isdecimal() else part for part in place.split(".")]
        inner = document
        for part in parents:
            inner = inner[part]
        inner[last] = value
    path.write_text(json.dumps(document))
    return path


def files_below(folder: Path) -> set[str]:
    """All of them, hidden ones too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": None}, ("model is null", "an object")),
        ({"labels": "x"}, ("labels is text 'x'", "a list")),
        ({"labels": []}, ("0 labels",)),
        ({"labels": ["one"]}, ("1 labels", "3")),
        ({"preprocessing.height": "tall"}, ("preprocessing.height is text 'tall'", "a whole number")),
        ({"files": []}, ("files is a list", "an object")),
        ({"files": {"x": {"bytes": 1}}}, ("files.x.sha256 is not there",)),
        ({"engines": [1]}, ("engines[0] is 1",)),
        ({"engines": None}, ("engines is null",)),
        ({"accuracy": {"int8": 7}}, ("accuracy.int8 is 7",)),
        ({"calibration": "none"}, ("calibration is text 'none'",)),
        ({"output": {}}, ("output.name is not there",)),
        ({"evaluation": 7}, ("evaluation is 7",)),
    ],
)
def test_a_manifest_that_lies_is_refused_by_every_command(
    tool: Toolkit, change: dict[str, Any], words: tuple[str, ...]
) -> None:
    changed(Path("b/manifest.json"), change)
    before = files_below(Path())
    for command in (
        ("bundle", "show", "b"),
        ("bundle", "pack", "b", "-o", "x.tar", "--only", "fp32"),
        ("triton", "b"),
        ("selftest", "b", "--backend", "ort"),
        ("verify", "b", *ORT),
        ("build", "b", "--explain"),
    ):
        refused(tool(*command), "manifest.json of b", *words)
    assert files_below(Path()) == before


def test_nan_is_no_json(tool: Toolkit) -> None:
    changed(Path("b/manifest.json"), {"engines": float("nan")})
    refused(tool("bundle", "show", "b"), "not JSON", "NaN")


def test_a_tar_is_refused_with_its_manifest_before_anything_is_unpacked(tool: Toolkit) -> None:
    from toolkit.bundle.packing import tar_of_files
    from toolkit.bundle.reading import bundle_from_folder

    manifest = json.dumps(json.loads(Path("b/manifest.json").read_text()) | {"labels": 3}).encode()
    write_together({Path("b.tar"): tar_of_files(bundle_from_folder(Path("b")).files, manifest)})
    before = files_below(Path())
    for command in (("bundle", "unpack", "b.tar", "-o", "u"), ("bundle", "show", "b.tar")):
        refused(tool(*command), "labels is 3")
    assert files_below(Path()) == before


def test_a_size_that_is_not_the_files_is_not_packed(tool: Toolkit) -> None:
    changed(Path("b/manifest.json"), {"files": {**_files(), "record.json": {**_files()["record.json"], "bytes": 7}}})
    refused(tool("bundle", "pack", "b", "-o", "x.tar"), "record.json", "7", "4,443")
    assert not Path("x.tar").exists()


def _files() -> dict[str, Any]:
    return dict(json.loads((SOURCE / "manifest.json").read_text())["files"])


def _golden(**arrays: Any) -> None:
    with np.load(SOURCE / "golden.npz") as before:
        np.savez("b/golden.npz", **{**before, **arrays})
    rehashed(Path("b"))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": np.zeros((12, 8, 16, 3), np.uint8)}, ("(12, 8, 16, 3)", "(N, 16, 16, 3)")),
        ({"logits_int8-cpu": np.zeros((12, 1), np.float32)}, ("int8-cpu logits", "(12, 1)", "(12, 3)")),
        ({"logits_int8-cpu": np.full((12, 3), "x")}, ("int8-cpu logits", "<U1", "float32")),
        ({"logits_int8-cpu": np.zeros((3, 3), np.float32)}, ("int8-cpu logits", "(3, 3)", "(12, 3)")),
    ],
)
def test_golden_vectors_of_another_form_are_refused(
    tool: Toolkit, arrays: dict[str, Any], words: tuple[str, ...]
) -> None:
    _golden(**arrays)
    refused(tool("selftest", "b", "--backend", "ort", "--seconds", "0.01"), "golden.npz", *words)
    refused(tool("bench", "b", *QUICK), "golden.npz", *words)


def test_a_file_of_another_net_is_refused_though_its_hash_is_right(tool: Toolkit) -> None:
    import onnx

    model = onnx.load("b/model.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 8
    onnx.save(model, "b/model.onnx")
    rehashed(Path("b"))
    with pytest.raises(ToolkitError, match="not the net that the manifest describes") as caught:
        package.load("b", backend="ort", precision="fp32")
    assert "[8, 16, 3]" in str(caught.value.found)
    refused(tool("bench", "b", "--backend", "ort", "--precision", "fp32"), "not the net", "[8, 16, 3]")


@pytest.mark.parametrize("data", [b"", b"\xe4\xdc\t\xad no ONNX"])
def test_bytes_that_are_no_onnx_file_are_one_error(tool: Toolkit, data: bytes) -> None:
    Path("b/model.int8.onnx").write_bytes(data)
    rehashed(Path("b"))
    answer = tool("verify", "b", "--backend", "ort")
    assert answer.code == 1
    assert "model.int8.onnx" in json.dumps(answer.document)


SIDECAR: dict[str, Any] = {
    "format": 1, "tensorrt": {"kind": "tensorrt", "version": "10.3.0"}, "builder": {"machine": "x86_64"},
    "compute_capabilities": [], "onnx": {"file": "model.onnx", "sha256": "0"}, "flags": [], "profile": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"plan": None}, ("plan is null",)),
        ({"tensorrt": 7}, ("tensorrt is 7", "an object")),
        ({"builder": []}, ("builder is a list",)),
        ({"onnx": {"sha256": "0"}}, ("onnx.file is not there",)),
        ({"flags": "INT8"}, ("flags is text 'INT8'",)),
        ({"census": {}}, ("census.kinds is not there",)),
        ({"census": {"kinds": [{"kind": "a", "reads": "b", "writes": "c", "count": "many"}]}}, ("kinds[0].count",)),
        ({"dla": {"core": 1}}, ("dla.layers is not there",)),
        ({"trials": [1]}, ("trials[0] is 1",)),
    ],
)
def test_a_sidecar_that_lies_is_refused(tool: Toolkit, change: dict[str, Any], words: tuple[str, ...] | None) -> None:
    Path("x.engine").write_bytes(b"abc")
    plan = {"bytes": 3, "sha256": sha256_of_file(Path("x.engine"))}
    Path("x.engine.json").write_text(json.dumps({**SIDECAR, "plan": plan, **change}))
    if words is None:
        assert tool("inspect", "x.engine").code == 0
    else:
        refused(tool("inspect", "x.engine"), "x.engine.json", *words)


@pytest.mark.slow
def test_a_baseline_that_lies_is_refused_before_anything_is_measured(tool: Toolkit) -> None:
    assert tool("bench", "b", *QUICK, "--save", "good.json").code == 0
    for change, word in (
        ({"schema": "toolkit/bench/2"}, "toolkit/bench/2"),
        ({"latency": None}, "latency is null"),
        ({"latency.0.round_medians_ms": "123"}, "latency[0].round_medians_ms is text '123'"),
        ({"latency.0.round_medians_ms": [True]}, "round_medians_ms[0] is true"),
        ({"latency.0.round_medians_ms": [0]}, "round_medians_ms[0] is 0"),
        ({"latency.0.round_medians_ms": []}, "an empty list"),
        ({"latency.0.batch": "one"}, "latency[0].batch is text 'one'"),
        ({"settings.threads": "many"}, "settings.threads is text 'many'"),
        ({"device": [1]}, "device is a list"),
    ):
        shutil.copy("good.json", "lie.json")
        refused(tool("bench", "b", *QUICK, "--baseline", changed(Path("lie.json"), change)), "lie.json", word)
    Path("lie.json").write_text(Path("good.json").read_text().replace('"batch": 1', '"batch": 1e400', 1))
    refused(tool("bench", "b", *QUICK, "--baseline", "lie.json"), "lie.json is not JSON")


@pytest.mark.slow
@pytest.mark.parametrize("p50", [0, -1, None, "fast", True])
def test_a_record_of_selftest_that_lies_is_refused(tool: Toolkit, p50: Any) -> None:
    command = ("selftest", "b", "--backend", "ort", "--seconds", "0.01")
    assert tool(*command, "--save").code == 0
    (record,) = Path("b").glob("selftest-*.json")
    changed(record, {"p50_ms": {"ort fp32": p50}})
    refused(tool(*command), "no speed that selftest saved", "p50_ms.ort fp32", "--save")


@pytest.mark.slow
def test_documents_that_lie_make_no_report(tool: Toolkit) -> None:
    for command, name in ((("verify", "b", "--backend", "ort"), "v"), (("bench", "b", *QUICK), "n")):
        Path(f"{name}.json").write_text(json.dumps(tool(*command).document))
    key = json.loads(Path("b/manifest.json").read_text())["calibration"]["key"]
    layer = Sensitivity("a", UnlabeledParity(0.1, 0, 8))
    Path("s.json").write_text(json.dumps(Sensitivities(True, "b", "mse", key, 8, (layer,)).as_dict()))
    good = {"--verify": "v.json", "--bench": "n.json", "--sensitivity": "s.json"}
    words = [word for pair in good.items() for word in pair]
    assert tool("report", "b", *words, "-o", "r.html", "--markdown", "r.md").code == 0
    for option, change, word in (
        ("--verify", {"schema": None}, "schema"),
        ("--sensitivity", {"schema": "toolkit/verify/1"}, "toolkit/verify/1"),
        ("--verify", {"schema": "toolkit/verify/9"}, "toolkit/verify/9"),
        ("--verify", {"parity.0": 1}, "parity[0] is 1"),
        ("--verify", {"images.count": "many"}, "images.count is text 'many'"),
        ("--verify", {"passed": [1]}, "passed is a list"),
        ("--bench", {"latency.0.p50_ms": -1.0}, "latency[0].p50_ms is -1"),
        ("--bench", {"latency.0.quantiles_ms": [-1.0] * 101}, "quantiles_ms[0] is -1"),
        ("--bench", {"conditions": 7}, "conditions is 7"),
        ("--sensitivity", {"layers": [{"x": 1}]}, "layers[0].node is not there"),
    ):
        shutil.copy(good[option], "lie.json")
        lie = [word for pair in {**good, option: str(changed(Path("lie.json"), change))}.items() for word in pair]
        refused(tool("report", "b", *lie, "-o", "lie.html"), word)
    assert not Path("lie.html").exists()
    _two_pages_or_none(tool, words)


def _two_pages_or_none(tool: Toolkit, words: list[str]) -> None:
    Path("folder").mkdir()
    refused(tool("report", "b", *words, "-o", "half.html", "--markdown", "folder"), "folder", "it is a folder")
    assert not Path("half.html").exists()
    before = Path("v.json").read_bytes()
    refused(tool("report", "b", *words, "-o", "v.json"), "v.json", "choose another --output")
    refused(tool("report", "b", *words, "-o", "x.html", "--markdown", "x.html"), "x.html", "choose another --markdown")
    assert Path("v.json").read_bytes() == before


def test_no_command_writes_over_the_bundle_that_it_reads(tool: Toolkit) -> None:
    before = {name: sha256_of_file(Path("b") / name) for name in files_below(Path("b"))}
    Path("link").symlink_to("b")
    refused(tool("bundle", "pack", "b", "-o", "b/model.onnx"), "b/model.onnx is a file of the bundle itself")
    refused(tool("bundle", "pack", "b", "-o", "link/manifest.json"), "link/manifest.json")
    refused(tool("bench", "b", *QUICK, "--save", "b/record.json"), "--save")
    refused(tool("report", "b", "-o", "b/manifest.json"), "-o")
    assert {name: sha256_of_file(Path("b") / name) for name in files_below(Path("b"))} == before


def test_a_key_is_made_whole_or_not_at_all(tool: Toolkit, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolkitError, match="what the public half would be called"):
        new_key(Path("k.pub"))

    def full(handle: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ToolkitError, match="cannot write"):
        new_key(Path("k.pem"))
    assert files_below(Path()) == {"b", *(f"b/{name}" for name in files_below(Path("b")))}


def test_paths_that_no_system_takes_are_one_error(tool: Toolkit) -> None:
    long = "x" * 5000
    for command in (
        ("bundle", "show", long),
        ("verify", long),
        ("inspect", long),
        ("bench", "b", "--save", long, *QUICK),
    ):
        answer = tool(*command)
        refused(answer, "its name is too long")
        assert len(answer.text) < 2000
    Path("loop").symlink_to("loop")
    refused(tool("bundle", "pack", "b", "-o", "loop/x.tar"), "loop")
    with pytest.raises(ToolkitError, match="cannot read"):
        package.load(long)


def test_unpacking_through_a_link_replaces_what_it_points_to(tool: Toolkit) -> None:
    assert tool("bundle", "pack", "b", "-o", "b.tar").code == 0
    Path("current").symlink_to("v1")
    for _ in range(2):  # the first makes v1, the second replaces it
        assert tool("bundle", "unpack", "b.tar", "-o", "current").code == 0
        assert Path("current").is_symlink()
    assert {path.name for path in Path().iterdir()} == {"b", "b.tar", "current", "v1"}


@pytest.mark.parametrize("wreck", ["file", "broken link", "folder"])
def test_a_wreck_in_the_cache_of_tars_is_cleared_away(tool: Toolkit, wreck: str) -> None:
    assert tool("bundle", "pack", "b", "-o", "b.tar").code == 0
    place = Path("cache/trt-edge-toolkit") / sha256_of_file(Path("b.tar"))
    place.parent.mkdir(parents=True)
    if wreck == "file":
        place.write_text("x")
    elif wreck == "broken link":
        place.symlink_to("nowhere")
    else:
        (place / "manifest.json").mkdir(parents=True)
    with package.load("b.tar", backend="ort") as net:
        assert len(net.labels) == 3


@pytest.mark.parametrize("gate", [float("nan"), -1.0, 101.0])
def test_a_gate_that_nothing_could_fail_is_refused(tool: Toolkit, gate: float) -> None:
    with pytest.raises(ToolkitError, match="gate"):
        package.verify("b", backends="ort", gate=gate)


@pytest.mark.parametrize(
    "option",
    [{"callers": 10**6}, {"batches": (1.5,)}, {"batches": (10**9,)}, {"max_regression": float("nan")}, {"seconds": -1}],
)
def test_a_bench_that_would_not_end_or_could_not_fail_is_refused(tool: Toolkit, option: dict[str, Any]) -> None:
    with pytest.raises(ToolkitError, match=next(iter(option))):
        package.bench("b", **{"backends": "ort", "precisions": "int8-cpu", "batches": (1,), "seconds": 0.05, **option})


def test_a_baseline_is_named_as_text_in_python_too(tool: Toolkit) -> None:
    with pytest.raises(ToolkitError, match="cannot read nosuch"):
        package.bench("b", backends="ort", precisions="int8-cpu", baseline="nosuch.json")


def test_numbers_that_no_backend_takes_are_refused(tool: Toolkit) -> None:
    for threads in (-1, 10**12):
        with pytest.raises(ToolkitError, match="threads"):
            package.load("b", backend="ort", threads=threads)
    refused(tool("build", "b", "--target", "rtx", "--precision", "fp32", "--workspace-mib", "9" * 23), "1048576")


@pytest.mark.slow
@pytest.mark.usefixtures("every_core")
def test_two_builds_at_once_keep_each_others_engines(tool: Toolkit) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="engines need the TensorRT-RTX wheels (extra rtx)")
    start = [sys.executable, "-m", "toolkit", "build", "b", "--target", "rtx", "--precision"]
    builds = [subprocess.Popen([*start, precision], stderr=subprocess.PIPE) for precision in ("fp32", "int8")]
    said = [build.communicate()[1].decode() for build in builds]
    assert [build.returncode for build in builds] == [0, 0], said
    engines = json.loads(Path("b/manifest.json").read_text())["engines"]
    assert sorted(entry["precision"] for entry in engines) == ["fp32", "int8-fp16"]
    assert tool("bundle", "check", "b").code == 0
    assert {path.name for path in Path().iterdir()} <= {"b", "cache"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirected", "code", "says"),
    [
        (">&-", 0, ""),
        ("2>&-", 0, '"ok": true'),
        (">/dev/full", 1, "cannot write to stdout"),
        ("2>/dev/full", 1, '"ok": false'),
    ],
)
def test_streams_that_are_closed_or_full_cause_no_traceback(
    tool: Toolkit, redirected: str, code: int, says: str
) -> None:
    command = f'"{sys.executable}" -m toolkit bundle show b {redirected}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert done.returncode == code
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_stdout_of_other_letters_gets_escapes(tool: Toolkit) -> None:
    shutil.move("b", "ü 日本")
    done = subprocess.run(
        [sys.executable, "-m", "toolkit", "bundle", "show", "ü 日本"],
        capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 0
    assert json.loads(done.stdout)["bundle"].endswith("ü 日本")
