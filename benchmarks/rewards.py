"""Does `marl-stable reward` name what is wrong with a reward, and leave sound ones alone?

    python -m benchmarks.rewards                   # plays what is missing, then writes the table
    python -m benchmarks.rewards --only navigation # designs whose name contains a word
    python -m benchmarks.rewards --table           # the table alone

Those on tasks that were not played while thresholds were chosen are called "new".
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.provenance import code_commit
from benchmarks.reward_designs import DESIGNS
from benchmarks.reward_designs.design import Design
from benchmarks.trials import RESULTS, read
from marl_stable.investigate.reward.debugging import examine

FILE, TABLE = RESULTS / "rewards.jsonl", RESULTS / "rewards.md"
EXPERTS = Path(__file__).parent / "reward_designs" / "experts.py"


def ask(name: str, design: Design) -> dict[str, Any]:
    """What is found of a design."""
    began = time.perf_counter()
    expert = f"{EXPERTS}:{design.expert}" if design.expert else None
    metric = "metric" if design.metric else None
    if design.pay is None:
        found = examine(design.task, design.kwargs, expert, metric)
    else:
        form = "single" if design.single else "batched"
        found = examine(f"benchmarks.reward_designs:{form}", {"design": name}, expert, metric)
    return {
        "design": name,
        "found": [finding["cause"] for finding in found["findings"]],
        "why": found["findings"][0]["explanation"] if found["findings"] else "",
        "steps": found["played"]["steps"],
        "left_out": found["played"]["left_out"],
        "seconds": round(time.perf_counter() - began, 1),
        "commit": code_commit(),
    }


def right(design: Design, found: list[str]) -> bool:
    """Whether the first verdict is the flaw, or nothing was said of a sound reward."""
    return found[:1] == ([design.cause] if design.cause else [])


def table(entries: dict[str, dict[str, Any]]) -> str:
    """All designs played so far."""
    rows = [(name, design, entries[name]) for name, design in DESIGNS.items() if name in entries]
    lines = ["# Reward designs", "", "`python -m benchmarks.rewards` writes this file.", ""]
    if len({entry["commit"] for _, _, entry in rows}) > 1:
        lines += [
            "Rows come from several states of the code (the last column, `+` for one that was not yet committed as a "
            "whole); delete `rewards.jsonl` to play all anew.",
            "",
        ]
    lines += ["| designs | tasks | right |", "|---|---|---|"]
    for flawed, kind in ((True, "flawed"), (False, "sound")):
        for built_on, told in ((True, "built on"), (False, "new")):
            part = [r for r in rows if (r[1].cause is not None) is flawed and r[1].built_on is built_on]
            good = sum(right(design, entry["found"]) for _, design, entry in part)
            lines.append(f"| {kind} | {told} | {good} of {len(part)} |")
    lines += [
        "",
        "| design | task | what it does | verdicts, the first one first | right | s | commit |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, design, entry in rows:
        verdicts = ", ".join(entry["found"]) or "none"
        sign = "yes" if right(design, entry["found"]) else f"no: {design.cause or 'none'}"
        task = design.task if design.built_on else f"{design.task} (new)"
        commit, _, dirty = entry["commit"].partition("-")
        state = commit[:7] + ("+" if dirty else "")
        lines.append(f"| {name} | {task} | {design.says} | {verdicts} | {sign} | {entry['seconds']:.0f} | {state} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Play what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="designs whose name contains this")
    parser.add_argument("--half", choices=("built", "new"), help="only designs on these tasks")
    parser.add_argument("--table", action="store_true", help="play nothing")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    entries = {entry["design"]: entry for entry in read(FILE)}
    for name, design in DESIGNS.items():
        wanted = asked.only in name and (asked.half is None or (asked.half == "built") is design.built_on)
        if asked.table or not wanted or name in entries:
            continue
        entries[name] = ask(name, design)
        with FILE.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entries[name]) + "\n")
        mark = "" if right(design, entries[name]["found"]) else "   <-- WRONG"
        print(name, entries[name]["found"], entries[name]["seconds"], mark, flush=True)
    TABLE.write_text(table(entries), encoding="utf-8")


if __name__ == "__main__":
    main()
