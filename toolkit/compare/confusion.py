"""The confusion matrix as a picture: a row a class, a column an answer, the shade a share of the row."""

from __future__ import annotations

import io

import numpy as np

from toolkit.compare.classes import Classes
from toolkit.lazy import needs

MOST_NUMBERS = 20  # classes whose counts are legible in their cells
MOST_NAMES = 60  # and whose names are


def confusion_png(classes: Classes, title: str) -> bytes:
    """A PNG; answers that are no numbers have a column of their own where there are any.

    Raises:
        MissingPackage: matplotlib is not installed.
    """
    with needs("draw the confusion matrix"):
        from matplotlib.figure import Figure
    counts = classes.matrix()
    names = [score.name for score in classes.per_class]
    columns = [*names, "no answer"] if counts[:, -1].any() else names
    counts = counts[:, : len(columns)]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(4.0, 0.45 * len(names) + 2), 14.0)
    figure = Figure(figsize=(side + 1, side), dpi=100, layout="constrained")  # no pyplot: no display, no global state
    axes = figure.subplots()
    drawn = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    axes.set_title(title, parse_math=False)
    axes.set_xlabel("answer")
    axes.set_ylabel("class")
    if len(names) <= MOST_NAMES:
        axes.set_xticks(range(len(columns)), columns, rotation=90, parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
    if len(names) <= MOST_NUMBERS:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                shade = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, f"{count}", ha="center", va="center", fontsize=8, color=shade)
    figure.colorbar(drawn, ax=axes, label="of the class's images [%]", shrink=0.8)
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()
