"""Claims about `toolkit doctor` on this machine: every check has a finding, and what is installed computes."""

from __future__ import annotations

import importlib.util

import pytest

from tests.cli.conftest import Toolkit
from toolkit.doctor.checks import CHECKS

COMPUTING = {
    "numpy": "numpy",
    "pillow": "PIL",
    "safetensors": "safetensors",
    "torch cpu": "torch",
    "onnx": "onnx",
    "onnxruntime cpu": "onnxruntime",
    "tensorrt": "tensorrt_rtx_bindings",
}


@pytest.mark.slow
def test_every_check_gives_one_finding_what_is_installed_computes_and_whatever_fails_says_why(toolkit: Toolkit) -> None:
    answer = toolkit("doctor")
    assert answer.code == 0
    findings = {check["name"]: check for check in answer.document["checks"]}
    assert list(findings) == [check["name"] for check in answer.document["checks"]] == list(CHECKS)
    assert all(finding["detail"] for finding in findings.values())
    assert all(finding["fix"] for finding in findings.values() if finding["ok"] is False)
    installed = [name for name, module in COMPUTING.items() if importlib.util.find_spec(module)]
    assert [findings[name] for name in installed if not (findings[name]["ok"] and findings[name]["version"])] == []
    assert "numpy" in installed
    assert "pip install -e " in answer.text.replace("\n", " ")
