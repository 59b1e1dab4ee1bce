"""What the environment doctor says of every environment that installs here, and how long it takes.

    python -m benchmarks.checks                      # what is not in the table yet (some minutes for all)
    python -m benchmarks.checks --only classic/      # ids that contain a text, again

These are environments that many people use. So a finding is either true, and stays in the table, or the check that made
it is wrong and has to become better. The armies of magent2 are left out, for the time they take.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from benchmarks.tables import fill
from benchmarks.trials import RESULTS
from marl_stable.envs import names
from marl_stable.investigate.doctor.checkup import Checkup, examine
from marl_stable.investigate.doctor.findings import Finding
from marl_stable.types import UsageError

TABLE = RESULTS / "checks.md"
HEAD = """What `marl-stable check` finds, by `python -m benchmarks.checks`; what is left empty was found well.

| environment | | findings | seconds |
|---|---|---|---|"""
GYMNASIUM = (
    *("CartPole-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1", "FrozenLake-v1"),
    *("Taxi-v4", "Blackjack-v1", "LunarLander-v3", "BipedalWalker-v3"),
)
VMAS = ("balance", "transport", "simple_spread")


class Case(NamedTuple):
    """One row: an id with its arguments."""

    env: str
    kwargs: dict[str, Any]

    @property
    def title(self) -> str:
        """The id and the arguments."""
        return self.env + (f" {json.dumps(self.kwargs)}" if self.kwargs else "")


def cases() -> list[Case]:
    """mpe2 with both kinds of actions, and the others as they come."""
    mpe2 = [Case(f"mpe2/{name}", kwargs) for name in names.MPE2 for kwargs in ({}, {"continuous_actions": True})]
    others = [
        Case(f"{family}/{name}", {}) for family in ("sisl", "butterfly", "classic") for name in names.PETTINGZOO[family]
    ]
    vmas = [Case(f"vmas/{name}", {}) for name in VMAS]
    return [*mpe2, *others, *(Case(f"gymnasium/{name}", {}) for name in GYMNASIUM), *vmas]


def row(case: Case) -> str:
    """One line of the table."""
    try:
        found = examine(case.env, case.kwargs)
    except UsageError as refused:
        return f"| {case.title} | refused | {refused} | |"
    return f"| {case.title} | {_verdict(found)} | {'<br>'.join(map(_told, found.findings))} | {found.seconds:.0f} |"


def main() -> None:
    """Do what is asked for and write the table."""
    fill(TABLE, HEAD, cases(), row, __doc__)


def _verdict(found: Checkup) -> str:
    return "passed" if found.as_dict()["passed"] else "failed"


def _told(finding: Finding) -> str:
    return f"{finding.severity} `{finding.id}`: {finding.explanation}"


if __name__ == "__main__":
    main()
