"""Claims about packed bundles: the same files give the same bytes, and nothing but what packing wrote is unpacked."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import toolkit
from toolkit.bundle.packing import BLOCK, check_tar, packed_from_tar, tar_of_files
from toolkit.bundle.reading import Bundle, bundle_from_folder
from toolkit.bundle.requirements import Requirement
from toolkit.bundle.signing import new_key, require_signature, sign, signature_path
from toolkit.bundle.stripping import manifest_bytes
from toolkit.bundle.unpacking import folder_in_cache, unpack
from toolkit.errors import BundleError, ToolkitError
from toolkit.storage.files import Content, content_of, json_text
from toolkit.storage.limits import TAR_BYTES

SOURCE = Path(__file__).parent / "format-1"
MANIFEST = (SOURCE / "manifest.json").read_bytes()
SHA256 = hashlib.sha256(MANIFEST).hexdigest()
TAR = tar_of_files(bundle_from_folder(SOURCE).files, MANIFEST)
MANIFEST_AT = TAR.index(MANIFEST)


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    """The packed bundle of format 1."""
    path = tmp_path / "tiny.tar"
    path.write_bytes(TAR)
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file's bytes by its path inside."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def read(path: Path) -> Content:
    """A tar as it is read to be signed or checked."""
    return content_of(path, TAR_BYTES)


def opened(folder: Path) -> Bundle:
    """The bundle in a folder."""
    return bundle_from_folder(folder)


def test_the_same_files_give_the_same_bytes_whatever_their_times_modes_and_order(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in sorted(SOURCE.iterdir(), reverse=True):
        shutil.copyfile(path, copy / path.name)
        os.utime(copy / path.name, (time.time() - 1e6, 12345))
        (copy / path.name).chmod(0o600)
    (copy / "selftest-0123.json").write_text("{}")
    assert tar_of_files(opened(copy).files, (copy / "manifest.json").read_bytes()) == TAR
    assert tar_of_files(opened(SOURCE).files, MANIFEST) == TAR


def test_a_tar_program_reads_it_and_the_manifest_is_first(tar: Path, tmp_path: Path) -> None:
    with tarfile.open(tar) as archive:
        members = archive.getmembers()
    assert members[0].name == "manifest.json"
    assert [m.name for m in members[1:]] == sorted(json.loads(MANIFEST)["files"])
    assert {(m.mtime, m.uid, m.gid, m.mode, m.uname, m.type) for m in members} == {(0, 0, 0, 0o644, "", b"0")}
    if shutil.which("tar"):
        subprocess.run(["tar", "xf", str(tar), "-C", str(tmp_path)], check=True)
        assert (tmp_path / "model.onnx").read_bytes() == (SOURCE / "model.onnx").read_bytes()


def test_unpacking_gives_the_files_back(tar: Path, tmp_path: Path) -> None:
    unpack(tar, tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(SOURCE)
    assert opened(tmp_path / "out").model == "tiny"


def test_a_program_loads_the_tar_and_answers_as_the_folder_does(tar: Path, cache: Path) -> None:
    images = opened(SOURCE).golden()[0].images_nhwc
    with toolkit.load(SOURCE) as folder, toolkit.load(tar) as packed:
        assert np.array_equal(folder.logits(images), packed.logits(images))
    assert [p.name for p in cache.iterdir()] == [hashlib.sha256(TAR).hexdigest()]
    assert cache.stat().st_mode & 0o077 == 0


def test_a_damaged_cache_is_unpacked_again_and_a_sound_one_is_not(tar: Path) -> None:
    folder = folder_in_cache(packed_from_tar(tar))
    before = (folder / "model.onnx").stat().st_ino
    assert bundle_from_folder(tar).folder == folder
    assert (folder / "model.onnx").stat().st_ino == before
    (folder / "model.onnx").write_bytes(b"other")
    assert (bundle_from_folder(tar).folder / "model.onnx").read_bytes() == (SOURCE / "model.onnx").read_bytes()
    (folder / "manifest.json").write_text("{}")
    assert bundle_from_folder(tar).manifest == json.loads(MANIFEST)


def test_without_a_cache_that_can_be_written_a_tar_still_loads(
    tar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "file"))
    assert bundle_from_folder(tar).model == "tiny"


def test_what_writes_into_a_bundle_refuses_a_tar(tar: Path) -> None:
    with pytest.raises(BundleError, match="packed") as caught:
        bundle_from_folder(tar, packed=False)
    assert "unpack the tar" in str(caught.value)


# Tars that another program, or somebody with bad intentions, could make.


def with_member(kind: bytes = tarfile.REGTYPE, name: str = "model.onnx", link: str = "") -> bytes:
    """The bundle's own files and one more member, behind a manifest that names it where it is a file."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in [SOURCE / "manifest.json", *sorted(SOURCE.glob("[!m]*")), *sorted(SOURCE.glob("model*"))]:
            entry = tarfile.TarInfo(path.name)
            entry.size = path.stat().st_size
            archive.addfile(entry, io.BytesIO(path.read_bytes()))
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, link
        archive.addfile(entry)
    return stream.getvalue()


