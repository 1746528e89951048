"""What became of single images: the flips with their pictures, and what each class lost and gained."""

from __future__ import annotations

import base64
import math
import struct
import zlib

import numpy as np

from toolkit.compare.flips import Flip
from toolkit.contracts import UInt8
from toolkit.reporting.drawing import figure
from toolkit.reporting.evidence import Evidence
from toolkit.reporting.markup import Markup, element, joined, paragraph, table
from toolkit.reporting.words import MINUS, chosen, exponent, signed
from toolkit.verification.result import Pair

MOST_PICTURES = 24  # of each runner: the surest flips say most, and a page stays a page
PICTURES_IN_ALL = 96  # of many runners each has fewer
MOST_BYTES = 600_000  # of all pictures together: the page is to be mailed
MOST_CLASSES = 40
LARGEST_SIDE = 96  # pixels of a side; larger images are thinned, a flip is seen at that size


def flips_section(evidence: Evidence) -> Markup:
    """The images that each runner answers otherwise than fp32, surest first."""
    if not evidence.pairs:
        return paragraph("No flips: there is no document of toolkit verify.", class_="absent")
    flipping = [pair for pair in evidence.pairs if pair.parity.flips]
    if not flipping:
        same = f"Every runner gave fp32's answer for every one of {evidence.pairs[0].score.images:,} images: no flips."
        return joined([paragraph(same), _counts(evidence.pairs), _sources(evidence)])
    room, most = MOST_BYTES // len(flipping), max(4, min(MOST_PICTURES, PICTURES_IN_ALL // len(flipping)))
    words = paragraph(
        "An image flips when the top answer is not that of fp32. The margin is how sure fp32 was, its best logit minus "
        "the second: flips of small margin are a coin that fell the other way, flips of large margin deserve a look."
    )
    return joined(
        [
            words,
            _counts(evidence.pairs),
            _sources(evidence),
            *(_of_runner(evidence, pair, room, most) for pair in flipping),
        ]
    )


def _counts(pairs: tuple[Pair, ...]) -> Markup:
    rows = [
        (
            found.candidate,
            f"{found.flips}",
            f"{found.lost}",
            f"{found.gained}",
            f"{found.changed}",
            f"{found.mcnemar_p:.2g}",
            exponent(found.relative_l2),
        )
        for found in (pair.parity for pair in pairs)
    ]
    columns = ("runner", "flips", "lost", "gained", "wrong both times", "McNemar's p", "rel. L2 of logits")
    return table(f"Against {pairs[0].parity.reference}, on {pairs[0].score.images:,} images", columns, rows)


def _sources(evidence: Evidence) -> Markup:
    """Quantization error and backend error apart."""
    if not evidence.sources:
        return Markup("")
    rows = [
        (
            f"{source.parity.reference} \u2192 {source.parity.candidate}",
            source.kind.replace("quantisation", "quantization"),  # the document keeps the word it was published with
            f"{source.parity.flips}",
            exponent(source.parity.relative_l2),
            f"{source.parity.max_abs_dlogit:.2g}" if math.isfinite(source.parity.max_abs_dlogit) else "\u2013",
        )
        for source in evidence.sources
    ]
    columns = ("step", "what it changes<", "flips", "rel. L2 of logits", "largest change of a logit")
    return table("One step at a time: the error of quantization and that of the backend apart", columns, rows)


def _of_runner(evidence: Evidence, pair: Pair, room: int, most: int) -> Markup:
    title = f"{pair.runner}: {chosen(pair.parity.flips, 'flip', 'flips')}"
    if evidence.pixels_nhwc is None:
        note = "The images that were judged are not at hand here, so there are no pictures."
        return joined([element("h3", title), paragraph(note, class_="absent"), _list(evidence, pair, most)])
    cards = _cards(evidence, pair, room, most)
    flips = pair.parity.flips
    caption = f"The {len(cards)} surest of {flips}." if len(cards) < flips else ""
    return figure(title, caption, element("ul", *cards, class_="flips"))


def _cards(evidence: Evidence, pair: Pair, room: int, most: int) -> list[Markup]:
    """As many of the surest flips as fit into `room` bytes, `most` at the most."""
    cards: list[Markup] = []
    for flip in pair.flips.flipped[:most]:
        card = _card(evidence, flip)
        room -= len(card)
        if room < 0 and cards:
            break
        cards.append(card)
    return cards


def _name(evidence: Evidence, answer: int) -> str:
    if answer < 0:
        return "no finite answer"
    return evidence.labels[answer] if answer < len(evidence.labels) else f"class {answer}"


