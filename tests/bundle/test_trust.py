"""Claims about trust: what was checked is what runs, whoever swaps files meanwhile; nothing in a bundle is unbound."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

import toolkit
from tests.manifests import rehashed
from toolkit.bundle.manifest import VARIANTS
from toolkit.bundle.onnx_bytes import MESSAGES, require_self_contained
from toolkit.bundle.packing import check_tar, tar_of_files
from toolkit.bundle.reading import bundle_from_folder
from toolkit.bundle.requirements import Requirement
from toolkit.bundle.sealing import digest_of, manifest_text
from toolkit.bundle.signing import new_key, sign, signature_path
from toolkit.bundle.unpacking import unpack
from toolkit.errors import BundleError, ModelError, ToolkitError
from toolkit.graph.user_file import onnx_from_file
from toolkit.storage.files import Content, content_of
from toolkit.storage.limits import TAR_BYTES

SOURCE = Path(__file__).parent / "format-1"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(toolkit.__file__).parents[1])}
SWAPPER = """
    import itertools, os, sys
    place, *copies = sys.argv[1:]
    print("swapping", flush=True)
    for number in itertools.count():
        for copy in copies:
            os.link(copy, f"{place}.new")
            os.replace(f"{place}.new", place)
"""
EXCHANGER = """
    import sys
    from pathlib import Path
    from toolkit.storage.folders import _exchanged
    print("swapping", flush=True)
    while _exchanged(Path(sys.argv[1]), Path(sys.argv[2])):
        pass
"""
WRITER = """
    import itertools, sys
    place, *copies = sys.argv[1:]
    contents = [open(copy, "rb").read() for copy in copies]
    print("swapping", flush=True)
    for data in itertools.cycle(contents):
        with open(place, "r+b") as stream:
            stream.write(data)
"""


@contextmanager
def at_work(code: str, *words: object) -> Iterator[None]:
    """A second process that does its worst meanwhile."""
    process = subprocess.Popen(
        [sys.executable, "-c", dedent(code), *map(str, words)], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "swapping\n"
        yield
        assert process.poll() is None, "it gave up"
    finally:
        process.kill()
        process.communicate()


def evil(folder: Path) -> Path:
    """The bundle with every head negated, whole in itself, of the same sizes."""
    shutil.copytree(SOURCE, folder)
    for variant in VARIANTS.values():
        if not (folder / variant.file).is_file():
            continue
        model = onnx.load(folder / variant.file)
        for tensor in model.graph.initializer:
            if tensor.name.startswith("fc.bias"):
                values = numpy_helper.to_array(tensor)
                tensor.CopyFrom(numpy_helper.from_array(np.full_like(values, 77), tensor.name))
        (folder / variant.file).write_bytes(model.SerializeToString())
    return rehashed(folder)


def tar_of(folder: Path, path: Path) -> Path:
    """A bundle's tar."""
    bundle = bundle_from_folder(folder)
    path.write_bytes(tar_of_files(bundle.files, bundle.manifest_content.data))
    return path


def answers(source: Path, **options: Any) -> np.ndarray[Any, Any]:
    """What a net says of the golden images."""
    with toolkit.load(source, backend="ort", **options) as net:
        return net.logits(bundle_from_folder(SOURCE).golden()[0].images_nhwc[:4])


