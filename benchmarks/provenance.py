"""What a result was made with: its commit, its versions, and the settings that its flags came to at the time.

A result whose algorithm would be set otherwise today, since a default has changed, is outdated: scripts train it anew,
and tables prefer what is of today. Settings that came later are taken to leave older results as they were.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marl_stable.configs import nested, resolve
from marl_stable.conversion import leaves
from marl_stable.provenance import git_commit, versions

ROOT = Path(__file__).resolve().parents[1]


def code_commit() -> str | None:
    """The commit of the checkout, `-dirty` where code differs from it: what scripts append to results is none."""
    commit = git_commit()
    if commit is None or not commit.endswith("-dirty"):
        return commit
    code = ["git", "-C", str(ROOT), "diff", "--quiet", "HEAD", "--", ".", ":(exclude)benchmarks/results"]
    same = subprocess.run(code, timeout=60, check=False).returncode == 0
    return commit.removesuffix("-dirty") if same else commit


def made_with(flags: Mapping[str, Any]) -> dict[str, Any]:
    """What a result tells of its making; `flags` as for `ms.train`."""
    return {"settings": settings(flags), "commit": code_commit(), "versions": versions()}


def settings(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of the algorithm, dotted, as `flags` and today's defaults make it, and as JSON gives it back."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(leaves(resolve(nested(flags)).algo))))
    return plain


def outdated(entry: Mapping[str, Any], flags: Mapping[str, Any]) -> bool:
    """Whether today's defaults would set the algorithm otherwise than it was set when `entry` was made."""
    now = settings(flags)
    return any(now.get(key) != value for key, value in entry["settings"].items())


def told(former: int, of: int) -> str:
    """What a table says of the results in it that are of former defaults; nothing where none is."""
    return f" With defaults of before: {former} of {of}." if former else ""


def by_today(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those with the settings of today; all of them where there are none."""
    return [entry for entry in entries if not outdated(entry, entry["flags"])] or entries
