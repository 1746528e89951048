"""On what the figures were measured, what disturbed them, and the commands that measure them again."""

from __future__ import annotations

import shlex
from typing import Any

from toolkit.report.evidence import Evidence
from toolkit.report.markup import Markup, definitions, element, joined, paragraph, table
from toolkit.report.words import percent, size


def conditions_section(evidence: Evidence) -> Markup:
    """Host, runners, images, warnings; what could not run, with its reason."""
    bench, verify = evidence.bench or {}, evidence.verify or {}
    parts = [_warnings([*_texts(bench.get("warnings")), *_texts(verify.get("warnings"))])]
    pairs = _machine(bench)
    if pairs:
        parts.append(element("h3", "The machine that measured latency"))
        parts.append(definitions(pairs))
    else:
        parts.append(paragraph("The machine is not known: there is no document of toolkit bench.", class_="absent"))
    images = verify.get("images") or {}
    if images:
        parts.append(element("h3", "The images that judged"))
        parts.append(definitions(_images(images, verify)))
    unchecked = [(str(what), str(why)) for what, why in (verify.get("not_checked") or {}).items()]
    if unchecked:
        parts.append(table("What verify could not look at", ("what", "reason<"), unchecked))
    described = (bench.get("runners") or verify.get("runners") or {}).items()
    if described:
        parts.append(table("What ran", ("runner", "engine<"), [(name, _described(text)) for name, text in described]))
    if evidence.unavailable:
        rows = list(evidence.unavailable.items())
        parts.append(table("What did not run, and why", ("backend", "reason<"), rows))
    return joined(parts)


def _machine(bench: dict[str, Any]) -> list[tuple[str, object]]:
    """Host, device, what happened meanwhile, and how it was measured; each entry once."""
    conditions = dict(bench.get("conditions") or {})
    host = bench.get("host") or conditions.get("host") or {}
    absent = {str(what): f"none, {why}" for what, why in (conditions.get("absent") or {}).items()}
    rest = {key: value for key, value in conditions.items() if key not in ("host", "absent") and value is not None}
    device = {key: value for key, value in (bench.get("device") or {}).items() if key not in host and value}
    settings = {f"measured with {key}": value for key, value in (bench.get("settings") or {}).items()}
    return _flat({**host, **device, **absent, **rest, **settings})


def _described(text: Any) -> str:
    return str(text.get("description", text)) if isinstance(text, dict) else str(text)


def _images(images: dict[str, Any], verify: dict[str, Any]) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = [
        ("Source", images.get("source", "not known")),
        ("Number", f"{int(images.get('count', 0)):,}"),
        ("sha256", element("code", images.get("sha256", "not known"), class_="hash")),
    ]
    if verify.get("gate_percent") is not None:
        gate = percent(float(verify["gate_percent"]), 1)
        pairs.append(("Gate", f"at least {gate} of the right answers of fp32"))
    return pairs


def _texts(found: Any) -> list[str]:
    """Warnings as sentences, whether a document lists them as text or with what they are about."""
    texts = []
    for entry in found or ():
        if isinstance(entry, dict):
            about, said = entry.get("about"), entry.get("text") or entry
            texts.append(f"{about}: {said}" if about else str(said))
        else:
            texts.append(str(entry))
    return list(dict.fromkeys(texts))


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
        found.append(("what INT8 costs in each layer", f"toolkit sensitivity {shlex.quote(evidence.model)}"))
    found.append(("draw this page", f"toolkit report {folder} --verify verify.json --bench bench.json -o report.html"))
    found.append(("on the device", f"toolkit build {folder} && toolkit selftest {folder} --record"))
    return found


def _export(evidence: Evidence, folder: str) -> tuple[str, str]:
    arch = evidence.manifest["model"].get("arch") or {}
    own = arch.get("file") or arch.get("builder")  # somebody's ONNX file, or Python that builds the network
    precisions = {name for name, file in evidence.files.items() if file in evidence.manifest["files"]}
    flags = [flag for flag, name in (("--int8", "int8"), ("--fp16", "fp16")) if name in precisions]
    method = (evidence.manifest.get("calibration") or {}).get("method")
    flags += [f"--method {shlex.quote(str(method))}"] if method and "int8" in precisions else []
    what = "write the bundle" + (", with the --data and options that it was given" if own else "")
    return what, " ".join(["toolkit export", shlex.quote(str(own or evidence.model)), *flags, "-o", folder])


def _verify(evidence: Evidence, folder: str) -> tuple[str, str]:
    document = evidence.verify or {}
    options = [evidence.images_options] if evidence.images_options else []
    gate = document.get("gate_percent")
    options += [f"--gate {gate:g}"] if isinstance(gate, int | float) else []
    options += ["--strict"] if document.get("strict") else []
    source = (document.get("images") or {}).get("source")
    what = "compare every file with fp32"
    what += f", with the --data that gave {source}" if source and evidence.images_options is None else ""
    return what, " ".join(["toolkit verify", folder, *options, "> verify.json"])


def _bench(evidence: Evidence, folder: str) -> tuple[str, str]:
    settings = (evidence.bench or {}).get("settings") or {}
    batches = ",".join(str(batch) for batch in sorted({latency.batch for latency in evidence.latencies}))
    options = [f"--batch {batches}"] if batches else []
    for name, option in (
        ("seconds", "--seconds"),
        ("threads", "--threads"),
        ("rate_hz", "--rate"),
        ("graph", "--graph"),
    ):
        value = settings.get(name)
        options += [f"{option} {shlex.quote(f'{value}')}"] if value not in (None, 1, "on") else []
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
