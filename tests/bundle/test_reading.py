"""Claims about an opened bundle: what it holds, what is said of what it lacks, and what is read when it changes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bundle.test_trust import SOURCE, evil, tar_of
from tests.manifests import rehashed
from toolkit.bundle.reading import (
    REPLACED_AT_MOST,
    Bundle,
    bundle_from_folder,
    names_of,
    opened_bundle,
    require_apart,
    require_precisions,
)
from toolkit.bundle.requirements import Requirement
from toolkit.errors import BundleError, DataError, ToolkitError
from toolkit.storage.files import Content

INSIDE = ("fp32", "int8", "int8-fp16", "int8-cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle that a test may change."""
    return Path(shutil.copytree(SOURCE, tmp_path / "b"))


def test_golden_vectors_are_of_every_precision_and_have_the_models_form() -> None:
    bundle = bundle_from_folder(SOURCE)
    images, logits = bundle.golden()
    assert images.source == str(SOURCE / "golden.npz")
    assert images.classes == bundle.labels == ("rows", "columns", "diagonals")
    assert set(logits) == set(bundle.precisions) == set(INSIDE)
    assert {(found.shape, found.dtype) for found in logits.values()} == {((12, 3), np.dtype(np.float32))}
    assert bundle.engines() == replace(bundle, manifest={}).engines() == []


@pytest.mark.parametrize(("change", "kind", "words"), [
    (lambda arrays: {"images": arrays["images"]}, BundleError, "golden.npz cannot be read\n  found:   'labels'"),
    (lambda arrays: arrays | {"logits_fp32": np.zeros((12, 3))}, BundleError, "golden.npz holds fp32 logits of"),
    (lambda arrays: arrays | {"logits_int8": np.zeros((12, 2), "f")}, BundleError, "golden.npz holds int8 logits of"),
    (lambda arrays: arrays | {"images": arrays["images"][:, 1:]}, DataError, "model 'tiny', in "),
    (lambda arrays: {}, BundleError, "golden.npz cannot be read"),
])  # fmt: skip
def test_golden_vectors_of_another_form_are_refused(
    folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]], kind: type[ToolkitError], words: str
) -> None:
    with np.load(folder / "golden.npz") as arrays:
        changed = change(dict(arrays))
    np.savez(folder / "golden.npz", **changed)
    with pytest.raises(kind) as refused:
        bundle_from_folder(rehashed(folder)).golden()
    assert words in str(refused.value)
    assert str(folder / "golden.npz") in str(refused.value)


def test_golden_vectors_that_are_no_file_of_numpy_are_one_error(folder: Path) -> None:
    (folder / "golden.npz").write_bytes(b"no zip")
    with pytest.raises(BundleError, match=r"golden\.npz cannot be read") as refused:
        bundle_from_folder(rehashed(folder)).golden()
    assert refused.value.fix == "`toolkit.export`"


@pytest.mark.parametrize(("precision", "fix"), [
    ("fp16", "`toolkit.export('tiny', options=ExportOptions(fp16=True))`"), ("int4", "`toolkit.export('tiny')`")
])  # fmt: skip
def test_what_a_bundle_lacks_is_said_with_what_makes_it(precision: str, fix: str) -> None:
    with pytest.raises(BundleError, match=f"holds no {precision} model") as refused:
        bundle_from_folder(SOURCE).onnx(precision)
    assert (refused.value.found, refused.value.fix) == ("fp32, int8, int8-fp16, int8-cpu", fix)


def test_precisions_are_all_or_names_and_each_must_be_there() -> None:
    bundle = bundle_from_folder(SOURCE)
    assert require_precisions("all", bundle) == require_precisions(["all"], bundle) == INSIDE
    assert require_precisions(" int8-cpu, fp32,,int8-cpu", bundle) == ("int8-cpu", "fp32")
    assert names_of(("int8", "fp32")) == names_of("int8,fp32") == ("int8", "fp32")
    for wrong in ("", "int8,int4", "all,fp32"):
        with pytest.raises(ToolkitError, match="unknown precision"):
            require_precisions(wrong, bundle)
    with pytest.raises(BundleError, match="holds no fp16 model"):
        require_precisions("fp32,fp16", bundle)


def test_no_file_of_a_bundle_is_an_output_however_it_is_named(folder: Path) -> None:
    (folder.parent / "link").symlink_to(folder / "model.onnx")
    bundle = bundle_from_folder(folder)
    for path in (folder / "manifest.json", folder / "record.json", folder.parent / "link"):
        with pytest.raises(ToolkitError, match="is a file of the bundle itself"):
            require_apart(bundle, path, "-o")
    require_apart(bundle, folder / "page.html", "-o")


