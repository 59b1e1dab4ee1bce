"""How it is written down what the doctor must say of an environment with a bug."""

from __future__ import annotations

from typing import Any

Planted = dict[str, tuple[str, str, dict[str, Any]]]
"""By class: the id and severity of what must be found, and a part of where."""

ONE, OTHER = {"agent": "agent_0"}, {"agent": "agent_1"}
