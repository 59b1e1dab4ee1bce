"""How findings are worded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marl_stable.investigate.reward.play import WHOLE
from marl_stable.monitor.case import Finding


def found(
    cause: str,
    confidence: float,
    where: Mapping[str, Any],
    evidence: Mapping[str, float],
    explanation: str,
    remedy: str,
    config: Mapping[str, Any] | None = None,
) -> Finding:
    """A finding of a reward that nothing has been trained on: it holds from the start."""
    return Finding(cause, confidence, 0, dict(where), dict(evidence), _capital(explanation), remedy, dict(config or {}))


def number(value: float) -> str:
    """Three significant digits, thousands in full."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"


def the_term(name: str) -> str:
    """As a sentence names it; agents without terms have one, the whole."""
    return "the reward" if name == WHOLE else f"the term {name!r}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
