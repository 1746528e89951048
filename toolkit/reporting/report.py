"""`toolkit.report`: one page that a manager and an engineer both use, and a model card in Markdown."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from toolkit.benchmarking.result import Benchmark
from toolkit.bundle.manifest import VARIANTS
from toolkit.bundle.reading import Bundle, opened_bundle, require_apart
from toolkit.errors import ToolkitError
from toolkit.quantization.sensitivity import Sensitivities
from toolkit.reporting.evidence import Evidence
from toolkit.reporting.gathering import (
    Asked,
    PathLike,
    Step,
    benched_now,
    judged_images,
    read_or_given,
    record_of,
    sensitivity_of_model,
    sidecars_of,
    verified_now,
)
from toolkit.reporting.markdown import card_from_evidence
from toolkit.reporting.page import page_from_evidence
from toolkit.reporting.result import Deploy, Reported, WrittenFile
from toolkit.reporting.verdict import choice_from_evidence, reservations, sentence
from toolkit.storage.files import write_together
from toolkit.storage.replacing import require_replaceable
from toolkit.verification.result import Verification
from toolkit.version import __version__

MARK = b"Written by toolkit "  # in every page and card


def report(
    bundle: PathLike | Bundle | None = None,
    page: PathLike = "report.html",
    *,
    verify: Verification | PathLike | None = None,
    bench: Benchmark | PathLike | None = None,
    sensitivity: Sensitivities | PathLike | None = None,
    markdown: PathLike | None = None,
    data: str | None = None,
    sample: int | None = None,
    convert: bool = False,
    skip_bad: bool = False,
    resize: str | None = None,
    gate: float | None = None,
    say: Callable[[str], str] = str,
    on_step: Step = lambda what, done, total: None,
) -> Reported:
    """Writes one self-contained HTML page: what to deploy, what it costs, how that was measured.

    Args:
        bundle: the folder or tar, or an opened bundle; the newest of the workspace where there is none.
        verify, bench: what those functions returned, or a file of what their commands printed; None measures it now.
        sensitivity: what INT8 costs in each layer, or its file; None takes calibration/MODEL.sensitivity, if any.
        markdown: write a model card in Markdown there too.
        data, sample, convert, skip_bad, resize: the images that judge, as of `toolkit.verify`.
        gate: percent of fp32's right answers to keep, as of `toolkit.verify`.
        say: how the page says what to do about a fault.
        on_step: called with (what is being done, done, total).

    Raises:
        ToolkitError: documents of another bundle, or other images than they judged; a file in the way. Nothing is
            written then.
    """
    opened = opened_bundle(bundle)
    written = {"page": Path(page), **({} if markdown is None else {"markdown": Path(markdown)})}
    _require_apart(opened, written, (verify, bench, sensitivity))
    asked = Asked(data, sample, convert, skip_bad, resize)
    evidence = _evidence(opened, verify, bench, sensitivity, asked, gate, say, on_step)
    contents = {written["page"]: page_from_evidence(evidence).encode()}
    contents |= {} if markdown is None else {written["markdown"]: card_from_evidence(evidence).encode()}
    write_together(contents)
    choice = choice_from_evidence(evidence)
    return Reported(
        ok=True,
        tool=__version__,
        bundle=opened.folder.resolve(),
        model=opened.model,
        manifest_sha256=evidence.manifest_sha256,
        verdict=sentence(evidence, choice),
        deploy=None if choice is None else Deploy(choice.runner, evidence.file_of(choice.runner)),
        not_covered=tuple(reservations(evidence, choice)),
        files=tuple(WrittenFile(path.resolve(), len(content)) for path, content in contents.items()),
    )


def _require_apart(bundle: Bundle, written: dict[str, Path], read: tuple[object, ...]) -> None:
    """Two pages, and neither is what they are made from."""
    taken = {os.path.realpath(path) for path in read if isinstance(path, str | os.PathLike)}
    for argument, path in written.items():
        require_apart(bundle, path, f"`{argument}=`")
        require_replaceable(path, "report of the toolkit", lambda data: MARK in data, argument)
        if os.path.realpath(path) in taken:
            raise ToolkitError(
                f"{path} is read or written for this report already", fix=f"choose another `{argument}=`"
            )
        taken.add(os.path.realpath(path))


def _evidence(
    bundle: Bundle,
    verify: Verification | PathLike | None,
    bench: Benchmark | PathLike | None,
    sensitivity: Sensitivities | PathLike | None,
    asked: Asked,
    gate: float | None,
    say: Callable[[str], str],
    on_step: Step,
) -> Evidence:
    if verify is not None and gate is not None:
        raise ToolkitError(
            "what was verified before has its own gate", found=f"`verify=` and `gate={gate:g}`", allowed="one"
        )
    # What a user gave is read before anything is measured: a wrong file must not cost a minute.
    known = Evidence(
        folder=_as_typed(bundle.folder),
        manifest=bundle.manifest,
        manifest_sha256=bundle.manifest_sha256,
        files={name: variant.file for name, variant in VARIANTS.items()},
        record=record_of(bundle),
        sidecars=sidecars_of(bundle),
        verify=read_or_given(verify, Verification),
        bench=read_or_given(bench, Benchmark),
        sensitivity=sensitivity_of_model(sensitivity, bundle),
        say=say,
    )
    judged = known.verify or verified_now(bundle, asked, gate, on_step)
    timed = known.bench or benched_now(bundle, on_step)
    shown = judged_images(bundle, judged, asked)
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
