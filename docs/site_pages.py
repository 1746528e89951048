"""What the site shows from above docs/: SECURITY.md and CHANGELOG.md, with their links as they are from there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ABOVE = ("SECURITY.md", "CHANGELOG.md")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that lie beside README.md."""
    from mkdocs.structure.files import File

    for name in ABOVE:
        text = re.sub(r"\]\(docs/", "](", (ROOT / name).read_text(encoding="utf-8"))
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links up to these pages stay inside of the site; a function's heading is short in the table of contents."""
    inside = re.sub(r"\]\(\.\./(" + "|".join(map(re.escape, ABOVE)) + ")", r"](\1", markdown)
    return re.sub(r"^(### `(toolkit\.\w+)\(.*`)$", r'\1 { data-toc-label="\2" }', inside, flags=re.MULTILINE)


def on_page_content(html: str, **_: Any) -> str:
    r"""Takes the backslash of `\|` in a table away, which GitHub does in code too, and Python-Markdown does not."""
    return re.sub(r"<t[dh].*?</t[dh]>", lambda cell: cell[0].replace(r"\|", "|"), html, flags=re.DOTALL)
