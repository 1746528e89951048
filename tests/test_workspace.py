"""Claims about where things lie."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from toolkit.storage.cache import cache_folder
from toolkit.storage.folders import make_private


@pytest.mark.parametrize(
    ("chosen", "xdg", "folder"),
    [
        ("/mine", "/c", "/mine"),
        ("~/mine", "/c", "/h/mine"),
        ("", "/c", "/c/trt-edge-toolkit"),
        ("", "", "/h/.cache/trt-edge-toolkit"),
        ("", "relative", "/h/.cache/trt-edge-toolkit"),
    ],
)
def test_the_cache_is_the_chosen_folder_else_follows_xdg(
    chosen: str, xdg: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("HOME", "/h"), ("TOOLKIT_CACHE", chosen), ("XDG_CACHE_HOME", xdg)):
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)


def test_a_folder_of_the_cache_is_its_users_alone_with_what_was_missing_above_it(tmp_path: Path) -> None:
    before = tmp_path.stat().st_mode
    for _ in range(2):
        make_private(tmp_path / "cache" / "timing")
    modes = [stat.S_IMODE((tmp_path / part).stat().st_mode) for part in ("cache", "cache/timing")]
    assert modes == [0o700, 0o700]
    assert tmp_path.stat().st_mode == before