@pytest.mark.slow
def test_a_tar_that_is_swapped_for_an_unsigned_one_never_gets_in(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    key = new_key(tmp_path / "vendor.pem")
    good, bad, place = tar_of(SOURCE, tmp_path / "good"), tar_of(evil(tmp_path / "e"), tmp_path / "bad"), tmp_path / "b"
    signature, _ = sign(content_of(good, TAR_BYTES), "0" * 64, tmp_path / "vendor.pem")
    signature_path(place).write_bytes(signature.read_bytes())
    wanted, other = answers(good), answers(bad)
    assert not np.allclose(wanted, other, atol=1)
    shutil.copy(good, place)
    loaded = refused = 0
    with at_work(SWAPPER, place, good, bad):
        for turn in range(45):
            try:
                if turn % 3 == 0:
                    found = answers(place, key=key)
                elif turn % 3 == 1:
                    unpack(place, tmp_path / "u", Requirement((key,)))
                    found = answers(tmp_path / "u")
                else:
                    check_tar(place, Requirement((key,)))
                    continue
            except BundleError as error:
                refused += "is not the signature" in error.what
            else:
                loaded += 1
                assert np.array_equal(found, wanted), "an unsigned tar answered"
    assert loaded > 0
    assert refused > 0


@pytest.mark.slow
@pytest.mark.parametrize("how", [SWAPPER, WRITER], ids=["renamed", "written into"])
def test_a_folders_file_that_is_swapped_between_check_and_use_is_never_run(tmp_path: Path, how: str) -> None:
    shutil.copytree(SOURCE, tmp_path / "b")
    wanted, bad = answers(SOURCE, precision="fp32"), evil(tmp_path / "e") / "model.onnx"
    with bad.open("r+b") as stream:
        stream.truncate((SOURCE / "model.onnx").stat().st_size)
    loaded = refused = 0
    with at_work(how, tmp_path / "b/model.onnx", SOURCE / "model.onnx", bad):
        for _ in range(30):
            try:
                found = answers(tmp_path / "b", precision="fp32")
            except BundleError as error:
                refused += "changed since" in error.what
            else:
                loaded += 1
                assert np.array_equal(found, wanted), "another file answered"
    assert loaded > 0
    assert refused > 0


def test_what_was_opened_stays_what_it_was_when_its_names_are_others(tmp_path: Path) -> None:
    bundle = bundle_from_folder(Path(shutil.copytree(SOURCE, tmp_path / "b")))
    shutil.rmtree(tmp_path / "b")
    evil(tmp_path / "b")
    assert bundle.onnx("fp32").data == (SOURCE / "model.onnx").read_bytes()
    assert len(bundle.golden()[0]) == 12
    with pytest.raises(BundleError, match=r"holds no other\.onnx"):
        bundle.files.content("other.onnx")


@pytest.mark.slow
def test_a_bundle_that_is_replaced_while_it_is_opened_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    one, other = Path(shutil.copytree(SOURCE, tmp_path / "one")), evil(tmp_path / "other")
    labels = bundle_from_folder(one).labels
    rehashed(other, labels=["a", "b", "c"])
    both = {labels: (one / "model.onnx").read_bytes(), ("a", "b", "c"): (other / "model.onnx").read_bytes()}
    seen = set()
    with at_work(EXCHANGER, one, other):
        for _ in range(120):
            bundle = bundle_from_folder(one)
            assert bundle.onnx("fp32").data == both[bundle.labels], "a mixture"
            seen.add(bundle.labels)
    assert len(seen) == 2


def test_the_cache_of_a_tar_is_believed_only_as_far_as_its_manifest_says(tmp_path: Path, cache: Path) -> None:
    tar = tar_of(SOURCE, tmp_path / "b.tar")
    wanted = answers(tar)
    (folder,) = cache.iterdir()
    shutil.rmtree(folder)
    evil(folder)  # whole in itself
    assert np.array_equal(answers(tar), wanted)


# The manifest.


def seal(folder: Path) -> Path:
    """A copy of the bundle in the present format."""
    return rehashed(Path(shutil.copytree(SOURCE, folder)))


SEALED = manifest_text(json.loads((SOURCE / "manifest.json").read_text())).encode()


@given(st.integers(0, len(SEALED) - 1), st.integers(0, 7))
def test_a_bit_that_flips_anywhere_in_a_manifest_is_noticed(at: int, bit: int) -> None:
    data = bytearray(SEALED)
    data[at] ^= 1 << bit
    folder = Path(os.environ["TOOLKIT_CACHE"] + "-b")
    if not folder.exists():
        seal(folder)
    (folder / "manifest.json").write_bytes(data)
    try:
        found = bundle_from_folder(folder).manifest
    except ToolkitError:
        return
    assert found == json.loads(SEALED), "only white space may differ"


@pytest.mark.parametrize("change", [
    {"digest": None}, {"digest": "0" * 64}, {"format": 1}, {"format": True}, {"format": 3}, {"extra": 1}
])  # fmt: skip
def test_a_manifest_of_this_format_without_its_digest_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = seal(tmp_path / "b")
    manifest = json.loads((folder / "manifest.json").read_text()) | change
    (folder / "manifest.json").write_text(json.dumps({k: v for k, v in manifest.items() if v is not None}))
    with pytest.raises(BundleError, match=r"changed since|cannot read"):
        bundle_from_folder(folder)


def test_a_bundle_that_was_written_before_there_were_digests_still_loads(tmp_path: Path) -> None:
    assert "digest" not in json.loads((SOURCE / "manifest.json").read_text())
    assert bundle_from_folder(SOURCE).model == "tiny"
    wrong = json.loads((SOURCE / "manifest.json").read_text()) | {"digest": "0"}
    folder = Path(shutil.copytree(SOURCE, tmp_path / "b"))
    (folder / "manifest.json").write_text(json.dumps(wrong))  # one that is there counts
    with pytest.raises(BundleError, match="changed since"):
        bundle_from_folder(folder)


def test_the_digest_is_what_it_says_it_is() -> None:
    assert digest_of({"b": [1, 2.5, "é"], "a": None, "digest": "x"}) == digest_of({"a": None, "b": [1, 2.5, "é"]})
    canonical = b'{"a":null,"b":[1,2.5,"\\u00e9"]}'
    assert digest_of({"b": [1, 2.5, "é"], "a": None}) == hashlib.sha256(canonical).hexdigest()


def test_a_key_that_comes_twice_is_refused(tmp_path: Path) -> None:
    folder = seal(tmp_path / "b")
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"labels":', '"labels": ["x"], "labels":', 1))
    with pytest.raises(BundleError, match="not JSON") as caught:
        bundle_from_folder(folder)
    assert "'labels' comes twice" in str(caught.value.found)


def test_a_large_manifest_in_a_folder_is_not_read(tmp_path: Path) -> None:
    folder = seal(tmp_path / "b")
    with (folder / "manifest.json").open("r+b") as stream:
        stream.truncate(180 << 20)
    with pytest.raises(BundleError, match="too large"):
        bundle_from_folder(folder)


def _engine(file: str, also: bool = True) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(manifest: dict[str, Any]) -> dict[str, Any]:
        entry = {"sha256": "0" * 64, "bytes": 1}
        files = manifest["files"] | ({f"{file}.json": entry} if also else {file: entry})
        return {"engines": [{"file": file, "precision": "fp32"}], "files": files}

    return change


def _without_model(manifest: dict[str, Any]) -> dict[str, Any]:
    return {"files": {name: entry for name, entry in manifest["files"].items() if name != "model.onnx"}}


@pytest.mark.parametrize(("change", "words"), [
    (_engine("engines/x.engine"), "bound by no hash"),
    (_engine("engines/x.engine", also=False), "bound by no hash"),
    (_engine("/tmp/x.engine"), "cannot hold"),
    (_engine("../x.engine"), "cannot hold"),
    (lambda manifest: {"files": manifest["files"] | {"a//b": {"sha256": "", "bytes": 0}}}, "cannot hold"),
    (lambda manifest: {"files": manifest["files"] | {f"f{n}": {"sha256": "", "bytes": 0} for n in range(300)}},
     "too many files"),
    (lambda manifest: {"files": {}}, "no model"),
    (_without_model, "no model"),
    (lambda manifest: {"files": {}, "stripped": {"only": ["int8"]}}, "no model"),
])  # fmt: skip
def test_whatever_runs_is_listed_with_its_hash_under_a_plain_name(
    tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], words: str
) -> None:
    folder = seal(tmp_path / "b")
    rehashed(folder, **change(json.loads((folder / "manifest.json").read_text())))
    with pytest.raises(BundleError, match=words):
        bundle_from_folder(folder)


