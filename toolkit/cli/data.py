"""`toolkit data`: the sets that are here, and what is in a folder of images."""

from __future__ import annotations

from typing import Any

import typer

from toolkit.cli import options


def command(
    spec: str | None = typer.Argument(
        None, metavar="[DATA]", help="fashion-mnist, cifar10, a folder of class folders, a .npz. (default: none)"
    ),
    download: bool = typer.Option(False, "--download", help="Fetch a named set that is not installed, and verify it."),
    convert: bool = typer.Option(False, "--convert", help="Resize and convert images that do not fit."),
    resize: str | None = options.RESIZE,
    size: str | None = typer.Option(
        None, "--size", help="Height x width x channels: 28x28x1. (default: the images'; with --convert 32x32x3)"
    ),
    skip_bad: bool = typer.Option(False, "--skip-bad", help="Leave damaged files of a folder out, aloud."),
) -> dict[str, Any]:
    """Say which sets are here; of one, what is in it and what deserves a look before it is trained on.

    Class names that may be one class, tiny and uneven classes, test images that are training images too, images under
    two labels.

    Examples:
      toolkit data

      toolkit data photos/ --convert

      toolkit data fashion-mnist --download
    """
    from toolkit.cli.console import bold, say, steps, table, yellow
    from toolkit.cli.train_tables import show_data
    from toolkit.data.source import inspect_data
    from toolkit.training.train import TrainingData

    with steps() as step:
        found = inspect_data(
            spec, download=download, convert=convert, resize=resize, size=options.size_from_text(size),
            skip_bad=skip_bad, on_progress=lambda done, total: step("read images", done, total),
        )  # fmt: skip
    if found.data is None:
        table("Named sets", ("name", "here<"), list(found.sets.items()))
        say("Next: ", bold("toolkit data FOLDER"), " looks at your own images.")
        return found.as_dict()
    show_data(TrainingData(found.data, 0, tuple(found.data["skipped"])))
    for finding in found.findings:
        say(yellow(finding.kind), f": {finding.what}")
    if not found.findings:
        say("Nothing here deserves a second look.")
    return found.as_dict()
