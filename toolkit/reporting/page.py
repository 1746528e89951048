"""The page: one HTML file that needs nothing else, reads without JavaScript and prints."""

from __future__ import annotations

from pathlib import Path

from toolkit.reporting.answers import classes_section, flips_section
from toolkit.reporting.conditions import commands_section, conditions_section
from toolkit.reporting.evidence import Evidence
from toolkit.reporting.latencies import latency_section
from toolkit.reporting.layers import layers_section
from toolkit.reporting.markup import Markup, element, joined, paragraph
from toolkit.reporting.pareto import pareto_section
from toolkit.reporting.quantized import calibration_section, engines_section
from toolkit.reporting.recall import recall_section, sentences_on_classes
from toolkit.reporting.verdict import choice_from_evidence, facts_of_choice, reservations, sentence
from toolkit.version import __version__

# Whatever slips into the page can load nothing and send nothing.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'unsafe-inline'"


def page_from_evidence(evidence: Evidence) -> str:
    """The whole HTML document.

    Raises:
        ToolkitError: a document lacks an entry that every version of it had.
    """
    sections = [
        ("trade-off", "Accuracy, latency, size", pareto_section(evidence)),
        ("latency", "Latency", latency_section(evidence)),
        ("flips", "Answers that changed", flips_section(evidence)),
        ("recall", "Class by class", recall_section(evidence)),
        ("classes", "Change by class", classes_section(evidence)),
        ("layers", "INT8 layer by layer", layers_section(evidence)),
        ("calibration", "Calibration", calibration_section(evidence)),
        ("engines", "Engines", engines_section(evidence)),
        ("conditions", "Conditions", conditions_section(evidence)),
        ("commands", "Measure it again", commands_section(evidence)),
    ]
    body = element(
        "body",
        element("a", "Skip to the verdict", href="#verdict", class_="skip"),
        _header(evidence),
        element("main", _verdict(evidence), _contents(sections), *(_section(*section) for section in sections)),
        element("footer", paragraph(f"Written by toolkit {__version__} from the bundle's own files and measurements.")),
        element("div", id="tip", role="presentation", hidden="hidden"),
        element("script", Markup(_part("page.js"))),
    )
    return f"<!DOCTYPE html>\n{element('html', _head(evidence), body, lang='en')}\n"


def _part(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _head(evidence: Evidence) -> Markup:
    return element(
        "head",
        element("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"/>'),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{evidence.model}: which file to deploy"),
        element("link", rel="icon", href="data:,"),
        element("style", Markup(_part("style.css"))),
    )


def _header(evidence: Evidence) -> Markup:
    arch = evidence.manifest["model"].get("arch") or {}
    size = evidence.manifest.get("preprocessing") or {}
    image = f"{size.get('height')}\u00d7{size.get('width')}\u00d7{size.get('channels')} uint8" if size else ""
    facts = [str(arch.get("family", "")), image, f"{len(evidence.labels):,} classes"]
    return element(
        "header",
        element("p", "Deployment report", class_="kicker"),
        element("h1", evidence.model),
        element("p", " \u00b7 ".join(fact for fact in facts if fact), class_="facts"),
        element("button", "Theme", type="button", id="theme", hidden="hidden"),
    )


def _verdict(evidence: Evidence) -> Markup:
    choice = choice_from_evidence(evidence)
    tiles = facts_of_choice(evidence, choice) if choice else []
    shown = [
        element("div", element("dt", name), element("dd", value), element("dd", compared, class_="compared"))
        for name, value, compared in tiles
    ]
    open_ends = reservations(evidence, choice)
    return element(
        "section",
        element("h2", "Verdict", class_="kicker"),
        paragraph(
            *_stressed(sentence(evidence, choice), evidence.file_of(choice.runner) if choice else None),
            class_="sentence",
        ),
        element("dl", *shown, class_="tiles") if shown else "",
        _causes(evidence),
        _what_top1_hides(evidence),
        element("h3", "What this does not say") if open_ends else "",
        element("ul", *(element("li", text) for text in open_ends), class_="open") if open_ends else "",
        id="verdict",
    )


def _stressed(text: str, file: str | None) -> list[object]:
    """The sentence with the file that it is about in bold."""
    before, found, after = text.partition(file) if file else (text, "", "")
    return [before, element("strong", found), after] if found else [before]


def _causes(evidence: Evidence) -> Markup:
    """The faults that verify named, with what shows them and what to do."""
    if not evidence.causes:
        return Markup("")
    items = [
        element(
            "li",
            element("strong", f"{cause.name}. "),
            f"{cause.where}: {cause.evidence}. Try: {evidence.say(cause.fix)}",
        )
        for cause in evidence.causes
    ]
    return joined([element("h3", "What is wrong"), element("ul", *items, class_="open faults")])


def _what_top1_hides(evidence: Evidence) -> Markup:
    """Classes that are never right."""
    items = [element("li", sentence) for sentence in sentences_on_classes(evidence)]
    return element("ul", *items, class_="open faults") if items else Markup("")


def _contents(sections: list[tuple[str, str, Markup]]) -> Markup:
    links = [element("li", element("a", name.capitalize(), href=f"#{name}")) for name, _, _ in sections]
    return element("nav", element("ul", *links), aria_label="Contents")


def _section(name: str, title: str, content: Markup) -> Markup:
    return element("section", element("h2", title), joined([content]), id=name)
