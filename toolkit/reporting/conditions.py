"""On what the figures were measured, what disturbed them, and the commands that measure them again."""

from __future__ import annotations

import shlex
from typing import Any

from toolkit.benchmarking.result import Benchmark
from toolkit.reporting.evidence import Evidence
from toolkit.reporting.markup import Markup, definitions, element, joined, paragraph, table
from toolkit.reporting.words import options_that_draw, percent, signed, size
from toolkit.verification.result import Verification

GIVEN = "given"  # what a manifest says of what nobody had to find
UNSTEADY = "unstable"  # the kind of the warning that most rows share on a machine that is not quiet


def conditions_section(evidence: Evidence) -> Markup:
    """Host, runners, images, warnings; what could not run, with its reason."""
    parts = [_of_bench(evidence.bench), _of_verify(evidence.verify), _of_export(evidence)]
    if evidence.bench:
        parts.append(table("What ran", ("runner", "engine<"), list(evidence.bench.runners.items())))
    if evidence.unavailable:
        rows = list(evidence.unavailable.items())
        parts.append(table("What did not run, and why", ("backend", "reason<"), rows))
    return joined(parts)


def _of_bench(bench: Benchmark | None) -> Markup:
    if bench is None:
        return paragraph("The machine is not known: there is no document of toolkit bench.", class_="absent")
    texts = [
        f"{warned.about}: {warned.text}" if warned.about else warned.text
        for warned in bench.warnings
        if warned.kind != UNSTEADY
    ]
    unsteady = [warned.about for warned in bench.warnings if warned.kind == UNSTEADY]
    if unsteady:
        texts.append(f"the medians of the rounds differ by more than 10 %: {', '.join(unsteady)}; lock the clocks")
    head = element("h3", "The machine that measured latency")
    return joined([_warnings(list(dict.fromkeys(texts))), head, definitions(_machine(bench))])


def _of_verify(verify: Verification | None) -> Markup:
    if verify is None:
        return Markup("")
    parts = [element("h3", "The images that judged"), definitions(_images(verify))]
    if verify.not_checked:
        parts.append(table("What verify could not look at", ("what", "reason<"), list(verify.not_checked.items())))
    return joined(parts)


def _of_export(evidence: Evidence) -> Markup:
    """What the manifest says that each file did at export, and on which images."""
    if not evidence.measured:
        return Markup("")
    rows = [
        (
            evidence.files.get(variant, variant),
            f"{parity.candidate_score.images:,}",
            percent(parity.candidate_score.top1_percent),
            signed(parity.change_points),
            f"{parity.flips:,}",
        )
        for variant, parity in evidence.measured.items()
    ]
    entry = evidence.manifest.get("evaluation") or {}
    images = [("Source", entry.get("source")), ("sha256", element("code", entry.get("sha256"), class_="hash"))]
    head = element("h3", "What export measured")
    columns = ("file", "images", "top-1", "change", "flips")
    return joined([head, table("Each file on the images of the export", columns, rows), definitions(images)])


def _machine(bench: Benchmark) -> list[tuple[str, object]]:
    """Host, device, what happened meanwhile, and how it was measured; each entry once."""
    conditions, host = bench.conditions.as_dict(), bench.host.as_dict()
    absent = {what: f"none, {why}" for what, why in bench.conditions.absent.items()}
    rest = {key: value for key, value in conditions.items() if key not in ("host", "absent") and value is not None}
    device = {key: value for key, value in bench.device.as_dict().items() if key not in host and value}
    settings = {f"measured with {key}": value for key, value in bench.settings.as_dict().items()}
    return _flat({**host, **device, **absent, **rest, **settings})


def _images(verify: Verification) -> list[tuple[str, object]]:
    gate = percent(verify.gate_percent, 1)
    return [
        ("Source", verify.images.source),
        ("Number", f"{verify.images.count:,}"),
        ("sha256", element("code", verify.images.sha256, class_="hash")),
        ("Gate", f"at least {gate} of the right answers of fp32"),
    ]


def _warnings(texts: list[str]) -> Markup:
    return element("ul", *(element("li", text) for text in texts), class_="warnings") if texts else Markup("")


