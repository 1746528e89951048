"""A network as PyTorch's newer exporter writes it, in the common form: for what the older one cannot write."""

from __future__ import annotations

import io
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.contracts import Preprocessing
from toolkit.errors import ExportError, ToolkitError
from toolkit.graph.normal.open_batch import BATCHES
from toolkit.graph.normalize import normalized_from_file
from toolkit.graph.preprocessing import with_preprocessing
from toolkit.graph.user.runner import classes_of_file, form_of_file
from toolkit.graph.user_file import onnx_from_file

if TYPE_CHECKING:
    import onnx
    import torch

EXPORTER = "toolkit.exporter"  # in the metadata of a graph that the older exporter did not write
NEWER = "PyTorch's newer exporter wrote it"


def by_the_newer_exporter(
    classifier: torch.nn.Module, preprocessing: Preprocessing, before: ToolkitError
) -> onnx.ModelProto:
    """As `normalized_from_file` has a file of that exporter.

    Args:
        before: why the older one did not.

    Raises:
        ExportError: it cannot either; with both reasons.
    """
    import torch

    height, width, channels = preprocessing.shape
    example = torch.zeros((BATCHES[0], channels, height, width))
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), _silence():
            warnings.simplefilter("ignore")
            path = Path(folder) / "network.onnx"
            torch.onnx.export(
                classifier.net,  # type: ignore[arg-type]  # the classifier's preprocessing is added behind
                (example,),
                path,
                dynamo=True,
                external_data=False,
                dynamic_shapes=({0: torch.export.Dim.AUTO},),
                verbose=False,
            )
            file = onnx_from_file(path)
            form = form_of_file(file, "nchw", None)
            normalized = normalized_from_file(file, form, classes_of_file(file, form))
            return with_preprocessing(normalized.graph, preprocessing, nchw=True)
    except Exception as error:  # the exporter raises types of its own, and wants onnxscript
        reasons = dict.fromkeys((reason_of(before), reason_of(error)))
        found = " and ".join(
            f"the {who} exporter: {why}" for who, why in zip(("older", "newer"), reasons, strict=False)
        )
        found = found if len(reasons) > 1 else reason_of(before)
        raise ExportError("PyTorch cannot export this network", found=found, fix=before.fix) from error


def reason_of(error: BaseException) -> str:
    """The first line of what an exporter says, or of what made it fail, without its colors."""
    while error.__cause__ is not None and not isinstance(error, ToolkitError):
        error = error.__cause__
    text = str(error.found or error.what) if isinstance(error, ToolkitError) else str(error)
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


@contextmanager
def _silence() -> Iterator[None]:
    """The exporters tell of each step on stdout, which is for one JSON document."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        log.setLevel(before)
