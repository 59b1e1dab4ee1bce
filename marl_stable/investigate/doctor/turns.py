"""What a turn-based environment owes whoever plays it, kept account of from step to step: PettingZoo's `AECEnv`.

That what `last` tells an agent is what `rewards` paid it since its last turn; that those who have ended stay for a turn
of their own, which takes them away, and that nothing is told of them afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marl_stable.investigate.doctor.findings import Finding, Severity, short

ENDS = ("terminations", "truncations")
TOLD = ("rewards", *ENDS, "infos")
TOLERANCE = 1e-6
LEAVING = "Leave agents in env.agents when they end, and call self._was_dead_step(action) in the turn that follows."


class Ledger:
    """What each agent is owed, and every promise that was broken."""

    def __init__(self) -> None:
        self.slips: dict[tuple[str, str], Finding] = {}  # by id and part
        self._owed: dict[str, float | None] = {}  # None: what was paid is no number
        self._dead: set[str] = set()

    def begin(self, env: Any) -> None:
        """An episode begins."""
        self._owed = {}
        for part in ENDS:
            if ended := [agent for agent, end in getattr(env, part).items() if _is_true(end)]:
                what = f"reset leaves env.{part} of {ended[0]} true: its episode is over before it begins."
                remedy = f"Set self.{part} to dict.fromkeys(self.agents, False) in reset."
                self._note(
                    "agent_vanishes", "error", {"agent": ended[0], "call": "reset", "part": part}, True, what, remedy
                )

    def before(self, env: Any) -> None:
        """Somebody is about to act, or to be taken away."""
        agent = env.agent_selection
        _, told, *ends, _ = env.last(observe=False)
        self._dead = {agent} if any(map(_is_true, ends)) else set()
        self._compare(agent, told)
        for part, end in zip(("termination", "truncation"), ends, strict=True):
            if not isinstance(end, bool):
                what = (
                    f"The {part} of {agent} is {short(end)}, a {type(end).__name__}; PettingZoo's test asks for a bool."
                )
                remedy = "Return bool(...) of it."
                self._note("agent_vanishes", "warning", {"agent": agent, "part": part}, short(end), what, remedy)
        self._owed[agent] = 0.0

    def after(self, env: Any, there: list[str], returned: Any) -> None:
        """They have; `there` are those who were there before, `returned` is what step returned."""
        for agent, reward in env.rewards.items():
            self._owed[agent] = _sum(self._owed.get(agent, 0.0), reward)
        if returned is not None:
            what = f"step returns {short(returned)}; in a turn-based environment it returns nothing, and last() tells."
            remedy = "Take the return out of step."
            self._note("action_rejected", "warning", {"call": "step"}, type(returned).__name__, what, remedy)
        if gone := [agent for agent in there if agent not in env.agents and agent not in self._dead]:
            what = f"{gone[0]} leaves env.agents without a turn after its end: it never sees how the episode ended."
            self._note("agent_vanishes", "error", {"agent": gone[0], "call": "step"}, gone[0], what, LEAVING)
        for part in TOLD:
            self._check_keys(part, getattr(env, part), list(env.agents))

    def stay(self, agent: str) -> None:
        """Somebody who has ended was not taken away."""
        what = f"{agent} has ended, but step(None) does not take it out of env.agents."
        self._note("agent_appears", "error", {"agent": agent}, "step(None)", what, LEAVING)

    def _compare(self, agent: str, told: Any) -> None:
        owed = self._owed.get(agent, 0.0)
        difference = _sum(owed, told, sign=-1)
        if owed is None or difference is None or abs(difference) <= TOLERANCE * max(1.0, abs(owed)):
            return
        what = (
            f"last() tells {agent} a reward of {short(told)}, where env.rewards paid it {owed:.6g} since its last turn."
        )
        remedy = (
            "Set self._cumulative_rewards[agent] to 0 where that agent acts, call self._clear_rewards(), pay, and then "
            "self._accumulate_rewards()."
        )
        self._note("reward_type", "error", {"agent": agent, "call": "last"}, float(told), what, remedy)

    def _check_keys(self, part: str, values: Any, agents: list[str]) -> None:
        if not isinstance(values, Mapping) or set(values) == set(agents):
            return
        if extra := [agent for agent in values if agent not in agents]:
            what = f"env.{part} tells of {extra[0]}, who is not in env.agents any more."
            remedy = "Take agents out of it when they leave, as self._was_dead_step(action) does."
            self._note("agent_appears", "warning", {"agent": extra[0], "part": part}, extra[0], what, remedy)
        else:
            missing = next(agent for agent in agents if agent not in values)
            what = f"env.{part} does not tell of {missing}, who is in env.agents."
            remedy = "Hold an entry for every agent that is in env.agents."
            self._note("agent_vanishes", "error", {"agent": missing, "part": part}, missing, what, remedy)

    def _note(self, id: str, severity: Severity, where: dict[str, Any], value: Any, what: str, remedy: str) -> None:
        key = (id, str(where.get("part") or where.get("call")))
        self.slips.setdefault(key, Finding(id, severity, where, value, what, remedy))


def _is_true(value: Any) -> bool:
    try:
        return bool(value)
    except (TypeError, ValueError):  # others tell of it
        return False


def _sum(total: float | None, reward: Any, sign: int = 1) -> float | None:
    try:
        return None if total is None else total + sign * float(reward)
    except (TypeError, ValueError):  # others tell of it
        return None
