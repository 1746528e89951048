"""Each class by itself: what fp32 finds of it and what the others do, and what it takes for what."""

from __future__ import annotations

from toolkit.compare.classes import Classes, ClassScore
from toolkit.reporting.evidence import Evidence
from toolkit.reporting.markup import Markup, element, joined, paragraph, table
from toolkit.reporting.words import percent

MOST_CLASSES = 40  # rows of the table: of more classes the worst
MOST_MATRIX = 20  # classes whose confusion matrix fits a page; of more, the most frequent mistakes are listed
MOST_MISTAKES = 20


def recall_section(evidence: Evidence) -> Markup:
    """Recall and precision of each class, and the confusion matrix of the reference."""
    found = evidence.verify
    classes = found.classes if found is not None else None
    if found is None or not classes or found.reference not in classes:
        return paragraph("No figures of single classes: toolkit verify measured none.", class_="absent")
    reference = classes[found.reference]
    others = {name: one for name, one in classes.items() if name != found.reference}
    words = paragraph(
        f"Recall is the part of a class that is found, precision the part of its answers that are right. Balanced "
        f"accuracy, the mean recall, is {percent(reference.balanced_percent)} in {found.reference}; answering "
        f"\u2018{reference.majority}\u2019 always would be right on {percent(reference.majority_percent)}."
    )
    return joined([words, _table(found.reference, reference, others), _mistakes(found.reference, reference)])


def sentences_on_classes(evidence: Evidence) -> list[str]:
    """What top-1 hides, for the verdict."""
    found = evidence.verify
    if found is None or not found.classes:
        return []
    reference = found.classes.get(found.reference)
    warned = [f"{found.reference}: {sentence}." for sentence in reference.warnings] if reference else []
    vanished = [f"{name}: {'; '.join(sentences)}." for name, sentences in (found.vanished or {}).items()]
    return warned + vanished


def _table(name: str, reference: Classes, others: dict[str, Classes]) -> Markup:
    order = sorted(range(len(reference.per_class)), key=lambda c: _of(reference.per_class[c].recall_percent))
    shown = sorted(order[:MOST_CLASSES])
    rows = [
        (
            score.name,
            f"{score.images:,}",
            _cell(score.recall_percent, score),
            _cell(score.precision_percent, score),
            *(_cell(one.per_class[c].recall_percent, one.per_class[c]) for one in others.values()),
        )
        for c, score in ((c, reference.per_class[c]) for c in shown)
    ]
    columns = ("class", "images", "recall", "precision", *(f"recall {other}" for other in others))
    worst = f", the {len(shown)} of {len(order)} with the lowest recall" if len(shown) < len(order) else ""
    return table(f"Recall and precision of {name}, and recall of the others, in percent{worst}", columns, rows)


def _of(value: float | None) -> float:
    return 101.0 if value is None else value


def _cell(value: float | None, score: ClassScore) -> Markup:
    if value is None:
        return element("td", "\u2013", class_="number quiet")
    lost = " loss-3" if score.images and not score.right else ""
    return element("td", f"{value:.1f}", class_=f"number{lost}")


def _mistakes(name: str, classes: Classes) -> Markup:
    if not classes.mistakes:
        return Markup("")
    if len(classes.per_class) > MOST_MATRIX:
        rows = [
            (classes.per_class[m.label].name, _answer(classes, m.answer), f"{m.count:,}")
            for m in classes.mistakes[:MOST_MISTAKES]
        ]
        return table(f"What {name} takes for what, most often", ("class", "answer<", "images"), rows)
    counts = classes.matrix()
    names = [score.name for score in classes.per_class]
    columns = [*names, "no answer"] if counts[:, -1].any() else names
    matrix = [
        (names[row], *(_count(int(counts[row, column]), row == column, int(counts[row].sum())) for column, _ in
                       enumerate(columns)))
        for row in range(len(names))
    ]  # fmt: skip
    return table(f"Confusion of {name}: rows are classes, columns answers", ("class", *columns), matrix)


def _answer(classes: Classes, answer: int) -> str:
    return classes.per_class[answer].name if answer >= 0 else "no answer"


def _count(count: int, right: bool, images: int) -> Markup:
    """A tint in steps of a tenth of the class's images, as in the table of changes."""
    if not count:
        return element("td", "", class_="number")
    depth = 3 if count > 0.3 * images else 2 if count > 0.1 * images else 1
    return element("td", f"{count}", class_=f"number {'gain' if right else 'loss'}-{depth}")
