"""Ours beside other libraries at the same work, in turn on the same machine.

    python -m benchmarks.peers                # measures the rows that are lacking; writes results/peers.md
    python -m benchmarks.peers --only large   # measures these anew
    python -m benchmarks.peers --table        # only writes the table anew

Each library is installed into a virtual environment of its own (several GB in benchmarks/.cache) when it is first
needed, and driven through its own public interface. One that fails here has a sentence in the table that says why.
Processes take turns, each with one thread of torch; starting, compiling and one whole turn to warm up are not counted.
"""

from __future__ import annotations

import argparse
import json
import platform
from typing import Any

from benchmarks.peers import table
from benchmarks.peers.rows import Row, rows
from benchmarks.peers.turns import in_turn
from benchmarks.peers.venvs import pins
from benchmarks.provenance import code_commit
from benchmarks.trials import RESULTS, read
from marl_stable.provenance import versions

FILE = RESULTS / "peers.jsonl"
TABLE = RESULTS / "peers.md"


def measured(row: Row, rounds: int) -> dict[str, Any]:
    """One row of results; of each arm (steps, seconds, processor seconds) of its turns, or why there are none."""
    found = in_turn(row.arms, rounds)
    arms = {name: turns if isinstance(turns, str) else turns[1:] for name, turns in found.items()}
    first = {name: round(turns[0].seconds, 1) for name, turns in found.items() if not isinstance(turns, str)}
    peers = sorted({arm.peer for arm in row.arms if arm.peer})
    return {
        "key": row.key,
        "title": row.title,
        "arms": {arm.name: arms[arm.name] for arm in row.arms},
        "first_turn_seconds": first,
        "targets": dict(row.targets),
        "one_process": row.one_process,
        "settings": {arm.name: arm.settings for arm in row.arms},
        "peers": {peer: pins(peer) for peer in peers},
        "command": f"python -m benchmarks.peers --only {row.key}",
        "commit": code_commit(),
        "versions": versions(),
    }


def known() -> dict[str, dict[str, Any]]:
    """The last result of each row."""
    return {entry["key"]: entry for entry in read(FILE)}


def write() -> None:
    """The table from the results, in the order of the rows."""
    found = known()
    entries = [found[row.key] for row in rows() if row.key in found]
    TABLE.write_text("\n".join(table.page(entries, platform.processor() or platform.machine())), encoding="utf-8")


def main() -> None:
    """Measure, and write after each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose key contains this text, measured anew")
    parser.add_argument("--rounds", type=int, help="turns of each; otherwise the row's own number")
    parser.add_argument("--table", action="store_true", help="write the table from the results, and measure nothing")
    asked = parser.parse_args()
    for row in [] if asked.table else rows():
        if asked.only in row.key if asked.only else row.key not in known():
            entry = measured(row, asked.rounds or row.rounds)
            with FILE.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            print("\n".join(table.lines(entry)), flush=True)
    write()


if __name__ == "__main__":
    main()
