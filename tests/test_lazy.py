"""Claims about missing packages: the message is the pip command that mends it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from toolkit import lazy
from toolkit.errors import DataError, MissingPackage, ToolkitError
from toolkit.lazy import EXTRAS, needs, requirement


def _refused(name: str) -> MissingPackage:
    with pytest.raises(MissingPackage) as caught, needs("do this"):
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)
    return caught.value


@pytest.mark.parametrize(("package", "extra"), sorted(EXTRAS.items()))
def test_a_missing_package_is_mended_by_its_extra(package: str, extra: str) -> None:
    error = _refused(f"{package}.deep.inside")
    assert error.what == f"{package} is needed to do this, and cannot be imported here"
    assert error.fix == f"pip install {requirement(extra)}"


def test_a_package_that_no_extra_brings_is_named_itself() -> None:
    assert _refused("somebody_elses").fix == "pip install somebody_elses"


def test_a_real_import_that_fails_is_turned_into_words() -> None:
    with pytest.raises(MissingPackage, match="no_such_package_at_all is needed to see"), needs("see"):
        importlib.import_module("no_such_package_at_all")


def test_our_own_broken_import_stays_a_traceback() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"toolkit\.nothing"), needs("do this"):
        importlib.import_module("toolkit.nothing")


def test_other_errors_and_success_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), needs("divide"):
        _ = 1 // 0
    with needs("do this"):
        done = True
    assert done


def test_an_error_says_what_found_allowed_and_what_to_type() -> None:
    error = DataError("no good", found=3, allowed="1 or 2", fix="type this")
    assert str(error).splitlines() == ["no good", "  found:   3", "  allowed: 1 or 2", "  try:     type this"]
    assert error.as_dict() == {
        "error": "DataError",
        "what": "no good",
        "found": "3",
        "allowed": "1 or 2",
        "fix": "type this",
    }


def test_an_error_leaves_out_what_it_does_not_know() -> None:
    assert str(ToolkitError("no good", found=0)) == "no good\n  found:   0"
    assert str(ToolkitError("no good")) == "no good"


class Installed:
    """What `importlib.metadata` finds of an installation."""

    def __init__(self, said: str | None) -> None:
        self.said = said

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self.said


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (None, "'trt-edge-toolkit[rtx]'"),
        ('{"url": "file:///gone/toolkit.whl", "archive_info": {}}', "'trt-edge-toolkit[rtx]'"),
        ('{"url": "https://example.org/toolkit.whl", "archive_info": {}}', "'trt-edge-toolkit[rtx]'"),
        ('{"url": "file://HERE/a b.whl", "archive_info": {}}', "'HERE/a b.whl[rtx]'"),
        ('{"url": "file://HERE", "dir_info": {"editable": true}}', "-e 'HERE[rtx]'"),
    ],
)
def test_what_is_typed_installs_from_where_this_package_came(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str | None, wanted: str
) -> None:
    (tmp_path / "a b.whl").touch()
    clone = tmp_path / "site-packages/toolkit/lazy.py"  # not in the repository, which would be a clone without pip
    monkeypatch.setattr(lazy, "__file__", str(clone))
    monkeypatch.setattr(lazy, "distribution", lambda name: Installed(said and said.replace("HERE", str(tmp_path))))
    lazy._source.cache_clear()
    try:
        assert requirement("rtx") == wanted.replace("HERE", str(tmp_path))
    finally:
        lazy._source.cache_clear()
