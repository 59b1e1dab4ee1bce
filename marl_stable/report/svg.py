"""Plots as SVG in text: scales, axes and marks. Colours are the page's (`html.py`), so that they follow light and dark.

A mark's `kind` is one of the page's classes, such as `c0` for the first colour. Sizes are pixels of the viewBox.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

LETTER = 6.1  # usual width of a letter at 11 pixels
UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
LARGER = 1.25  # to which a picture grows at most
ROOM = 0.06  # of the data's range, left free at either end


@dataclass(frozen=True)
class Scale:
    """From data to pixels."""

    low: float
    high: float
    start: float  # pixel of `low`
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)


def span(values: Iterable[float], zero: bool = False) -> tuple[float, float]:
    """A range that holds all values and some room, and 0 where asked for; of nothing, from 0 to 1."""
    known = [value for value in values if math.isfinite(value)] + [0.0] * zero
    low, high = min(known, default=0.0), max(known, default=1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        return low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
    room = ROOM * (high - low)
    return low - room, high + room


def ticks(low: float, high: float, most: int = 5, whole: bool = False) -> list[float]:
    """Round numbers in a range, at most so many; `whole`: integers only."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    step = max(1.0, math.ceil(step)) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A number as axes have it."""
    size = abs(value)
    unit, letter = next((pair for pair in UNITS if size >= pair[0]), (1.0, ""))
    if 0 < size < 1e-3 or size >= 1e12:
        told = f"{value:.1e}".replace("e-0", "e-").replace("e+", "e")
    else:
        told = f"{value / unit:.3g}{letter}"
    return told.replace("-", "\N{MINUS SIGN}")


def width_of(text: str) -> float:
    """About how wide a text is."""
    return LETTER * len(text)


def fitted(text: str, room: float) -> str:
    """`text`, cut short where it does not fit."""
    most = max(1, int(room / LETTER))
    return text if len(text) <= most else f"{text[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def drawing(width: float, height: float, told: str, parts: Iterable[str]) -> str:
    """The picture; `told` is for those who cannot see it."""
    size = f'viewBox="0 0 {width:g} {height:g}" style="max-width:{LARGER * width:g}px"'
    return "\n".join([f'<svg {size} role="img" aria-label="{escape(told)}">', *parts, "</svg>"])


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    """A text at its baseline."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(words)}</text>'


@dataclass(frozen=True)
class Frame:
    """The area of a plot, with a scale for each direction; pixels of y count downwards."""

    x: Scale
    y: Scale

    def rows(self, most: int = 5, percent: bool = False) -> list[str]:
        """Horizontal lines with the numbers of y, that of 0 stronger."""
        found = []
        for value in ticks(self.y.low, self.y.high, most):
            y, kind = self.y(value), "zero" if value == 0 else "rule"
            found.append(f'<path class="{kind}" d="M{self.x.start:.1f},{y:.1f}H{self.x.end:.1f}"/>')
            found.append(text(self.x.start - 6, y + 4, _label(value, percent), "end"))
        return found

    def columns(self, most: int = 5, percent: bool = False, whole: bool = False) -> list[str]:
        """Vertical lines with the numbers of x below, that of 0 stronger."""
        found = []
        for value in ticks(self.x.low, self.x.high, most, whole):
            x, kind = self.x(value), "zero" if value == 0 else "rule"
            found.append(f'<path class="{kind}" d="M{x:.1f},{self.y.end:.1f}V{self.y.start:.1f}"/>')
            found.append(text(x, self.y.start + 16, _label(value, percent), "middle"))
        return found

    def below(self, most: int = 5) -> list[str]:
        """The numbers of x alone, below."""
        values = ticks(self.x.low, self.x.high, most)
        return [text(self.x(value), self.y.start + 16, short(value), "middle") for value in values]

    def title_x(self, words: str) -> str:
        """What x is, below its numbers."""
        return text((self.x.start + self.x.end) / 2, self.y.start + 32, words, "middle", "faint")

    def line(self, xs: Sequence[float], ys: Sequence[float | None], kind: str) -> str:
        """A curve; where y is None there is a gap."""
        path, pen = "", "M"
        for x, y in zip(xs, ys, strict=True):
            if y is None:
                pen = "M"
                continue
            path, pen = f"{path}{pen}{self.x(x):.1f},{self.y(y):.1f}", "L"
        return f'<path class="line {kind}" d="{path}"/>'

    def band(self, xs: Sequence[float], lows: Sequence[float], highs: Sequence[float], kind: str) -> str:
        """The area between two curves."""
        upper = [f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(xs, highs, strict=True)]
        lower = [f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(xs, lows, strict=True)]
        return f'<polygon class="{kind}" points="{" ".join(upper + lower[::-1])}"/>'

    def box(self, x: tuple[float, float], y: tuple[float, float], kind: str, told: str = "") -> str:
        """A rectangle between two values of each scale."""
        left, right = sorted((round(self.x(x[0]), 1), round(self.x(x[1]), 1)))  # neighbours meet
        top, bottom = sorted((self.y(y[0]), self.y(y[1])))
        size = f'x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"'
        return f'<rect class="{kind}" {size}>{_hint(told)}</rect>'

    def across(self, y: float, lows: float, highs: float, kind: str) -> str:
        """A whisker along x."""
        return f'<path class="whisker {kind}" d="M{self.x(lows):.1f},{self.y(y):.1f}H{self.x(highs):.1f}"/>'

    def upright(self, x: float, lows: float, highs: float, kind: str) -> str:
        """A whisker along y."""
        return f'<path class="whisker {kind}" d="M{self.x(x):.1f},{self.y(lows):.1f}V{self.y(highs):.1f}"/>'

    def dot(self, x: float, y: float, kind: str, told: str = "") -> str:
        """A point; `told` appears where a mouse rests on it."""
        return f'<circle class="dot {kind}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="4">{_hint(told)}</circle>'


def stacked(shares: Sequence[float]) -> list[tuple[float, float]]:
    """Where each part begins and ends: those above 0 one after the other, those below 0 to the other side."""
    above = below = 0.0
    found = []
    for share in shares:
        begin = above if share >= 0 else below
        found.append((begin, begin + share))
        above, below = (begin + share, below) if share >= 0 else (above, begin + share)
    return found


def _label(value: float, percent: bool) -> str:
    return f"{short(100 * value)}%" if percent else short(value)


def _hint(told: str) -> str:
    return f"<title>{escape(told)}</title>" if told else ""
