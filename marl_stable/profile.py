"""Where the time of a training goes, for `--profile`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.table import Table

from marl_stable.report.console import open_console


class Stopwatch:
    """Times chosen methods of the objects of one training, without a line of it in the loop."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self._began = time.perf_counter()

    def attach(self, training: Any, observer: Any) -> None:
        """Time the parts of `training` from now on."""
        self._wrap(training.envs, "step", "environment")
        self._wrap(training.agent, "act", "acting")
        self._wrap(training.agent, "observe", "storing")
        self._wrap(training.episodes, "add", "storing")
        self._wrap(training.agent, "update", "learning")
        self._wrap(training.agent, "signals", "watching")
        self._wrap(training.agent, "action_counts", "watching")
        self._wrap(observer, "logged", "logging")
        self._wrap(observer, "save", "saving")
        self._wrap(training.eval_env, "step", "evaluation environment")

    def _wrap(self, owner: Any, method: str, section: str) -> None:
        original: Callable[..., Any] = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                if torch.cuda.is_available():  # work on the device goes on after the call has returned
                    torch.cuda.synchronize()
                self.seconds[section] = self.seconds.get(section, 0.0) + time.perf_counter() - begin
                self.calls[section] = self.calls.get(section, 0) + 1

        setattr(owner, method, timed)

    def rows(self) -> list[tuple[str, float, float, int]]:
        """(section, seconds, share of all, calls), longest first; what no section covers is `other`."""
        whole = time.perf_counter() - self._began
        other = whole - sum(self.seconds.values())
        sections = [*self.seconds.items(), ("other", other)]
        return [(name, s, s / whole, self.calls.get(name, 0)) for name, s in sorted(sections, key=lambda x: -x[1])]

    def show(self) -> None:
        """Print the table."""
        table = Table("where the time went", "seconds", "share", "calls")
        for name, seconds, share, calls in self.rows():
            table.add_row(name, f"{seconds:.2f}", f"{share:.1%}", f"{calls:,}" if calls else "")
        open_console(sys.stdout).print(table)
