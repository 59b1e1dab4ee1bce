"""Wall time: how long ours takes from the command to a good policy, and what others have learned by then.

    python -m benchmarks.peers.learning       # about ten minutes; writes results/peers_learning.md

Everyone begins with the command, so importing and building count; what a policy is worth is asked afterwards, in greedy
episodes of plain mpe2. One seed each: what differs by points is told apart, not what differs by tenths.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from typing import NamedTuple

from benchmarks.peers.runners.greedy import EPISODES, MARK
from benchmarks.peers.turns import ONE_THREAD, ROOT
from benchmarks.peers.venvs import Missing, pins, python_of, reason
from benchmarks.speed import seconds_to
from benchmarks.trials import RESULTS
from marl_stable.provenance import git_commit

TABLE = RESULTS / "peers_learning.md"
GOAL = -10.0
LONGEST = 300.0  # seconds, should ours take longer
HEAD = (
    "| discrete simple_spread_v3 | seconds from the command | steps | greedy return per agent |\n|---|---|---|---|\n"
    "| ours, MAPPO, defaults, `--total-steps 1e6` | {seconds:.0f} | {steps:,} | {goal:g} or better |"
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


def after(peer: Peer, seconds: float) -> str:
    """The table's line: what `peer` has learned after `seconds`, or why it has not."""
    try:
        command = [python_of(peer.venv), "-m", f"benchmarks.peers.runners.{peer.runner}"]
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [*command, json.dumps({"deadline": time.time() + seconds})],
                capture_output=True, text=True, cwd=folder, env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)},
                timeout=seconds + 300, check=False,
            )  # fmt: skip
    except (Missing, subprocess.TimeoutExpired) as why:
        return f"| {peer.title} | | | {reason(str(why))} |"
    found = learned(done.stdout)
    if found is None:
        return f"| {peer.title} | | | {reason(done.stderr)} |"
    return f"| {peer.title} | {seconds:.0f} | {found['steps']:,} | {found['return']:.1f} |"


def main() -> None:
    """Measure and write the table."""
    seconds, steps = seconds_to(GOAL)
    if not steps:
        raise SystemExit(f"ours did not reach {GOAL:g}; nothing is written.")
    seconds = min(seconds, LONGEST)
    releases = sorted({pin for peer in PEERS for pin in pins(peer.venv)})
    lines = [
        f"`python -m benchmarks.peers.learning` at {git_commit()}, one thread of torch; {EPISODES} greedy episodes. "
        f"Beside: {', '.join(releases)}.",
        "",
        HEAD.format(seconds=seconds, steps=steps, goal=GOAL),
    ]
    print(lines[-1], flush=True)
    for peer in PEERS:
        lines.append(after(peer, seconds))
        print(lines[-1], flush=True)
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
