"""Base classes for libnvinfer's interfaces, read off NVIDIA's headers: every method ends the process by its name.

TensorRT's bindings call through tables of virtual functions that the headers give in order (`apiv::V*` of
NvInferImpl.h, `IParser` of NvOnnxParser.h). A class of ours that derives from `Any*` therefore needs only the methods
that are called, in whatever form a version has them; what is called beside these is told, and nothing is guessed.
"""

from __future__ import annotations

import re
from pathlib import Path

_CLASS = re.compile(r"^class (\w+)(?: : public \w+)?\n\{(.*?)^\};", re.DOTALL | re.MULTILINE)
_METHOD = re.compile(r"virtual\s+([^;{}]*?\))\s*((?:const)?\s*(?:noexcept)?)\s*=\s*0\s*;")
_PARSER = ("IParserError", "IParser", "IParserRefitter")


def bases(headers: Path) -> str:
    """C++ of `Any*` for every interface of a folder of headers."""
    internal = _classes(headers / "NvInferImpl.h", lambda name: name.startswith("V") and name != "VRoot")
    parser = _classes(headers / "NvOnnxParser.h", lambda name: name in _PARSER)
    return "\n".join(
        [
            "// Made by bases.py of the headers in " + headers.name,
            "namespace nvinfer1 {",
            *(_base("apiv", name, body) for name, body in internal),
            "}",
            "namespace nvonnxparser {",
            *(_base("nvonnxparser", name, body) for name, body in parser),
            "}",
        ]
    )


def _classes(header: Path, wanted: object) -> list[tuple[str, str]]:
    assert callable(wanted)
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", header.read_text(), flags=re.DOTALL)
    text = re.sub(r"\b(TRT_NODISCARD|TRT_DEPRECATED|TRT_DEPRECATED_API)\b", "", text)
    return [(found[1], found[2]) for found in _CLASS.finditer(text) if wanted(found[1])]


def _base(space: str, name: str, body: str) -> str:
    methods = [f"  {_method(name, *found.groups())}" for found in _METHOD.finditer(body)]
    return "\n".join([f"struct Any{name[1:]} : {space}::{name} {{", *methods, "};"])


def _method(name: str, declared: str, ending: str) -> str:
    called = re.search(r"(\w+)\s*\(", declared)
    assert called is not None, declared
    return f'{" ".join(declared.split())} {ending} override {{ refuse("{name}::{called[1]}"); }}'