def test_without_a_path_it_is_the_newest_of_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_WORKSPACE", str(tmp_path))
    for name, time in (("new", 2e9), ("old", 1e9)):
        shutil.copytree(SOURCE, tmp_path / "bundles" / name)
        os.utime(tmp_path / "bundles" / name / "manifest.json", (time, time))
    assert bundle_from_folder().folder == opened_bundle(None).folder == tmp_path / "bundles/new"


def test_where_no_bundle_is_the_path_is_said(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "newer").mkdir()
    (folder / "newer/manifest.json").write_text('{"format": 3}')
    (folder / "broken").mkdir()
    (folder / "broken/manifest.json").write_text("{")
    for path, words in (
        (folder / "none", f"there is no bundle '{folder / 'none'}'"),
        (folder / "empty", f"{folder / 'empty'} is not a bundle"),
        (folder / "newer", f"{folder / 'newer'} has a bundle format that"),
        (folder / "broken", f"{folder / 'broken/manifest.json'} is not JSON"),
        (Path("x" * 300), f"cannot read {'x' * 300}\n  found:   its name is too long"),
    ):
        with pytest.raises(ToolkitError) as refused:
            bundle_from_folder(path)
        assert str(refused.value).startswith(words)


def test_a_bundle_that_a_power_cut_caught_between_two_renames_is_put_back(folder: Path) -> None:
    folder.rename(folder.parent / ".b.abcd0123.old")
    assert bundle_from_folder(folder).model == "tiny"


# What changes meanwhile.


@dataclass(frozen=True)
class Meanwhile(Requirement):
    """Refuses a bundle as long as there is something left to do to it."""

    left: tuple[Callable[[], object], ...] = ()

    def require_folder(self, folder: Path, manifest: Content) -> None:
        """Does it."""
        done.append(manifest.sha256)
        if len(done) <= len(self.left):
            self.left[len(done) - 1]()
            raise BundleError("not this one")


done: list[str] = []


@pytest.mark.parametrize(("times", "opened"), [(1, 2), (REPLACED_AT_MOST, 1 + REPLACED_AT_MOST)])
def test_a_bundle_that_was_replaced_is_read_again_and_remembers_what_is_asked_of_it(
    folder: Path, times: int, opened: int
) -> None:
    done.clear()
    wanted = Meanwhile(left=times * (lambda: rehashed(folder, labels=["a", "b", str(len(done))]),))
    bundle = opened_bundle(str(folder), wanted=wanted)
    assert bundle.labels[2] == str(opened - 1)
    assert len(set(done)) == len(done) == opened
    assert bundle.wanted is wanted


@pytest.mark.parametrize(("what", "opened"), [("replaced", 1 + REPLACED_AT_MOST), ("as it was", 1)])
def test_a_bundle_that_is_refused_as_it_is_or_replaced_for_ever_is_refused(
    folder: Path, what: str, opened: int
) -> None:
    done.clear()
    change = (lambda: rehashed(folder, labels=["a", "b", str(len(done))])) if what == "replaced" else lambda: None
    with pytest.raises(BundleError, match="not this one"):
        bundle_from_folder(folder, wanted=Meanwhile(left=9 * (change,)))
    assert len(done) == opened


def test_what_was_opened_as_one_folder_is_read_from_that_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other, real = evil(folder.parent / "e"), os.open

    def opened(path: Any, *rest: Any, **more: Any) -> int:
        handle = real(path, *rest, **more)
        if path == folder and other.exists():
            folder.rename(folder.parent / "away")
            other.rename(folder)
        return handle

    monkeypatch.setattr(os, "open", opened)
    bundle = bundle_from_folder(folder)
    assert bundle.onnx("fp32").data == (SOURCE / "model.onnx").read_bytes()
    assert not other.exists()


def test_what_lies_in_the_cache_is_read_by_the_manifest_of_the_tar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar, bad, wanted = tar_of(SOURCE, tmp_path / "b.tar"), evil(tmp_path / "e"), Requirement()
    assert opened_bundle(str(tar), wanted=wanted).wanted is wanted
    with pytest.raises(BundleError, match="is packed, and this writes into a bundle"):
        opened_bundle(tar, packed=False)
    monkeypatch.setattr("toolkit.bundle.unpacking.folder_in_cache", lambda packed, again=False: bad)  # swapped at once
    with pytest.raises(BundleError, match="changed since the bundle was written"):
        bundle_from_folder(tar)
    assert isinstance(bundle_from_folder(bad), Bundle)
