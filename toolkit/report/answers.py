"""What became of single images: the flips with their pictures, and what each class lost and gained."""

from __future__ import annotations

from toolkit.report.drawing import figure
from toolkit.report.evidence import Evidence
from toolkit.report.facts import Accuracy, Flip
from toolkit.report.markup import Markup, element, joined, paragraph, table
from toolkit.report.thumbnails import url_of_image
from toolkit.report.words import MINUS, chosen, exponent, signed

MOST_PICTURES = 24  # of each runner: the surest flips say most, and a page stays a page
MOST_BYTES = 600_000  # of all pictures together: the page is to be mailed
MOST_CLASSES = 40


def flips_section(evidence: Evidence) -> Markup:
    """The images that each runner answers otherwise than fp32, surest first."""
    if not evidence.accuracies:
        return paragraph("No flips: there is no document of toolkit verify.", class_="absent")
    flipping = [found for found in evidence.accuracies if found.flips]
    if not flipping:
        same = f"Every runner gave fp32's answer for every one of {evidence.accuracies[0].images:,} images: no flips."
        return joined([paragraph(same), _counts(evidence.accuracies), _sources(evidence)])
    room = MOST_BYTES // len(flipping)
    words = paragraph(
        "An image flips when the top answer is not that of fp32. The margin is how sure fp32 was, its best logit minus "
        "the second: flips of small margin are a coin that fell the other way, flips of large margin deserve a look."
    )
    return joined(
        [
            words,
            _counts(evidence.accuracies),
            _sources(evidence),
            *(_of_runner(evidence, found, room) for found in flipping),
        ]
    )


def _counts(accuracies: tuple[Accuracy, ...]) -> Markup:
    rows = [
        (
            found.runner,
            f"{found.flips}",
            f"{found.lost}",
            f"{found.gained}",
            f"{found.flips - found.lost - found.gained}",
            f"{found.mcnemar_p:.2g}",
            exponent(found.relative_l2),
        )
        for found in accuracies
    ]
    columns = ("runner", "flips", "lost", "gained", "wrong both times", "McNemar's p", "rel. L2 of logits")
    return table(f"Against {accuracies[0].reference}, on {accuracies[0].images:,} images", columns, rows)


def _sources(evidence: Evidence) -> Markup:
    """Quantization error and backend error apart."""
    if not evidence.sources:
        return Markup("")
    rows = [
        (
            f"{source.before} \u2192 {source.after}",
            source.kind,
            f"{source.flips}",
            exponent(source.relative_l2),
            "\u2013" if source.max_abs_dlogit is None else f"{source.max_abs_dlogit:.2g}",
        )
        for source in evidence.sources
    ]
    columns = ("step", "what it changes<", "flips", "rel. L2 of logits", "largest change of a logit")
    return table("One step at a time: the error of quantization and that of the backend apart", columns, rows)


def _of_runner(evidence: Evidence, found: Accuracy, room: int) -> Markup:
    title = f"{found.runner}: {chosen(found.flips, 'flip', 'flips')}"
    if not found.flipped:
        return paragraph(f"{title}; the document does not say which images.", class_="absent")
    if evidence.pixels_nhwc is None:
        note = "The images that were judged are not at hand here, so there are no pictures."
        return joined([element("h3", title), paragraph(note, class_="absent"), _list(evidence, found)])
    cards = _cards(evidence, found, room)
    caption = f"The {len(cards)} surest of {found.flips}." if len(cards) < found.flips else ""
    return figure(title, caption, element("ul", *cards, class_="flips"))


def _cards(evidence: Evidence, found: Accuracy, room: int) -> list[Markup]:
    """As many of the surest flips as fit into `room` bytes."""
    cards: list[Markup] = []
    for flip in found.flipped[:MOST_PICTURES]:
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
    margin = Markup("") if flip.margin is None else element("p", f"margin {flip.margin:.2f}", class_="margin")
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


def _list(evidence: Evidence, found: Accuracy) -> Markup:
    rows = [
        (
            f"{flip.index}",
            _name(evidence, flip.label),
            _name(evidence, flip.reference_answer),
            _name(evidence, flip.candidate_answer),
            "\u2013" if flip.margin is None else f"{flip.margin:.2f}",
        )
        for flip in found.flipped[:MOST_PICTURES]
    ]
    return table(f"Flips of {found.runner}", ("image", "label<", "fp32<", "here<", "margin"), rows)


def classes_section(evidence: Evidence) -> Markup:
    """Right answers that each class lost and gained in each runner, as a table whose cells are tinted."""
    known = [found for found in evidence.accuracies if found.per_class and found.runner != found.reference]
    if not known:
        return paragraph("No figures by class: the document of toolkit verify holds none.", class_="absent")
    labels = range(len(known[0].per_class))
    changed = [c for c in labels if any(f.per_class[c].lost or f.per_class[c].gained for f in known)]
    if not changed:
        return paragraph("No class lost or gained a right answer in any runner.")
    order = sorted(changed, key=lambda c: -max(f.per_class[c].lost + f.per_class[c].gained for f in known))
    shown = sorted(order[:MOST_CLASSES])
    rows = [
        (
            _name(evidence, known[0].per_class[c].label),
            f"{known[0].per_class[c].images:,}",
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


def _any(known: list[Accuracy]) -> bool:
    return any(row.moved for found in known for row in found.per_class)


def _cell(found: Accuracy, label: int) -> Markup:
    row = found.per_class[label]
    net = row.gained - row.lost
    if not row.lost and not row.gained:
        return element("td", "0", class_="number quiet")
    # In steps of one per cent of the class's images: a tint is read as "some" or "much", not as a number.
    depth = min(3, 1 + int(100 * abs(net) / max(row.images, 1))) if net else 0
    tint = f"{'gain' if net > 0 else 'loss'}-{depth}" if depth else ""
    both = element("small", f" {MINUS}{row.lost} +{row.gained}")
    return element("td", signed(net, 0), both, class_=f"number {tint}{' moved' if row.moved else ''}".strip())
