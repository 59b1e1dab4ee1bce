"""Tables with a line for each case, which a script fills bit by bit: what stands there is not measured again."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar


class Titled(Protocol):
    """A case, and what its line begins with."""

    @property
    def title(self) -> str:
        """The first cell."""


CaseT = TypeVar("CaseT", bound=Titled)


def fill(table: Path, head: str, cases: Sequence[CaseT], row: Callable[[CaseT], str], about: str | None) -> None:
    """Measure the cases that `table` lacks, or those that `--only` asks for, and write it after each.

    `head`: the lines before the first; `about`: the script's own text, for its help.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="ids that contain this text")
    asked = parser.parse_args()
    known = dict(rows(table))
    for case in cases:
        if asked.only in case.title if asked.only else case.title not in known:
            known[case.title] = row(case)
            print(known[case.title], flush=True)
            lines = [known[each.title] for each in cases if each.title in known]
            table.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")


def rows(table: Path) -> Iterator[tuple[str, str]]:
    """(title, line) of a table whose first column is called `environment`, as it stands."""
    lines = table.read_text(encoding="utf-8").splitlines() if table.exists() else []
    for line in lines:
        if line.startswith("| ") and not line.startswith("| environment"):
            yield line[2:].partition(" |")[0], line
