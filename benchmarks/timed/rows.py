"""Lines of the tables of speed: what was measured, beside what, and their ratio, which alone is shown in haste."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """One line. `beside` holds `{}` where the figure of what it is compared with belongs."""

    work: str
    figure: float
    beside: str
    other: float
    digits: int = 0  # of both figures
    ratio_digits: int = 2

    @property
    def ratio(self) -> str:
        """The figure in units of the other."""
        return f"{self.figure / self.other:.{self.ratio_digits}f}"

    def line(self) -> str:
        """With figures."""
        figure, other = f"{self.figure:,.{self.digits}f}", f"{self.other:,.{self.digits}f}"
        return f"| {self.work} | {figure} | {self.beside.format(other)} | {self.ratio} |"

    def brief(self) -> str:
        """With the ratio alone."""
        return f"| {self.work} | {' '.join(self.beside.format('').split())} | {self.ratio} |"


def table(heading: str, rows: Sequence[Row], ratios_only: bool) -> list[str]:
    """The rows under their heading, which has a cell for each figure: `work | steps/s | beside | ratio`."""
    cells = heading.split(" | ")
    if ratios_only:
        del cells[1]
    lines = [row.brief() if ratios_only else row.line() for row in rows]
    return [f"| {' | '.join(cells)} |", "|---" * len(cells) + "|", *lines]
