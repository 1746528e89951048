"""Claims about the page in a real browser: it opens at once, without complaint, and fits a desk, a phone and paper."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from tests.reporting.browser import Browser, chromium
from tests.reporting.documents import Made
from toolkit.compare.parity import UnlabeledParity
from toolkit.quantization.sensitivity import Budget, Point, Sensitivity
from toolkit.reporting.page import page_from_evidence

PROGRAM = chromium()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no chromium here: apt-get install chromium")
LONGEST_MS = 1000
# Pairs of texts in one drawing whose rectangles have more than a hair in common, with the real font of this machine.
OVERLAPS = """
[...document.querySelectorAll('svg')].filter(svg => svg.getClientRects().length).flatMap(svg => {
  const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
  return boxes.flatMap(([a, p], i) => boxes.slice(i + 1)
    .filter(([, q]) => Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1
                    && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 3)
    .map(([b]) => a + ' / ' + b));
})
"""
LEFT_THE_DRAWING = """
[...document.querySelectorAll('svg text')].filter(t => t.getClientRects().length).filter(t => {
  const r = t.getBoundingClientRect();
  return r.left < -1 || r.right > document.documentElement.clientWidth + 1;
}).map(t => t.textContent)
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all."""
    assert PROGRAM is not None
    with Browser(PROGRAM) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full page: pictures, layers, a curve."""
    made = Made()
    layers = tuple(Sensitivity(f"stages.{n}.conv/Conv", UnlabeledParity(0.01 / (n + 1), 1, 9)) for n in range(9))
    curve = tuple(Point(1, share, 100 - share / 90, UnlabeledParity(0.1, 1, 9)) for share in (0, 25, 60, 100))
    manifest = made.manifest() | {"budget": Budget(layers, curve).as_dict()}
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page_from_evidence(made.evidence(manifest=manifest)), encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 760, 360])
def test_it_opens_at_once_without_complaint_and_fits(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.complaints.clear()
    browser.requests.clear()
    browser.look_like(width, dark=dark)
    assert browser.open(page) < LONGEST_MS
    assert browser.complaints == []
    assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data"}
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(OVERLAPS) == []
    assert browser.value(LEFT_THE_DRAWING) == []
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(17, 20, 25)" if dark else "rgb(255, 255, 255)")


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 360])
def test_fifteen_runners_are_told_apart(browser: Browser, tmp_path: Path, width: int) -> None:
    """All backends and precisions of a machine with a GPU, crowded where they are fast."""
    precisions = ("fp32", "fp16", "int8", "int8-fp16", "int8-cpu")
    backends = ("ort", "ort-cuda", "trt")
    medians = {f"{backend} {p}": 0.08 * 1.12**n for n, (backend, p) in enumerate(product(backends, precisions))}
    path = tmp_path / "many.html"
    path.write_text(page_from_evidence(Made(medians_ms=medians).evidence()), encoding="utf-8")
    browser.look_like(width)
    browser.open(path)
    assert browser.value(OVERLAPS) == []
    assert browser.value(LEFT_THE_DRAWING) == []
    labels = browser.value("[...document.querySelectorAll('#trade-off svg text.label')].map(t => t.textContent)")
    assert sorted(labels) == sorted(medians)


def test_the_theme_can_be_chosen_against_the_system(browser: Browser, page: Path) -> None:
    browser.look_like(1280, dark=False)
    browser.open(page)
    press = "document.getElementById('theme').click(); [document.getElementById('theme').textContent,"
    ground = "getComputedStyle(document.body).backgroundColor]"
    assert browser.value(press + ground) == ["Theme: light", "rgb(255, 255, 255)"]
    assert browser.value(press + ground) == ["Theme: dark", "rgb(17, 20, 25)"]
    assert browser.value(press + ground) == ["Theme: system", "rgb(255, 255, 255)"]


def test_hovering_shows_a_value(browser: Browser, page: Path) -> None:
    browser.look_like(1280)
    browser.open(page)
    at = browser.value(
        "const d = document.querySelector('#trade-off circle.dot'); d.scrollIntoView({block: 'center', "
        "behavior: 'instant'}); const r = d.getBoundingClientRect(); [r.x + r.width / 2, r.y + r.height / 2]"
    )
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=at[0], y=at[1])
    told = browser.value("document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent")
    assert "right" in told
    assert "ms" in told


def test_it_reads_without_javascript(browser: Browser, page: Path) -> None:
    browser.look_like(1280)
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        # The protocol's own evaluation still works where the page's scripts do not.
        assert browser.value("document.getElementById('theme').hidden") is True
        assert browser.value("document.querySelectorAll('svg title').length") > 10
        assert browser.value("document.body.innerText.includes('deploy model')") is True
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.slow
def test_on_paper_it_is_light_open_and_no_wider_than_the_paper(browser: Browser, page: Path) -> None:
    browser.look_like(700, dark=True, media="print")
    browser.open(page)
    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.value("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.value("document.documentElement.scrollWidth") <= 700
    assert len(browser.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"]) > 10_000


@pytest.mark.slow
def test_a_script_that_slipped_in_could_not_call_home(browser: Browser, page: Path, tmp_path: Path) -> None:
    """The policy of the page itself holds, whatever the text of it."""
    spoilt = tmp_path / "spoilt.html"
    injected = '<img src="https://example.org/x.png"/><script>fetch("https://example.org/")</script></body>'
    spoilt.write_text(page.read_text(encoding="utf-8").replace("</body>", injected), encoding="utf-8")
    browser.complaints.clear()
    browser.open(spoilt)
    browser.value("new Promise(done => setTimeout(done, 100))")
    assert sum("Content Security Policy" in text for text in browser.complaints) >= 2