def _card(evidence: Evidence, flip: Flip) -> Markup:
    pixels = evidence.pixels_nhwc
    label, before, after = (_name(evidence, n) for n in (flip.label, flip.reference_answer, flip.candidate_answer))
    picture: Markup = Markup("")
    if pixels is not None and 0 <= flip.index < len(pixels):
        says = f"image {flip.index}, {label}"
        picture = element("img", src=url_of_image(pixels[flip.index]), alt=says, width=72, height=72)
    margin = element("p", f"margin {flip.margin:.2f}", class_="margin")
    return element(
        "li",
        picture,
        element(
            "div",
            element("p", label, class_="truth"),
            _answer("fp32", before, flip.reference_answer == flip.label),
            _answer("here", after, flip.candidate_answer == flip.label),
            margin,
        ),
    )


def _answer(who: str, answer: str, right: bool) -> Markup:
    mark = element("span", "\u2713" if right else "\u2717", class_="right" if right else "wrong", aria_hidden="true")
    said = element("span", " right" if right else " wrong", class_="aloud")
    return element("p", element("span", who, class_="who"), " ", mark, " ", answer, said)


def _list(evidence: Evidence, pair: Pair, most: int) -> Markup:
    rows = [
        (
            f"{flip.index}",
            _name(evidence, flip.label),
            _name(evidence, flip.reference_answer),
            _name(evidence, flip.candidate_answer),
            f"{flip.margin:.2f}",
        )
        for flip in pair.flips.flipped[:most]
    ]
    return table(f"Flips of {pair.runner}", ("image", "label<", "fp32<", "here<", "margin"), rows)


def classes_section(evidence: Evidence) -> Markup:
    """Right answers that each class lost and gained in each runner, as a table whose cells are tinted."""
    known = [pair for pair in evidence.pairs if pair.runner != pair.parity.reference]
    if not known:
        return paragraph("No figures by class: no runner was compared with fp32.", class_="absent")
    labels = range(len(known[0].flips.per_class))
    changed = [c for c in labels if any(f.flips.per_class[c].lost or f.flips.per_class[c].gained for f in known)]
    if not changed:
        return paragraph("No class lost or gained a right answer in any runner.")
    order = sorted(changed, key=lambda c: -max(f.flips.per_class[c].lost + f.flips.per_class[c].gained for f in known))
    shown = sorted(order[:MOST_CLASSES])
    rows = [
        (
            _name(evidence, known[0].flips.per_class[c].label),
            f"{known[0].flips.per_class[c].images:,}",
            *(_cell(found, c) for found in known),
        )
        for c in shown
    ]
    quiet = len(labels) - len(shown)
    chance = "A bold change is" if _any(known) else "None of the changes is"
    words = paragraph(
        f"Net change of right answers, with what was lost and gained. {chance} more than chance (McNemar's exact p, "
        "adjusted for all classes by Holm's method, below 0.05)."
        + (f" {chosen(quiet, 'class', 'classes')} without change, or with the least, not shown." if quiet else "")
    )
    grid = table("Change of right answers by class", ("class", "images", *(f.runner for f in known)), rows)
    return joined([words, grid])


def _any(known: list[Pair]) -> bool:
    return any(row.moved for found in known for row in found.flips.per_class)


def _cell(found: Pair, label: int) -> Markup:
    row = found.flips.per_class[label]
    net = row.gained - row.lost
    if not row.lost and not row.gained:
        return element("td", "0", class_="number quiet")
    # In steps of one per cent of the class's images: a tint is read as "some" or "much", not as a number.
    depth = min(3, 1 + int(100 * abs(net) / max(row.images, 1))) if net else 0
    tint = f"{'gain' if net > 0 else 'loss'}-{depth}" if depth else ""
    both = element("small", f" {MINUS}{row.lost} +{row.gained}")
    return element("td", signed(net, 0), both, class_=f"number {tint}{' moved' if row.moved else ''}".strip())


def png_of_image(image_hwc: UInt8) -> bytes:
    """A PNG of uint8 (H, W, C), gray for C 1 and RGB for C 3."""
    height, width, channels = image_hwc.shape
    rows = np.ascontiguousarray(image_hwc).reshape(height, width * channels)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)  # filter type 0 before each row
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    data = zlib.compress(filtered.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def url_of_image(image_hwc: UInt8) -> str:
    """A `data:` URL of an image uint8 (H, W, C), at most `LARGEST_SIDE` pixels a side."""
    step = max(1, -(-max(image_hwc.shape[:2]) // LARGEST_SIDE))
    return "data:image/png;base64," + base64.b64encode(png_of_image(image_hwc[::step, ::step])).decode()
