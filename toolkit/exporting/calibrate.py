"""`toolkit.calibrate`: ranges from images, as a record that `toolkit.export` takes; and what INT8 costs each layer."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from toolkit.calibration.plausibility import require_plausible
from toolkit.calibration.record import RECORD, Record, write_record
from toolkit.contracts import UInt8
from toolkit.errors import CalibrationError, ToolkitError
from toolkit.exporting.artifacts import require_layers
from toolkit.exporting.options import CalibrateOptions, PathLike, Step, UserModel
from toolkit.exporting.subject import Subject, subject_of
from toolkit.quantization.charts import png_of_bars
from toolkit.quantization.choose_method import Candidate, Choice, ranges_by_parity
from toolkit.quantization.held_out import held_out
from toolkit.quantization.sensitivity import Sensitivities, sensitivities_of_layers
from toolkit.storage.documents import Document
from toolkit.storage.files import json_text, read_json
from toolkit.storage.folders import folder_replaced
from toolkit.storage.hints import Count, Sha256
from toolkit.storage.replacing import date_of, require_replaceable
from toolkit.workspace import workspace

SENSITIVITY, CHART = "sensitivity.json", "sensitivity.png"


@dataclass(frozen=True)
class Calibration:
    """Ranges of a model's activations, and how their method was chosen.

    Attributes:
        model: its name.
        record: the ranges, and the key that says what they belong to.
        candidates: the methods that were compared, best first; empty where one was named.
        why: one sentence about the choice; empty where a method was named.
    """

    model: str
    record: Record
    candidates: tuple[Candidate, ...]
    why: str

    def save(self, folder: PathLike | None = None, force: bool = False) -> Path:
        """Writes record.json into a folder, None calibration/MODEL.record of the workspace; returns the file's path.

        Args:
            force: replace the ranges of another network, too.

        Raises:
            ToolkitError: the folder belongs to something else, holds a record of another network, or cannot be written.
        """
        self.require_place(folder, force)
        place = self._place(folder)
        write_record(place, self.record)
        return place / RECORD

    def require_place(self, folder: PathLike | None = None, force: bool = False) -> None:
        """Refuses a folder whose `record.json` is of another network, or no record; the model's own is replaced.

        Raises:
            ToolkitError: says what is there.
        """
        path = self._place(folder) / RECORD
        others = self._others_in(path)
        if others is None or force or (folder is None and others):
            return
        raise ToolkitError(
            f"{path} is there already, and " + ("of another network" if others else "no record of ranges"),
            found=others or f"{path.stat().st_size:,} bytes of {date_of(path)}",
            fix="choose another `output=`, or `force=True` to replace it",
        )

    def replaces_in(self, folder: PathLike | None = None) -> str:
        """What `save` would write over there that is of another network, for people; else nothing."""
        others = self._others_in(self._place(folder) / RECORD)
        return f"replaced what was there: {others or 'no record'}" if others is not None else ""

    def _others_in(self, path: Path) -> str | None:
        """What a record there is, if not of this network; empty where it is no record; None where nothing is lost."""
        if not path.is_file():
            return None
        try:
            document = read_json(path, CalibrationError)
            found, images = document["belongs_to"], document["images"]
            own = found["graph_sha256"] == self.record.belongs_to["graph_sha256"]
            return None if own else f"{found['method']} of {len(images)} images, of {date_of(path)}"
        except (CalibrationError, KeyError, TypeError):
            return ""

    def _place(self, folder: PathLike | None) -> Path:
        return workspace() / "calibration" / f"{self.model}.record" if folder is None else Path(folder)

    def saved_as(self, path: Path) -> Calibrated:
        """What is printed of it, once it lies in a file."""
        record = self.record
        return Calibrated(
            True, path.resolve(), record.key, record.belongs_to, len(record.images), self.candidates, record.notes
        )


@dataclass(frozen=True)
class Calibrated(Document):
    """What toolkit calibrate prints.

    Attributes:
        record: the file that was written.
        key: says what the ranges belong to, in one hash.
        belongs_to: the parts of that: hashes of graph, images and preprocessing, method, observer.
        images: that were measured.
        candidates: each method that was tried, best first; none where the method was named.
        notes: what the record says besides.
    """

    SCHEMA = "toolkit/calibrate/1"
    ok: Literal[True]
    record: Path
    key: Sha256
    belongs_to: dict[str, Any]
    images: Count
    candidates: tuple[Candidate, ...]
    notes: dict[str, Any]


def calibrate(
    model: PathLike | None = None,
    images: PathLike | UInt8 | None = None,
    options: CalibrateOptions = CalibrateOptions(),
    *,
    user: UserModel | None = None,
    on_step: Step = lambda what, done, total: None,
) -> Calibration:
    """Measures ranges in one pass over the images; with the method "auto" parity with fp32 chooses among all.

    Args:
        model: a name in models/, a model folder, FILE.onnx (a bundle's or your own), `package.module:build`; None is
            the shipped default.
        images: a named set, a folder of class folders, an .npz, or uint8 (N, H, W, C); None takes the model's own.
        user: what a network of your own leaves open.
        on_step: called with (what is being done, done, total).

    Raises:
        ToolkitError: the model or the images cannot be used, or no range can be measured.
    """
    subject = subject_of(model, images, user, options.reading(on_step))
    choice = _measured(subject, options, on_step)
    return Calibration(subject.name, choice.record, choice.candidates, choice.why)


def _measured(subject: Subject, options: CalibrateOptions, on_step: Step) -> Choice:
    require_layers(subject.graph, "export it without `int8=`: there is nothing to calibrate")
    pixels = subject.images.images_nhwc
    method, percentile = options.measuring(subject.recipe)
    return ranges_by_parity(
        subject.graph,
        pixels,
        subject.preprocessing,
        method=method,
        percentile=percentile,
        notes=require_plausible(pixels, options.force, subject.typed),
        on_step=on_step,
    )


def sensitivities_of_model(
    model: PathLike | None = None,
    images: PathLike | UInt8 | None = None,
    options: CalibrateOptions = CalibrateOptions(),
    *,
    user: UserModel | None = None,
    on_step: Step = lambda what, done, total: None,
) -> Sensitivities:
    """What INT8 costs in each layer alone, with the arguments of `calibrate`.

    Raises:
        ToolkitError: as `calibrate`, or there are too few images to hold some out.
    """
    subject = subject_of(model, images, user, options.reading(on_step))
    record, pixels = _measured(subject, options, on_step).record, subject.images.images_nhwc
    held = pixels[held_out(pixels)]
    if len(held) == 0:
        raise CalibrationError("too few images to hold some out", found=len(pixels), allowed="at least 8")
    layers = sensitivities_of_layers(
        subject.graph, record, held, lambda done, total: on_step("quantize each layer", done, total)
    )
    return Sensitivities(True, subject.name, record.belongs_to["method"], record.key, len(held), tuple(layers))


def title_of(found: Sensitivities) -> str:
    """What its table and its chart show."""
    return f"INT8 in one layer alone, {found.method}, {found.images} held-out images"


def save_sensitivities(found: Sensitivities, folder: PathLike | None = None) -> Sensitivities:
    """Writes sensitivity.json and a chart, into calibration/MODEL.sensitivity unless told otherwise; says where."""
    place = workspace() / "calibration" / f"{found.model}.sensitivity" if folder is None else Path(folder)
    bars = [(layer.node, layer.parity.relative_l2, f"{100 * layer.parity.relative_l2:.3f} %") for layer in found.layers]
    ours = f'"model": {json.dumps(found.model)}'.encode()
    require_replaceable(place / SENSITIVITY, f"sensitivity of {found.model}", lambda data: ours in data, "output")
    with folder_replaced(place, SENSITIVITY, (SENSITIVITY, CHART).__contains__) as fresh:
        (fresh / SENSITIVITY).write_text(json_text(found.as_dict()))
        (fresh / CHART).write_bytes(png_of_bars(f"{found.model}: {title_of(found)}", bars))
    return replace(found, folder=place.resolve())
