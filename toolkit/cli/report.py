"""`toolkit report`: one page that a manager and an engineer both use."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from toolkit.bundle.reading import Bundle
    from toolkit.report.evidence import Evidence


def command(
    bundle: Path | None = typer.Argument(None, help="A bundle's folder or tar. (default: the newest in bundles/)"),
    output: Path = typer.Option(Path("report.html"), "-o", "--output", help="The page to write."),
    verify: Path | None = typer.Option(
        None, "--verify", help="What toolkit verify printed. (default: it is run now, on every backend here)"
    ),
    bench: Path | None = typer.Option(None, "--bench", help="What toolkit bench printed. (default: it is run now)"),
    sensitivity: Path | None = typer.Option(
        None, "--sensitivity", help="sensitivity.json. (default: that of calibration/MODEL.sensitivity, if any)"
    ),
    markdown: Path | None = typer.Option(None, "--markdown", help="Write a model card in Markdown too."),
    data: str | None = typer.Option(
        None, "--data", help="The images that judge, as in toolkit verify. (default: the model's own)"
    ),
    images: int | None = typer.Option(None, "--images", min=1, help="Draw so many of the images."),
    gate: float | None = typer.Option(
        None, "--gate", min=0, max=100, help="Percent of fp32's right answers to keep, as in toolkit verify."
    ),
) -> dict[str, Any]:
    """Write one self-contained HTML page: what to deploy, what it costs, how that was measured.

    Examples:
      toolkit report

      toolkit report bundles/my-net -o my-net.html --markdown CARD.md --data fashion-mnist

      toolkit report bundles/my-net --verify verify.json --bench bench.json
    """
    from toolkit.bundle.reading import bundle_from_folder
    from toolkit.cli.console import note, plain, say
    from toolkit.files import write_together
    from toolkit.report.markdown import card_from_evidence
    from toolkit.report.page import page_from_evidence
    from toolkit.report.result import Deploy, Reported, WrittenFile
    from toolkit.report.verdict import choice_from_evidence, reservations, sentence
    from toolkit.version import __version__

    opened = bundle_from_folder(bundle)
    note(f"bundle: {opened.folder}")
    _require_apart(opened, {"-o": output, "--markdown": markdown}, (verify, bench, sensitivity))
    evidence = _evidence(opened, verify, bench, sensitivity, data, images, gate)
    pages = [(output, page_from_evidence(evidence))]
    pages += [(markdown, card_from_evidence(evidence))] if markdown else []
    contents = {path: text.encode() for path, text in pages}
    write_together(contents)
    files = tuple(WrittenFile(path.resolve(), len(content)) for path, content in contents.items())
    choice = choice_from_evidence(evidence)
    say(plain(f"{output}: {sentence(evidence, choice)}"))
    return Reported(
        ok=True,
        tool=__version__,
        bundle=opened.folder.resolve(),
        model=opened.model,
        manifest_sha256=evidence.manifest_sha256,
        verdict=sentence(evidence, choice),
        deploy=None if choice is None else Deploy(choice.runner, evidence.file_of(choice.runner)),
        not_covered=tuple(reservations(evidence, choice)),
        files=files,
    ).as_dict()


def _require_apart(bundle: Bundle, written: dict[str, Path | None], read: tuple[Path | None, ...]) -> None:
    """Two pages, and neither is what they are made from."""
    from toolkit.bundle.reading import require_apart
    from toolkit.errors import ToolkitError

    taken = {os.path.realpath(path) for path in read if path is not None}
    for option, path in written.items():
        if path is None:
            continue
        require_apart(bundle, path, option)
        if os.path.realpath(path) in taken:
            raise ToolkitError(f"{path} is another file of this command", fix=f"choose another {option}")
        taken.add(os.path.realpath(path))


def _evidence(
    bundle: Bundle,
    verify: Path | None,
    bench: Path | None,
    sensitivity: Path | None,
    data: str | None,
    images: int | None,
    gate: float | None,
) -> Evidence:
    from toolkit.benchmarking.result import Benchmark
    from toolkit.bundle.manifest import VARIANTS
    from toolkit.cli.report_evidence import (
        benched_now,
        document_from_file,
        judged_images,
        record_of,
        sensitivity_of_model,
        sidecars_of,
        verified_now,
    )
    from toolkit.errors import ToolkitError
    from toolkit.report.evidence import Evidence
    from toolkit.verification.result import Verification

    if verify is not None and gate is not None:
        raise ToolkitError(
            "a saved document of toolkit verify has its own gate", found=f"--verify and --gate {gate:g}", allowed="one"
        )
    # What a user gave is read before anything is measured: a wrong file must not cost a minute.
    known = Evidence(
        folder=_as_typed(bundle.folder),
        manifest=bundle.manifest,
        manifest_sha256=bundle.manifest_sha256,
        files={name: variant.file for name, variant in VARIANTS.items()},
        record=record_of(bundle),
        sidecars=sidecars_of(bundle),
        verify=None if verify is None else document_from_file(verify, Verification, "verify"),
        bench=None if bench is None else document_from_file(bench, Benchmark, "bench"),
        sensitivity=sensitivity_of_model(sensitivity, bundle),
    )
    judged = known.verify or verified_now(bundle, data, images, gate)
    timed = known.bench or benched_now(bundle)
    shown = judged_images(bundle, judged, data, images)
    return replace(
        known,
        verify=judged,
        bench=timed,
        pixels_nhwc=shown.pixels_nhwc if shown else None,
        images_options=shown.options if shown else None,
    )


def _as_typed(folder: Path) -> str:
    """Relative to the current folder where it lies inside."""
    here = Path.cwd()
    return str(folder.resolve().relative_to(here)) if folder.resolve().is_relative_to(here) else str(folder)
