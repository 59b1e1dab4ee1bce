"""Pages of one file, from parts and `page.css`: nothing to fetch, and a browser is told not to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from marl_stable.report.files import to_json

COLOURS = 8
LIGHT = ("#0072b2", "#d55e00", "#009e73", "#a3478f", "#b8860b", "#3d9bd6", "#7a5230", "#6b7280")
DARK = ("#5ab4e6", "#ff8f4d", "#35c79a", "#dd8fca", "#e6bf4d", "#a5d4f5", "#c99a72", "#a3acb8")
ALONE = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
ROOM = Path(__file__).parent


def document(title: str, body: Iterable[str], styles: Sequence[str] = (), scripts: Sequence[str] = ()) -> str:
    """The whole file; `styles` and `scripts` are files beside this one, put into it."""
    style = "\n".join(_read(name) for name in (*styles, "page.css"))
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{ALONE}">',
            f"<title>{escape(title)}</title>",
            f"<style>{style}{_colours()}</style>\n</head>\n<body>",
            *body,
            *(f"<script>{_read(name)}</script>" for name in scripts),
            "</body>\n</html>\n",
        ]
    )


def colour(number: int) -> str:
    """The class of the colour of that number; they begin anew where there are no more."""
    return f"c{number % COLOURS}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], named: int = 1) -> str:
    """Cells are HTML; the first `named` columns are names, the others numbers."""
    lines = [_row("th", head, named), *(_row("td", row, named) for row in rows)]
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def figure(picture: str, title: str, note: str = "") -> str:
    """A picture under its title; both texts are escaped."""
    told = f"<b>{escape(title)}</b>" + (f" \N{MIDDLE DOT} {escape(note)}" if note else "")
    return f"<figure><figcaption>{told}</figcaption>{picture}</figure>"


def panels(figures: Iterable[str]) -> str:
    """Figures side by side, as many as fit."""
    return "\n".join(['<div class="panels">', *figures, "</div>"])


def folded(title: str, parts: Iterable[str]) -> str:
    """What is shown on demand."""
    return "\n".join([f"<details><summary>{escape(title)}</summary>", *parts, "</details>"])


def note(text: str) -> str:
    """A paragraph beside the point."""
    return f'<p class="note">{escape(text)}</p>'


def legend(names: Iterable[tuple[str, str]]) -> str:
    """Classes of colours with what they stand for."""
    return f'<div class="legend">{"".join(f"<span>{swatch(kind)}{escape(name)}</span>" for kind, name in names)}</div>'


def swatch(kind: str) -> str:
    """A spot of a colour."""
    return f'<span class="swatch {kind}"></span>'


def data(name: str, value: Any) -> str:
    """What a script is to read, as JSON that cannot end its element."""
    safe = to_json(value).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{safe}</script>'


def _row(cell: str, cells: Sequence[str], named: int) -> str:
    return f"<tr>{''.join(f'<{cell}{_name(i < named)}>{text}</{cell}>' for i, text in enumerate(cells))}</tr>"


def _name(is_name: bool) -> str:
    return ' class="name"' if is_name else ""


def _read(name: str) -> str:
    """Without a library's line about where it comes from: a page names no address, so that none could be fetched."""
    return re.sub(r"\A/\*!.*?\*/\s*", "", (ROOM / name).read_text(encoding="utf-8"))


def _colours() -> str:
    light, dark = (" ".join(f"--c{i}: {value};" for i, value in enumerate(values)) for values in (LIGHT, DARK))
    classes = "".join(f".c{i} {{ --c: var(--c{i}); }}\n" for i in range(COLOURS))
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n{classes}"