# ONNX files that name other files.


def test_no_onnx_file_of_a_bundle_keeps_weights_elsewhere(tmp_path: Path) -> None:
    folder = seal(tmp_path / "b")
    onnx.save_model(onnx.load(folder / "model.onnx"), folder / "model.onnx", save_as_external_data=True,
                    location="w.bin", size_threshold=0)  # fmt: skip
    rehashed(folder)
    with pytest.raises(BundleError, match="weights in another file"):
        bundle_from_folder(folder)


def outside() -> onnx.TensorProto:
    """A tensor in another file."""
    tensor = onnx.TensorProto(name="t", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def _hidden(where: str) -> onnx.ModelProto:
    model = onnx.load(SOURCE / "model.onnx")
    graph, node = model.graph, model.graph.node[0]
    sparse = onnx.SparseTensorProto(values=outside(), dims=[1])
    if where == "initializer":
        graph.initializer.append(outside())
    elif where == "sparse initializer":
        graph.sparse_initializer.append(sparse)
    elif where == "attribute":
        node.attribute.add(name="v", type=onnx.AttributeProto.TENSOR).t.CopyFrom(outside())
    elif where == "attributes":
        node.attribute.add(name="v", type=onnx.AttributeProto.TENSORS).tensors.append(outside())
    elif where == "sparse attribute":
        node.attribute.add(name="v", type=onnx.AttributeProto.SPARSE_TENSOR).sparse_tensor.CopyFrom(sparse)
    elif where == "body":
        node.attribute.add(name="v", type=onnx.AttributeProto.GRAPH).g.initializer.append(outside())
    elif where == "bodies":
        node.attribute.add(name="v", type=onnx.AttributeProto.GRAPHS).graphs.add().initializer.append(outside())
    elif where == "function":
        function = model.functions.add(name="f", domain="d")
        function.node.add(op_type="Constant").attribute.add(name="v").t.CopyFrom(outside())
    elif where == "default of a function":
        model.functions.add(name="f", domain="d").attribute_proto.add(name="v").t.CopyFrom(outside())
    elif where == "training":
        model.training_info.add().algorithm.initializer.append(outside())
    return model


@pytest.mark.parametrize("where", [
    "initializer", "sparse initializer", "attribute", "attributes", "sparse attribute", "body", "bodies", "function",
    "default of a function", "training",
])  # fmt: skip
def test_wherever_a_tensor_can_be_one_outside_is_found(where: str) -> None:
    with pytest.raises(BundleError, match="weights in another file"):
        require_self_contained(Content(Path("m.onnx"), _hidden(where).SerializeToString()))


def test_no_message_that_can_hold_a_tensor_or_repeats_is_overlooked() -> None:
    """Every field of onnx's own descriptors; what holds nothing and repeats nothing is one part, and no list."""

    def listed(kind: Any, seen: tuple[str, ...] = ()) -> bool:
        below = [field.message_type for field in kind.fields if field.message_type and kind.full_name not in seen]
        return any(field.is_repeated for field in kind.fields) or any(
            listed(one, (*seen, kind.full_name)) for one in below
        )

    todo, done = [(onnx.ModelProto.DESCRIPTOR, "model")], set()
    while todo:
        kind, name = todo.pop()
        done.add(name)
        leads = {field.number: field.message_type for field in kind.fields if field.message_type}
        assert {number for number, one in leads.items() if listed(one)} == MESSAGES[name].keys() & leads.keys(), name
        todo += [
            (leads[number], word) for number, word in MESSAGES[name].items() if number in leads and word not in done
        ]
    assert done >= {"tensor", "value", "type", "shape"}


@pytest.mark.slow
def test_a_file_of_nothing_but_empty_parts_is_counted_before_it_is_read(tmp_path: Path) -> None:
    empty_nodes = b"\x0a\x00" * 2_000_000
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x3a\x80\x92\xf4\x01" + empty_nodes)
    with pytest.raises(ModelError, match="not a whole ONNX file") as refused:
        onnx_from_file(path)
    assert "more than 600,000 parts" in str(refused.value)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_onnx_are_one_error(data: bytes) -> None:
    with contextlib.suppress(BundleError):
        require_self_contained(Content(Path("m.onnx"), data))


@pytest.mark.parametrize("data", [b"\x3a\x05\x2a", b"\x80" * 20, b"\x0b", b"\x3a\xff\xff\xff\xff\x0f" + bytes(8)])
def test_lengths_that_lie_end_the_reading(data: bytes) -> None:
    with pytest.raises(BundleError, match="is not a whole ONNX file"):
        require_self_contained(Content(Path("m.onnx"), data))


# Keys.


@pytest.mark.slow
def test_a_key_pair_is_whole_or_not_at_all(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    code = """
        import itertools, os, signal, sys
        from pathlib import Path
        from toolkit.bundle.signing import new_key
        new_key(Path(sys.argv[1]) / "first.pem")  # imports what it needs
        def killed_at(moment):
            calls = itertools.count(1)
            for name in ("link", "fsync", "fchmod", "unlink"):
                def call(*arguments, original=getattr(os, name), **options):
                    for turn in range(2):
                        if next(calls) == moment:
                            os.kill(os.getpid(), signal.SIGKILL)
                        if turn == 0:
                            result = original(*arguments, **options)
                    return result
                setattr(os, name, call)
            new_key(Path(sys.argv[1]) / f"{moment}.pem")
        for moment in itertools.count(1):
            child = os.fork()
            if child == 0:
                killed_at(moment)
                os._exit(0)
            if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):
                print(moment)
                break
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(code), str(tmp_path)], env=ENVIRONMENT, timeout=60, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 8
    tar = tar_of(SOURCE, tmp_path / "b.tar")
    for moment in range(1, int(done.stdout) + 1):
        private, public = tmp_path / f"{moment}.pem", tmp_path / f"{moment}.pub"
        assert private.exists() or not public.exists()
        if not public.exists():
            new_key(private)  # goes on: a private half that is there gets its own public one
        sign(content_of(tar, TAR_BYTES), "0" * 64, private)
        check_tar(tar, Requirement((public,)))
        assert private.stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob(".*.part")), "a copy of a private key was left"


@pytest.mark.parametrize("census", [5, [], {"layers": "many"}, {"kinds": 1}, {"kinds": [[]]}, "x"])
def test_a_census_of_another_form_is_refused_before_anything_reads_it(census: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SOURCE, tmp_path / "b"))
    (folder / "engines").mkdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("engines/a.engine", "engines/a.engine.json"):
        (folder / name).write_bytes(b"{}")
        manifest["files"][name] = {"sha256": "", "bytes": 0}
    manifest["engines"] = [{"file": "engines/a.engine", "precision": "fp32", "sha256": "0" * 64, "census": census}]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="lacks an entry or has a wrong one") as caught:
        bundle_from_folder(rehashed(folder))
    assert "census" in str(caught.value.found)
