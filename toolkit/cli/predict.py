"""`toolkit predict`: the labels of image files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from toolkit.cli import options

MOST_SHOWN = 30


def command(
    source: Path = typer.Argument(..., metavar="BUNDLE|MODEL", help="A bundle's folder, tar or name, or a model's."),
    files: list[Path] = typer.Argument(..., metavar="IMAGE...", help="Image files, or folders of such."),
    top: int = typer.Option(3, "--top", min=1, help="How many labels of each image."),
    csv: Path | None = typer.Option(None, "--csv", metavar="FILE.csv", help="A line an image, for a spreadsheet."),
    backend: str = typer.Option("auto", "--backend", help="auto, trt or ort; a model runs on torch."),
    precision: str = typer.Option("best", "--precision", help="fp32, fp16, int8, int8-fp16, int8-cpu, or best."),
    convert: bool = typer.Option(False, "--convert", help="Resize and convert images that do not fit."),
    resize: str | None = options.RESIZE,
    key: Path | None = options.KEY,
    min_version: int | None = options.MIN_VERSION,
) -> dict[str, Any]:
    """Classify image files with a bundle, on any backend, or with a model that was just trained.

    Exits 1 where a file could not be read; the others are answered.

    Examples:
      toolkit predict bundles/my-net photo.png

      toolkit predict my-net photos/ --top 5 --csv answers.csv --convert
    """
    from toolkit.cli.console import note, red, say, steps, table
    from toolkit.deployment.predict import HEADER, predict
    from toolkit.storage.files import write_bytes
    from toolkit.storage.replacing import require_replaceable

    if csv is not None:
        require_replaceable(csv, "answers of toolkit predict", lambda data: data.startswith(HEADER.encode()), "csv")
    with steps() as step:
        found = predict(
            source, files, top=top, backend=backend, precision=precision, convert=convert, resize=resize, key=key,
            min_version=min_version, on_step=step,
        )  # fmt: skip
    note(f"{found.kind}: {found.model}, {found.runner}")
    rows = [
        (image.file.name, image.label, f"{100 * image.probability:.1f} %",
         ", ".join(f"{guess.label} {100 * guess.probability:.1f} %" for guess in image.top[1:]))
        for image in found.images[:MOST_SHOWN]
    ]  # fmt: skip
    if rows:
        count = "1 image" if len(rows) == 1 else f"{len(found.images):,} images"
        table(count, ("file", "answer<", "probability", "then<"), rows)
    if len(found.images) > MOST_SHOWN:
        note(f"{len(found.images) - MOST_SHOWN:,} more: --csv FILE.csv has them all")
    for file, reason in found.unreadable.items():
        say(red(f"{file} cannot be read"), f": {reason}")
    if csv is not None:
        write_bytes(csv, found.as_csv().encode())
        say(f"{csv}: {len(found.images):,} lines")
    return found.as_dict()
