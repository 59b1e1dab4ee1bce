"""The table of what the environment doctor says of well-known environments is whole, and its ids are known."""

from __future__ import annotations

import re

from benchmarks import checks
from benchmarks.tables import rows
from marl_stable.investigate.doctor.findings import IDS


def test_every_environment_has_its_row() -> None:
    assert [title for title, _ in rows(checks.TABLE)] == [case.title for case in checks.cases()]


def test_nothing_was_refused_and_every_finding_has_an_id() -> None:
    for title, line in rows(checks.TABLE):
        assert line.split(" | ")[1] in ("passed", "failed"), title
        assert set(re.findall(r"(?:error|warning) `(\w+)`", line)) <= set(IDS), title


def test_the_known_faults_of_others_are_in_the_table() -> None:
    known = dict(rows(checks.TABLE))
    assert "error `reset_leak`" in known["butterfly/knights_archers_zombies_v11"]
    assert "warning `time_limit_as_termination`" in known["sisl/multiwalker_v9"]
    assert "ever changed" in known["butterfly/cooperative_pong_v6"]


def test_a_row_is_one_line() -> None:
    told = checks.row(checks.Case("gymnasium/FrozenLake-v1", {"is_slippery": False}))
    assert re.fullmatch(r'\| gymnasium/FrozenLake-v1 \{"is_slippery": false\} \| passed \|  \| \d+ \|', told)