def with_manifest(**changed: Any) -> bytes:
    """A manifest that lies, in front of the true files."""
    manifest = json.loads(MANIFEST) | changed
    data = json_text(manifest).encode()
    header = tarfile.TarInfo("manifest.json")
    header.size = len(data)
    rest = TAR[BLOCK + len(MANIFEST) + -len(MANIFEST) % BLOCK :]
    whole = header.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % BLOCK) + rest.rstrip(b"\0")
    whole += bytes(-len(whole) % BLOCK + 2 * BLOCK)
    return whole + bytes(-len(whole) % 10240)


def naming(name: str) -> bytes:
    """A manifest that names an outside file, as a tar without `_size`'s care would write it."""
    return with_manifest(files={name: {"sha256": hashlib.sha256(b"").hexdigest(), "bytes": 0}})


HOSTILE = {
    "empty": b"",
    "no tar": b"PK\x03\x04" + bytes(5000),
    "compressed": b"\x1f\x8b" + TAR[:4000],
    "pax": tarfile.TarInfo("manifest.json").tobuf(tarfile.PAX_FORMAT)[:156] + b"x" + TAR[157:],
    "symlink": with_member(tarfile.SYMTYPE, "engines", "/etc"),
    "hard link": with_member(tarfile.LNKTYPE, "x", "/etc/passwd"),
    "device": with_member(tarfile.CHRTYPE, "null"),
    "folder": with_member(tarfile.DIRTYPE, "engines"),
    "duplicate": with_member(),
    "outside": naming("../outside"),
    "absolute": naming("/tmp/outside"),
    "nested outside": naming("engines/../../outside"),
    "backslash": naming("..\\outside"),
    "drive": naming("c:outside"),
    "own manifest": naming("manifest.json"),
    "no files": with_manifest(files=[]),
    "no sizes": with_manifest(files={"model.onnx": {"sha256": "0"}}),
    "a bomb": with_manifest(files={"model.onnx": {"sha256": "0" * 64, "bytes": 1 << 32}}),
    "a negative size": with_manifest(files={"model.onnx": {"sha256": "0" * 64, "bytes": -512}}),
    "a large manifest": TAR[:124] + b"77777777777" + TAR[135:],
    "deep": TAR[:BLOCK] + b"[" * len(MANIFEST) + TAR[BLOCK + len(MANIFEST) :],
    "cut short": TAR[:-1],
    "cut long ago": TAR[: len(TAR) // 2],
    "something behind": TAR + bytes(10240),
    "something in the end": TAR[:-1] + b"x",
    "a newer format": with_manifest(format=3),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_packing_did_not_write_is_one_error_and_writes_nothing(kind: str, tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "tars" / "bad.tar"
    path.parent.mkdir()
    path.write_bytes(HOSTILE[kind])
    for attempt in (lambda: unpack(path, tmp_path / "out"), lambda: toolkit.load(path)):
        with pytest.raises(BundleError):
            attempt()
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("outside*"))
    assert not (cache.exists() and list(cache.iterdir()))
    assert [p.name for p in tmp_path.iterdir() if p.name not in ("cache", "tars")] == []


@given(st.integers(0, len(TAR) - 1), st.integers(1, 255))
@example(MANIFEST_AT + MANIFEST.index(b"\n"), ord("\n") ^ ord(" "))
def test_any_other_byte_is_noticed(at: int, change: int) -> None:
    data = bytearray(TAR)
    data[at] ^= change
    path = Path(os.environ["TOOLKIT_CACHE"] + ".tar")
    path.write_bytes(data)
    try:
        check_tar(path)
    except BundleError:
        return
    # A manifest that still parses and still fits the files is for the signature to notice, if it says anything else:
    # one white space may stand for another, and a number's last digit for what no double holds.
    inside = MANIFEST_AT <= at < MANIFEST_AT + len(MANIFEST)
    assert inside or json.loads(MANIFEST) != packed_from_tar(path).manifest


def test_an_older_bundle_is_replaced_whole_and_somebody_elses_folder_never(tar: Path, tmp_path: Path) -> None:
    shutil.copytree(SOURCE, tmp_path / "old")
    (tmp_path / "old" / "model.onnx").write_bytes(b"old")
    unpack(tar, tmp_path / "old")
    assert files_of(tmp_path / "old") == files_of(SOURCE)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("dear")
    with pytest.raises(ToolkitError, match="not empty"):
        unpack(tar, tmp_path / "mine")


def test_packing_refuses_a_file_that_is_not_the_manifests(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SOURCE, tmp_path / "b"))
    bundle = opened(folder)
    (folder / "record.json").write_text("{}")
    with pytest.raises(BundleError, match="changed since"):
        tar_of_files(bundle.files, MANIFEST)


# Signatures.


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A private key and its public half."""
    pytest.importorskip("cryptography")
    private = tmp_path / "vendor.pem"
    return private, new_key(private)


def test_a_signed_tar_passes_with_its_key_alone(tar: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    with pytest.raises(BundleError, match="not signed"):
        unpack(tar, tmp_path / "out", Requirement((public,)))
    sign(read(tar), SHA256, private)
    unpack(tar, tmp_path / "out", Requirement((public,)))
    other = new_key(tmp_path / "other.pem")
    with pytest.raises(BundleError, match="is not the signature"):
        toolkit.load(tar, key=other)
    assert toolkit.load(tar, key=public).backend == "ort"
    assert private.stat().st_mode & 0o077 == 0


def test_the_signature_is_checked_before_anything_is_parsed(
    tar: Path, keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign(read(tar), SHA256, keys[0])
    tar.write_bytes(b"{" + TAR[1:])
    parsed: list[Content] = []
    monkeypatch.setattr("toolkit.bundle.packing._first_member", lambda tar, header_only=False: parsed.append(tar))
    for attempt in (
        lambda: unpack(tar, tmp_path / "out", Requirement((keys[1],))),
        lambda: toolkit.load(tar, key=keys[1]),
    ):
        with pytest.raises(BundleError, match="is not the signature"):
            attempt()
    assert parsed == []


def test_openssl_checks_the_same_signature(tar: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed here")
    sign(read(tar), SHA256, keys[0])
    *said, digits = signature_path(tar).read_text().splitlines(keepends=True)
    (tmp_path / "said").write_text("".join(said))
    (tmp_path / "raw").write_bytes(bytes.fromhex(digits))
    command = f"openssl pkeyutl -verify -pubin -inkey {keys[1]} -rawin -in {tmp_path}/said -sigfile {tmp_path}/raw"
    assert subprocess.run(command.split(), capture_output=True).returncode == 0
    assert f"tar {read(tar).sha256}" in said[1]


def _rsa() -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("pem", [lambda: b"no key", _rsa], ids=["text", "rsa"])
def test_what_is_no_ed25519_key_is_one_error(
    tar: Path, keys: tuple[Path, Path], tmp_path: Path, pem: Callable[[], bytes]
) -> None:
    sign(read(tar), SHA256, keys[0])
    (tmp_path / "wrong.pub").write_bytes(pem())
    with pytest.raises(ToolkitError, match=r"wrong\.pub holds"):
        require_signature(read(tar), tmp_path / "wrong.pub")
    with pytest.raises(ToolkitError, match="private key"):
        sign(read(tar), SHA256, keys[1])
    with pytest.raises(ToolkitError, match="there already"):
        new_key(keys[0])
    signature_path(tar).write_bytes(b"short")
    with pytest.raises(BundleError, match="is not the signature"):
        require_signature(read(tar), keys[1])
    with pytest.raises(BundleError, match="is not signed"):
        toolkit.load(SOURCE, key=keys[1])


# Stripping.


def with_engines(folder: Path) -> Path:
    """A copy of the bundle with engines of two targets, as the manifest sees them."""
    shutil.copytree(SOURCE, folder)
    manifest = json.loads(MANIFEST)
    (folder / "engines").mkdir()
    for target, precision in (("jetpack61", "int8"), ("rtx", "fp32")):
        for name in (f"engines/{target}.engine", f"engines/{target}.engine.json"):
            (folder / name).write_bytes(name.encode())
            entry = {"sha256": hashlib.sha256(name.encode()).hexdigest(), "bytes": len(name)}
            manifest["files"][name] = entry
        manifest["engines"].append({"file": f"engines/{target}.engine", "precision": precision, "target": target})
    (folder / "manifest.json").write_text(json_text(manifest))
    return folder


def stripped_to(tmp_path: Path, only: str) -> set[str]:
    """Packs, unpacks and opens; returns the names of what is left beside what always stays."""
    source = opened(with_engines(tmp_path / "full"))
    (tmp_path / "part.tar").write_bytes(tar_of_files(source.files, manifest_bytes(source, only)))
    unpack(tmp_path / "part.tar", tmp_path / "part")
    bundle = opened(tmp_path / "part")
    assert set(bundle.manifest["files"]) == files_of(tmp_path / "part").keys() - {"manifest.json"}
    assert set(bundle.manifest["accuracy"]) == set(bundle.precisions)
    assert {entry["file"] for entry in bundle.engines()} == {
        name for name in bundle.manifest["files"] if name.endswith(".engine")
    }
    assert bundle.manifest["stripped"]["only"] == only.split(",")
    assert {"golden.npz", "calib.cache", "record.json"} <= set(bundle.manifest["files"])
    return set(bundle.manifest["files"]) - {"golden.npz", "calib.cache", "record.json"}


@pytest.mark.parametrize(
    ("only", "left"),
    [
        ("jetpack61,int8", "model.int8.onnx model.int8-fp16.onnx engines/jetpack61.engine "
         "engines/jetpack61.engine.json"),
        ("int8-cpu", "model.int8-cpu.onnx"),
        ("jetpack72,int8-fp16", "model.int8-fp16.onnx"),
        ("fp32", "model.onnx engines/rtx.engine engines/rtx.engine.json"),
        ("fp32,int8", "model.onnx model.int8.onnx model.int8-fp16.onnx engines/rtx.engine engines/rtx.engine.json "
         "engines/jetpack61.engine engines/jetpack61.engine.json"),
    ],
)  # fmt: skip
def test_a_stripped_bundle_is_a_whole_bundle_of_what_was_named(tmp_path: Path, only: str, left: str) -> None:
    assert stripped_to(tmp_path, only) == set(left.split())


def test_a_target_alone_keeps_every_model(tmp_path: Path) -> None:
    assert {name for name in stripped_to(tmp_path, "rtx") if name.endswith(".onnx")} == {
        path.name for path in SOURCE.glob("*.onnx")
    }


@pytest.mark.parametrize("only", ["fp16", "jetpak61", ",", "int8 fp32"])
def test_names_that_mean_nothing_here_are_refused(only: str) -> None:
    with pytest.raises(ToolkitError, match="`only=`"):
        manifest_bytes(opened(SOURCE), only)


def test_a_stripped_bundle_says_what_it_lacks(tmp_path: Path) -> None:
    source = opened(SOURCE)
    (tmp_path / "part.tar").write_bytes(tar_of_files(source.files, manifest_bytes(source, "int8")))
    with pytest.raises(ToolkitError) as caught:
        toolkit.load(tmp_path / "part.tar")
    assert "no int8-cpu or fp32 model" in str(caught.value)
    with toolkit.load(tmp_path / "part.tar", precision="int8") as net:
        assert net.precision == "int8"


def test_a_signature_of_the_first_format_is_read_and_says_no_version(tar: Path, keys: tuple[Path, Path]) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key: Any = load_pem_private_key(keys[0].read_bytes(), None)
    signature_path(tar).write_bytes(key.sign(TAR))
    assert toolkit.load(tar, key=keys[1]).backend == "ort"
    with pytest.raises(BundleError, match="older than it may be"):
        toolkit.load(tar, key=keys[1], min_version=1)


@pytest.mark.parametrize("private", ["/", ".", ""])
def test_a_key_without_a_name_is_one_error(tar: Path, private: str) -> None:
    for attempt in (lambda: new_key(Path(private)), lambda: sign(read(tar), SHA256, Path(private))):
        with pytest.raises(ToolkitError, match="no name of a file"):
            attempt()


def test_an_older_bundle_is_refused_and_no_line_of_its_signature_can_be_changed(
    tar: Path, keys: tuple[Path, Path]
) -> None:
    path, signed = sign(read(tar), SHA256, keys[0], 3)
    assert signed.version == 3
    assert toolkit.load(tar, key=keys[1], min_version=3).backend == "ort"
    with pytest.raises(BundleError, match="version 3"):
        toolkit.load(tar, key=keys[1], min_version=4)
    with pytest.raises(ToolkitError, match="unless a key has signed it"):
        toolkit.load(tar, min_version=3)
    text = path.read_bytes()
    for at in range(0, len(text), 7):
        path.write_bytes(text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :])
        with pytest.raises(BundleError, match="is not the signature"):
            require_signature(read(tar), keys[1])


def test_an_unpacked_folder_stays_signed_until_something_but_an_engine_changes(
    tar: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    sign(read(tar), SHA256, keys[0], 3)
    folder = tmp_path / "device"
    unpack(tar, folder)
    toolkit.load(folder, key=keys[1], min_version=3).close()
    with pytest.raises(BundleError, match="version 3"):
        toolkit.load(folder, key=keys[1], min_version=4)
    manifest = json.loads(MANIFEST)
    _add_engine(folder, manifest)
    toolkit.load(folder, key=keys[1], backend="ort").close()
    (folder / "engines").chmod(0o777)
    with pytest.raises(BundleError, match="may be written by others"):
        toolkit.load(folder, key=keys[1])
    (folder / "engines").chmod(0o755)
    manifest["labels"][0] = "another"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    toolkit.load(folder, backend="ort").close()
    with pytest.raises(BundleError, match="differs in more than engines"):
        toolkit.load(folder, key=keys[1])


def _add_engine(folder: Path, manifest: dict[str, Any]) -> None:
    """What `toolkit build` adds to a bundle, of bytes that are no engine."""
    (folder / "engines").mkdir()
    for name in ("engines/a.engine", "engines/a.engine.json"):
        (folder / name).write_bytes(b"{}")
        manifest["files"][name] = {"sha256": hashlib.sha256(b"{}").hexdigest(), "bytes": 2}
    manifest["engines"] = [{"file": "engines/a.engine", "precision": "fp32", "sha256": "0" * 64}]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_what_a_workspace_asks_for_holds_wherever_a_bundle_is_read(
    tar: Path, keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_WORKSPACE", str(tmp_path))
    settings = tmp_path / "toolkit.toml"
    settings.write_text(f'require_signature = "{keys[1].name}"\nmin_version = 2\n')
    readers: list[Callable[[], Any]] = [
        lambda: toolkit.load(tar), lambda: toolkit.selftest(tar), lambda: toolkit.verify(tar),
        lambda: toolkit.bench(tar), lambda: toolkit.report(tar, tmp_path / "r.html"), lambda: toolkit.build(SOURCE),
    ]  # fmt: skip
    for read_bundle in readers:
        with pytest.raises(BundleError, match="is not signed"):
            read_bundle()
    sign(read(tar), SHA256, keys[0], 1)
    with pytest.raises(BundleError, match="version 1"):
        toolkit.load(tar)
    sign(read(tar), SHA256, keys[0], 2)
    toolkit.load(tar).close()
    for compare in (lambda: toolkit.verify(tar, SOURCE), lambda: toolkit.bench(tar, against=SOURCE)):
        with pytest.raises(BundleError, match="format-1 is not signed"):
            compare()
    with pytest.raises(BundleError, match="is not the signature"):  # a key of one's own comes on top of it
        toolkit.load(tar, key=new_key(tmp_path / "mine.pem"))


@pytest.mark.parametrize(
    "text",
    ["require_signatures = 'vendor.pub'", "require_signature = true", "min_version = -1", "[x]", "min_version = 1"],
)
def test_a_slip_in_the_settings_of_a_workspace_is_an_error(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_WORKSPACE", str(tmp_path))
    (tmp_path / "toolkit.toml").write_text(text)
    with pytest.raises(ToolkitError, match=r"toolkit\.toml|a key has signed"):
        toolkit.load(SOURCE)
