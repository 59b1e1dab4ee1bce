"""How long ours takes from the command to a good policy, and what others have learned after as much computing.

    python -m benchmarks.peers.learning       # about ten minutes; writes results/peers_learning.md

Processor time is what counts, from the command on: others on the machine hardly move it, and on an idle one it is the
wall time of these programs, which use one thread. What a peer's policy is worth is asked afterwards, in greedy episodes
of plain mpe2. One seed each, so that differences of points are told, not of tenths.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import tempfile
from typing import NamedTuple

from benchmarks.peers.runners.greedy import EPISODES, MARK
from benchmarks.peers.turns import ONE_THREAD, ROOT
from benchmarks.peers.venvs import Missing, pins, python_of, reason
from benchmarks.provenance import code_commit
from benchmarks.timed.starting import seconds_to
from benchmarks.trials import RESULTS

TABLE = RESULTS / "peers_learning.md"
GOAL = -10.0
PATIENCE = 10.0  # wall time over processor time, at most, on a machine that others use as well
HEAD = (
    "| discrete simple_spread_v3 | processor seconds from the command | steps | greedy return per agent |\n"
    "|---|---|---|---|"
)


class Peer(NamedTuple):
    """One that learns for as long as ours did."""

    title: str
    venv: str
    runner: str


PEERS = (
    Peer("Stable-Baselines3 PPO through SuperSuit, 8 copies, batches of 256", "supersuit", "sb3_learning"),
    Peer("BenchMARL MAPPO, defaults", "benchmarl", "benchmarl_learning"),
    Peer("AgileRL MADDPG, defaults, 8 processes", "agilerl", "agilerl_learning"),
)


def learned(text: str) -> dict[str, float] | None:
    """What a runner printed of its steps and return, among what its library printed."""
    lines = [line for line in text.splitlines() if line.startswith(MARK)]
    found: dict[str, float] | None = json.loads(lines[-1][len(MARK) :]) if lines else None
    return found


def ours() -> tuple[float, str]:
    """Processor seconds from the command to the goal, evaluations on the way included; the table's line."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _, steps = seconds_to(GOAL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if not steps:
        raise SystemExit(f"ours did not reach {GOAL:g}; nothing is written.")
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, f"| ours, MAPPO, `--total-steps 1e6` | {seconds:.0f} | {steps:,} | {GOAL:g} or better |"


def theirs(peer: Peer, seconds: float) -> str:
    """The table's line: what `peer` has learned after `seconds`, or why it has not."""
    try:
        command = [python_of(peer.venv), "-m", f"benchmarks.peers.runners.{peer.runner}"]
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [*command, json.dumps({"seconds": seconds})], capture_output=True, text=True, cwd=folder,
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)}, timeout=PATIENCE * seconds, check=False,
            )  # fmt: skip
    except (Missing, subprocess.TimeoutExpired) as why:
        return f"| {peer.title} | | | {reason(str(why))} |"
    found = learned(done.stdout)
    if found is None:
        return f"| {peer.title} | | | {reason(done.stderr)} |"
    return f"| {peer.title} | {seconds:.0f} | {found['steps']:,} | {found['return']:.1f} |"


def main() -> None:
    """Measure and write the table."""
    releases = sorted({pin for peer in PEERS for pin in pins(peer.venv)})
    seconds, line = ours()
    lines = [
        f"`python -m benchmarks.peers.learning` at {code_commit()}, one thread of torch; {EPISODES} greedy episodes. "
        f"Beside: {', '.join(releases)}.",
        "",
        HEAD,
        line,
    ]
    for peer in PEERS:
        print(lines[-1], flush=True)
        lines.append(theirs(peer, seconds))
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(lines[-1])


if __name__ == "__main__":
    main()