def _flat(document: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    """Entries that are known, nested ones with their path; what is absent with the reason."""
    pairs: list[tuple[str, object]] = []
    for key, value in document.items():
        name = f"{prefix}{str(key).replace('_', ' ')}".replace(" mib", ", MiB")
        if value is None or value in ({}, [], ""):
            continue
        if key == "absent" and isinstance(value, dict):
            pairs += [(f"{prefix}{str(what).replace('_', ' ')}", f"not known: {why}") for what, why in value.items()]
        elif isinstance(value, dict) and prefix:
            pairs.append((name, ", ".join(f"{part} {_said(found)}" for part, found in value.items())))
        elif isinstance(value, dict):
            pairs += _flat(value, f"{name}: ")
        elif isinstance(value, list):
            pairs.append((name, ", ".join(str(part) for part in value)))
        else:
            pairs.append((name, _said(value)))
    return pairs


def _said(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else value


def commands(evidence: Evidence) -> list[tuple[str, str]]:
    """The commands that make bundle and figures again, each with what it does."""
    folder = shlex.quote(evidence.folder)
    found = [_export(evidence, folder), _verify(evidence, folder), _bench(evidence, folder)]
    if evidence.sensitivity:
        found.append(("what INT8 costs in each layer", f"toolkit sensitivity {shlex.quote(evidence.network)}"))
    found.append(("draw this page", _report(evidence, folder)))
    found.append(("on the device", f"toolkit build {folder} && toolkit selftest {folder} --save"))
    return found


def _export(evidence: Evidence, folder: str) -> tuple[str, str]:
    arch = evidence.manifest["model"].get("arch") or {}
    made_of = arch.get("file") or arch.get("builder")
    precisions = {name for name, file in evidence.files.items() if file in evidence.manifest["files"]}
    flags = [flag for flag, name in (("--int8", "int8"), ("--fp16", "fp16")) if name in precisions]
    method = (evidence.manifest.get("calibration") or {}).get("method")
    flags += [_method(str(method))] if method and "int8" in precisions else []
    given = [*(_of_user_network(evidence, arch) if made_of else []), *_of_images(evidence)]
    what = "write the bundle" + (", with what else it was given" if made_of else "")
    return what, " ".join(["toolkit export", shlex.quote(str(made_of or evidence.model)), *flags, *given, "-o", folder])


def _of_user_network(evidence: Evidence, arch: dict[str, Any]) -> list[str]:
    """The options that say what no card says, as far as the manifest keeps them."""
    said = {"--name": evidence.model, "--checkpoint": arch.get("checkpoint")}
    preprocessing, decided = evidence.manifest["preprocessing"], evidence.manifest["model"].get("decided") or {}
    if decided.get("normalisation") == GIVEN:
        said |= {f"--{name}": ",".join(map(str, preprocessing[name])) for name in ("mean", "std")}
    if decided.get("labels") == GIVEN:
        said["--labels"] = ",".join(evidence.labels)
    return [f"{option} {shlex.quote(str(value))}" for option, value in said.items() if value]


def _of_images(evidence: Evidence) -> list[str]:
    """Which images export read, where those are not the model's own."""
    read = (evidence.manifest.get("evaluation") or {}).get("read")
    if not read:
        return []
    count = read.get("calibration_images")
    return [options_that_draw(str(read["data"]), None, read), *([f"--images {count}"] if count else [])]


def _method(said: str) -> str:
    """`percentile 99.999` of a manifest is two options."""
    name, _, value = said.partition(" ")
    return f"--method {shlex.quote(name)}" + (f" --percentile {shlex.quote(value)}" if value else "")


def _report(evidence: Evidence, folder: str) -> str:
    images = [evidence.images_options] if evidence.images_options else []
    options = ["--verify verify.json", "--bench bench.json", *images, "-o report.html"]
    return " ".join(["toolkit report", folder, *options])


def _verify(evidence: Evidence, folder: str) -> tuple[str, str]:
    found, what = evidence.verify, "compare every file with fp32"
    options = [evidence.images_options] if evidence.images_options else []
    if found is not None:
        options += [f"--gate {found.gate_percent:g}", *(["--strict"] if found.strict else [])]
        what += f", with the --data that gave {found.images.source}" if evidence.images_options is None else ""
    return what, " ".join(["toolkit verify", folder, *options, "> verify.json"])


def _bench(evidence: Evidence, folder: str) -> tuple[str, str]:
    options = []
    if evidence.bench is not None:
        asked = evidence.bench.settings
        options = [f"--batch {','.join(str(batch) for batch in sorted(asked.batches))}", f"--seconds {asked.seconds:g}"]
        options += [f"--backend {asked.backends}"] if asked.backends not in (None, "all") else []
        options += [f"--precision {asked.precisions}"] if asked.precisions not in (None, "all") else []
        options += [f"--threads {asked.threads}"] if asked.threads != 1 else []
        options += [f"--streams {asked.streams}"] if asked.streams != asked.threads else []
        options += [f"--wait {asked.wait}"] if asked.wait not in (None, "auto") else []
        options += [f"--rate {asked.rate_hz:g}"] if asked.rate_hz is not None else []
        options += [f"--graph {asked.graph}"] if asked.graph != "on" else []
    return "measure latency", " ".join(["toolkit bench", folder, *options, "> bench.json"])


def lines_of_commands(evidence: Evidence) -> list[str]:
    """One line each, with what it does as a comment; no text of anybody begins a line of its own."""
    return [f"{' '.join(command.split())}  # {' '.join(what.split())}" for what, command in commands(evidence)]


def commands_section(evidence: Evidence) -> Markup:
    """The commands, and the hashes that say whether it is the same bundle."""
    lines = lines_of_commands(evidence)
    hashes = [
        (name, size(int(entry["bytes"])), element("td", element("code", entry["sha256"], class_="hash")))
        for name, entry in evidence.manifest["files"].items()
    ]
    return joined(
        [
            element("pre", element("code", "\n".join(lines)), tabindex="0", aria_label="Commands"),
            table("Files of the bundle", ("file", "size", "sha256<"), hashes),
            definitions([("Manifest's sha256", element("code", evidence.manifest_sha256, class_="hash"))]),
        ]
    )
