"""What a failed check of the self-test must say."""

from __future__ import annotations

from marl_stable.investigate.questions import Check
from marl_stable.investigate.selftest import in_words


def by_name(checks: list[Check]) -> dict[str, Check]:
    """Checks by game and what was asked."""
    return {check.name: check for check in checks}


def failed(check: Check, meaning: str, cause: str | None) -> bool:
    """Whether it failed and says so, with what it means and the cause's name."""
    line = in_words(check)
    told = line.startswith("FAIL") and meaning in line and (cause is None or line.endswith(f"cause {cause}"))
    return not check.ok and meaning in check.meaning and check.cause == cause and told
