"""What people see of single classes: what top-1 hides in the first line, recall and precision, the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from toolkit.cli.console import note, red, say, table
from toolkit.compare.classes import Classes, ClassScore

MOST_CLASSES = 12  # of more, the worst
MOST_MISTAKES = 3


def show_warnings(classes: Classes | None, vanished: Mapping[str, Sequence[str]] | None = None) -> None:
    """The first line where there is something that top-1 hides."""
    for sentence in classes.warnings if classes is not None else ():
        say(red(sentence))
    for name, sentences in (vanished or {}).items():
        say(red(f"{name} never finds what fp32 finds"), f": {'; '.join(sentences)}")


def show_classes(title: str, classes: Classes | None, others: Mapping[str, Classes] | None = None) -> None:
    """Recall and precision of every class, or of the worst of many, and the lowest recall of other runners."""
    if classes is None:
        return
    ranked = sorted(range(len(classes.per_class)), key=lambda c: _recall(classes.per_class[c]))
    shown = sorted(ranked[:MOST_CLASSES])
    columns = ["class", "images", "recall", "precision", *(["lower elsewhere<"] if others else [])]
    rows = [
        (
            score.name, f"{score.images:,}", _percent(score.recall_percent), _percent(score.precision_percent),
            *([_lowest(others, c, score)] if others else []),
        )
        for c, score in ((c, classes.per_class[c]) for c in shown)
    ]  # fmt: skip
    many = f", the {len(shown)} of {len(ranked)} with the lowest recall" if len(shown) < len(ranked) else ""
    table(f"{title}, class by class{many}", columns, rows)
    taken = "; ".join(
        f"{classes.per_class[m.label].name} for {_answer(classes, m.answer)} ({m.count:,})"
        for m in classes.mistakes[:MOST_MISTAKES]
    )
    balance = f"balanced accuracy {classes.balanced_percent:.1f} %"
    share = f"the largest class, {classes.majority}, is {classes.majority_percent:.1f} % of the images"
    note(f"{balance}; {share}" + (f"; most often taken: {taken}" if taken else ""))


def _recall(score: ClassScore) -> float:
    return 101.0 if score.recall_percent is None else score.recall_percent


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} %"


def _answer(classes: Classes, answer: int) -> str:
    return classes.per_class[answer].name if answer >= 0 else "no answer"


def _lowest(others: Mapping[str, Classes], index: int, here: ClassScore) -> str:
    found = {name: classes.per_class[index].recall_percent for name, classes in others.items()}
    known = {name: recall for name, recall in found.items() if recall is not None}
    if not known or min(known.values()) >= _recall(here):
        return ""
    name = min(known, key=lambda name: known[name])
    return f"{known[name]:.1f} %  {name}"
