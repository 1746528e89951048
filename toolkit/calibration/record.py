"""The result of a calibration: one range a tensor, and the key that says what the ranges belong to."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.calibration.methods import QAT
from toolkit.contracts import UInt8, sha256_of_each
from toolkit.errors import CalibrationError
from toolkit.storage.files import Content, content_of, json_object, json_text
from toolkit.storage.folders import folder_replaced
from toolkit.storage.limits import DOCUMENT_BYTES

if TYPE_CHECKING:
    import onnx

FORMAT = 2
UNBOUND = 1  # the format before it: its key did not cover the ranges, so that something else has to
RECORD = "record.json"
OBSERVER_VERSION = "0.1.0"  # of what measures ranges: changes when the numbers do, and not with a release
NAMES = {
    "graph_sha256": "the network (weights or graph)",
    "images_sha256": "the calibration images",
    "preprocessing_sha256": "the preprocessing (size, mean or std)",
    "method": "the calibration method",
    "tool": "the version of what measured the ranges",
}


@dataclass(frozen=True)
class Record:
    """What `record.json` holds.

    Attributes:
        amax: the |x| that int8 127 stands for, by tensor name; scale = amax / 127.
        largest: the exact largest |x| seen of every float activation, by tensor name.
        cpu: the |x| that uint8 255, or 127 steps from 128, stands for in the form for ONNX Runtime's CPU kernels, where
            that form has other levels than int8 or TensorRT's quantizes no such tensor.
        belongs_to: sha256 of graph, images and preprocessing, the method and the tool version.
        images: the first 16 hex digits of each measured image's sha256, sorted: who evaluates later can tell which
            images it must leave out.
        notes: what people want to know and no range depends on: the candidates that `auto` tried, what was forced.
        format: of the file that it was read from; it decides what the key covers.
    """

    amax: dict[str, float]
    largest: dict[str, float]
    belongs_to: dict[str, str]
    images: tuple[str, ...]
    notes: dict[str, Any] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def key(self) -> str:
        """sha256 over everything that the ranges depend on, the images and the ranges themselves.

        It guards against damage and slips, not against somebody: who can write a range can write the key.
        """
        if self.format == UNBOUND:
            return _sha256_of_json(self.belongs_to)
        parts = [self.belongs_to, list(self.images), self.amax, self.largest, self.cpu]
        return _sha256_of_json(parts)

    @property
    def from_qat(self) -> bool:
        """Whether `toolkit train --qat` made it: the weights were trained with the rounding to the nearest number."""
        return self.belongs_to.get("method") == QAT

    def as_dict(self) -> dict[str, Any]:
        """The JSON document."""
        return {
            "format": self.format,
            "key": self.key,
            "belongs_to": self.belongs_to,
            "images": list(self.images),
            "amax": self.amax,
            "largest": self.largest,
            "cpu": self.cpu,
            "notes": self.notes,
        }

    def require_belongs_to(self, wanted: dict[str, str]) -> None:
        """Refuses a record whose network, images, preprocessing, method or tool version differ from `wanted`.

        Raises:
            CalibrationError: names every part that changed.
        """
        changed = [NAMES[part] for part in wanted if self.belongs_to.get(part) != wanted[part]]
        if changed:
            raise CalibrationError(
                "the calibration record is stale: it was made for something else",
                found="changed: " + "; ".join(changed),
                allowed="the very network, images, preprocessing, method and tool version it was measured with",
                fix="`toolkit.export(options=ExportOptions(int8=True, method='auto'))` (measures again)",
            )


def write_record(folder: Path, record: Record) -> None:
    """Writes `record.json` into a folder of its own; what else is there stays.

    Raises:
        ToolkitError: the folder belongs to something else, or cannot be written.
    """
    with folder_replaced(folder, RECORD, lambda name: name == RECORD) as fresh:
        (fresh / RECORD).write_text(json_text(record.as_dict()))


def record_from_file(path: Path) -> Record:
    """Reads `record.json`.

    Raises:
        CalibrationError: not a record, of an unknown format, of one whose ranges nothing binds, or changed by hand (the
            key does not match).
    """
    record = record_from_content(content_of(path, DOCUMENT_BYTES, CalibrationError))
    if record.format == UNBOUND:
        raise CalibrationError(
            f"{path} was written when a record's key did not cover its ranges yet",
            found=f"format {UNBOUND}",
            allowed=f"format {FORMAT}; in a bundle, whose hashes cover them, both",
            fix="`toolkit.calibrate` measures again; learned ranges come with training again",
        )
    return record


def record_from_content(content: Content) -> Record:
    """`record_from_file` of a file that was read, such as one of a bundle, whose hash binds it."""
    path, document = content.path, json_object(content, CalibrationError)
    if document.get("format") not in (UNBOUND, FORMAT):
        raise CalibrationError(f"{path} has an unknown format", found=document.get("format"), allowed=FORMAT)
    try:
        record = Record(
            _ranges(document["amax"], "amax"),
            _ranges(document["largest"], "largest", zero=True),
            {part: str(document["belongs_to"][part]) for part in {**document["belongs_to"], **NAMES}},
            tuple(str(image) for image in document["images"]),
            dict(document.get("notes", {})),
            _ranges(document.get("cpu", {}), "cpu"),
            int(document["format"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CalibrationError(
            f"{path} is not a calibration record", found=f"{type(error).__name__}: {error}"
        ) from error
    if document.get("key") != record.key:
        raise CalibrationError(f"{path} was changed by hand", found="its key does not match its content")
    return record


def _ranges(values: dict[str, Any], what: str, zero: bool = False) -> dict[str, float]:
    """Numbers by tensor name; each finite and above zero, or zero where a tensor may be nothing else."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{what} of {name} is {value!r}, which is no number")
        if not (math.isfinite(value) and (value > 0 or (zero and value == 0))):
            raise ValueError(f"{what} of {name} is {value}, which no tensor has")
    return {name: float(value) for name, value in values.items()}


def _sha256_of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sha256_of_graph(model: onnx.ModelProto) -> str:
    """Identity of weights and graph, without the file's metadata."""
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()


def sha256_of_image_set(images_nhwc: UInt8) -> str:
    """Identity of a set of images whatever their order."""
    return sha256_of_digests(sha256_of_each(images_nhwc))


def sha256_of_digests(digests: Iterable[bytes]) -> str:
    """Identity of a set of images by the sha256 of each, in any order."""
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def sha256_of_preprocessing(preprocessing: dict[str, Any]) -> str:
    """Identity of `Preprocessing.as_dict()`."""
    return _sha256_of_json(preprocessing)
