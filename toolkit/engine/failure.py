"""A build that failed, in words: the node's name in the ONNX file, cause, cure, and where the whole log lies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from toolkit.errors import EngineError, ToolkitError
from toolkit.runtime.trt.causes import cause_of
from toolkit.runtime.trt.module import Log
from toolkit.storage.files import write_bytes

MOST_LOG_BYTES = 1 << 20  # full TensorRT's warnings about a big network can fill an SD card
SHOWN = 3  # of TensorRT's messages, in an error


def log_path(plan: Path) -> Path:
    """`model.engine` has `model.engine.log`: for people, not part of the model, and in no manifest."""
    return plan.with_name(f"{plan.name}.log")


def log_text(log: Log, most_bytes: int = MOST_LOG_BYTES) -> bytes:
    """What TensorRT said; of a longer log a quarter from its beginning and the rest from its end."""
    text = log.text().encode(errors="replace") + b"\n"
    if len(text) <= most_bytes:
        return text
    gap = f"\n[...] {len(text) - most_bytes:,} bytes are left out here [...]\n".encode()
    head = (most_bytes - len(gap)) // 4
    return text[:head] + gap + text[head + len(gap) - most_bytes :]


def write_log(path: Path, log: Log) -> str:
    """Keeps the log; returns a sentence that says where, or why it is nowhere. A full disk fails no build here."""
    try:
        write_bytes(path, log_text(log))
    except ToolkitError as error:
        return f"the log could not be kept: {error.found}"
    return f"whole log: {path}"


def failure(what: str, log: Log, words: tuple[str, ...], kept: Path, has_driver: bool = True) -> EngineError:
    """An EngineError with the cause and the cure, where known, the first things that TensorRT said, and the log's path.

    Args:
        words: what the parser said; else the errors of the log.
        kept: where the log goes.
        has_driver: where there is none, TensorRT-RTX complains of that too, whatever failed: such lines are left out.
    """
    said = [_relevant(text, has_driver) for text in (*words, *log.errors())]
    warned = [_relevant(text, has_driver) for severity, text in log.lines if severity == "WARNING"]
    cause = cause_of([*said, *warned])
    shown = [text for text in (said[: len(words)] or said) if text][:SHOWN] or ["TensorRT said nothing"]
    where = write_log(kept, log)
    return EngineError(
        f"{what}: {cause.means}" if cause else what,
        found="\n".join([*shown, where]).replace("\n", "\n           "),
        fix=cause.cure if cause else None,
    )


def _relevant(text: str, has_driver: bool) -> str:
    return text if has_driver else "\n".join(line for line in text.splitlines() if "catchCudaError" not in line)


def parser_words(parser: Any, log: Log) -> tuple[str, ...]:
    """The parser's errors, each with its ONNX node's name, which 8.x gives only by number and in its log."""
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    node = _node_in_log(log)
    words = []
    for error in errors:
        named = error.node_name() if hasattr(error, "node_name") else node
        text = str(error)
        words.append(text if not named or named in text else f"node {named}: {text}")
    return tuple(words)


def _node_in_log(log: Log) -> str:
    """Name and operator of the node that a parser of 8.x dumps as text; of nested nodes only the outermost."""
    for _, message in log.lines:
        name, operator = (re.search(rf'^{key}: "(.*)"$', message, re.MULTILINE) for key in ("name", "op_type"))
        if operator:
            return f"{name[1] if name else 'without a name'} ({operator[1]})"
    return ""
