"""The images that flipped, as one PNG a runner: each enlarged, with its label and both answers under it."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any

from toolkit.compare.flips import MOST_LISTED, Flip
from toolkit.errors import ToolkitError
from toolkit.lazy import needs
from toolkit.storage.files import json_text, read_json
from toolkit.storage.folders import folder_replaced
from toolkit.storage.replacing import require_replaceable
from toolkit.verification.result import Verification

LISTED = "flips.json"  # says whose folder it is, so that no other is ever replaced
TILE, CAPTION, GAP, COLUMNS = 128, 46, 8, 8
INK, GOOD, BAD = (30, 30, 30), (0, 110, 50), (180, 30, 30)


def write_contact_sheets(folder: Path, found: Verification) -> list[Path]:
    """Writes `flips.json` and, for each runner that flipped any image, `RUNNER.png`; whole or not at all.

    At most `MOST_LISTED` images a sheet, those first of which the reference was surest.

    Raises:
        ToolkitError: the folder is somebody else's or cannot be written. MissingPackage: Pillow cannot be imported.
    """
    names = {name: _file_name(name) for name, pair in found.pairs.items() if pair.flips.flipped}
    with folder_replaced(folder, LISTED, _own_files(folder).__contains__) as fresh:
        for name, file in names.items():
            (fresh / file).write_bytes(_contact_sheet(found, name))
        flipped = {name: pair.flips.as_dict()["flipped"] for name, pair in found.pairs.items()}
        listed = {"images_sha256": found.images.sha256, "labels": list(found.labels), "flipped": flipped}
        (fresh / LISTED).write_text(json_text(listed))
    return [folder / file for file in names.values()]


def _own_files(folder: Path) -> set[str]:
    """What an earlier call wrote there, by its own list."""
    ours = (b'"images_sha256"', b'"flipped"')
    require_replaceable(folder / LISTED, "list of flips", lambda data: all(w in data for w in ours), "save_worst")
    if not (folder / LISTED).is_file():
        return set()
    return {LISTED, *(_file_name(name) for name in read_json(folder / LISTED, ToolkitError).get("flipped", {}))}


def _file_name(runner: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", runner).strip("-.") + ".png"


def _contact_sheet(found: Verification, name: str) -> bytes:
    with needs("write images"):
        from PIL import Image, ImageDraw
    assert found.judged is not None  # a verification of this process has its images
    pair, images_nhwc = found.pairs[name], found.judged.images_nhwc
    flips = pair.flips.flipped[:MOST_LISTED]
    rows = math.ceil(len(flips) / COLUMNS)
    width = GAP + min(COLUMNS, max(len(flips), 4)) * (TILE + GAP)
    sheet = Image.new("RGB", (width, 30 + rows * (TILE + CAPTION + GAP) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    shown = "" if len(flips) == pair.parity.flips else f", the {len(flips)} surest"
    draw.text((GAP, GAP), f"{name}: {pair.parity.flips} flips against {pair.parity.reference}{shown}", fill=INK)
    for place, flip in enumerate(flips):
        left, top = GAP + place % COLUMNS * (TILE + GAP), 30 + place // COLUMNS * (TILE + CAPTION + GAP)
        sheet.paste(_tile(images_nhwc[flip.index]), (left, top))
        _caption(draw, left, top + TILE + 2, flip, found)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _tile(pixels: Any) -> Any:
    """One image (H, W, C), enlarged with its pixels visible, its longer side `TILE`."""
    from PIL import Image

    height, width, channels = pixels.shape
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels).convert("RGB")
    scale = TILE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return image.resize(size, Image.Resampling.NEAREST)


def _caption(draw: Any, left: int, top: int, flip: Flip, found: Verification) -> None:
    """Label, then what the reference said and what the candidate says, green where right."""
    before, after = _words(found, flip.reference_answer), _words(found, flip.candidate_answer)
    lines = [
        (f"#{flip.index} {_words(found, flip.label)}", INK),
        (f"was {before}", GOOD if flip.reference_answer == flip.label else BAD),
        (f"now {after}", GOOD if flip.candidate_answer == flip.label else BAD),
    ]
    for number, (text, color) in enumerate(lines):
        draw.text((left, top + 14 * number), text, fill=color)


def _words(found: Verification, answer: int) -> str:
    """A label cut to the width of a tile, in letters that Pillow's own font has."""
    label = found.labels[answer] if answer >= 0 else "no answer"
    return label.encode("latin-1", "replace").decode("latin-1")[:16]
