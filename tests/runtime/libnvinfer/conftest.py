"""Which TensorRTs the claims of this folder are tried on: those whose headers a crate has, and what `--headers` names.

pytest tests/runtime/libnvinfer --headers 10.6=DIR --headers 8.6=DIR
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import pytest

from tests.runtime.libnvinfer.standin import IN_CRATE, KINDS, Missing, environment

collect_ignore = [] if os.environ.get("STANDIN_VERSION") else ["inside"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--headers VERSION=DIR`, as often as there are versions."""
    parser.addoption("--headers", action="append", default=[], metavar="VERSION=DIR", help="TensorRT's public headers")


def _told(config: pytest.Config) -> dict[str, Path]:
    told = dict(word.split("=", 1) for word in config.getoption("--headers", default=None) or [])
    return {version: Path(folder) for version, folder in told.items()}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `version` is tried on each."""
    if "version" in metafunc.fixturenames:
        told = _told(metafunc.config)
        assert told.keys() <= KINDS.keys(), f"--headers: of {', '.join(KINDS)}"
        metafunc.parametrize("version", [*IN_CRATE, *(version for version in told if version not in IN_CRATE)])


@lru_cache
def _variables(version: str, headers: Path | None) -> dict[str, str] | str:
    try:
        return environment(version, headers)
    except Missing as missing:
        return str(missing)


@pytest.fixture
def variables(version: str, pytestconfig: pytest.Config) -> dict[str, str]:
    """Of a child process with that TensorRT; a skip says what is missing to make it."""
    found = _variables(version, _told(pytestconfig).get(version))
    if isinstance(found, str):
        pytest.skip(found)
    return {**found, "STANDIN_VERSION": version}
