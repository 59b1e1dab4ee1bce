"""A turn-based environment as the doctor plays it."""

from __future__ import annotations

from typing import Any

from marl_stable.investigate.doctor.findings import Fault, Finding
from marl_stable.investigate.doctor.play import Moment, Play, fault, tells_end
from marl_stable.investigate.doctor.turns import Ledger


class TurnPlay(Play):
    """A PettingZoo `AECEnv`: a step is one turn. A reward is what an agent gained in it, as `env.last()` adds them up.

    `paid` and `told`: whether any of `env.rewards`, and of what `env.last()` reports, was not 0.
    """

    turn_based = True

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.paid = self.told = False
        self._totals: dict[str, Any] = {}
        self._ledger = Ledger()

    @property
    def possible(self) -> list[str]:
        """Every agent that there can be."""
        return list(self.env.possible_agents)

    def deciding(self) -> list[str]:
        """The agent whose turn it is."""
        return [self.env.agent_selection] if self._going() else []

    def _going(self) -> list[str]:
        ends = self.env.terminations, self.env.truncations
        return [agent for agent in self.env.agents if not any(tells_end(told, agent) for told in ends)]

    def _reset(self, seed: int | None) -> Moment:
        self.env.reset(seed=seed)
        self._ledger.begin(self.env)
        self._totals = {}
        agents = list(self.env.agents)
        return Moment({agent: self.env.observe(agent) for agent in agents}, agents, dict(self.env.infos))

    def _step(self, actions: dict[str, Any]) -> Moment:
        actor = self.env.agent_selection
        self._act(actions[actor])
        rewards = self._gained(actor)
        present = list(self.env.agents)
        terminated, truncated = dict(self.env.terminations), dict(self.env.truncations)
        obs = {agent: self.env.observe(agent) for agent in present}
        infos = dict(self.env.infos)
        while self._going() and self.env.agent_selection not in self._going():
            self._take_away(self.env.agent_selection)
        agents, over = list(self.env.agents), not self._going()
        if over:
            self._empty()
        return Moment(obs, agents, infos, [actor], rewards, terminated, truncated, over)

    def slips(self) -> list[Finding]:
        """Promises of the turn-based interface that were broken; where nothing is ever told as reward, that says it."""
        silent = self.paid and not self.told
        return [slip for slip in self._ledger.slips.values() if not (silent and slip.where.get("call") == "last")]

    def _act(self, action: Any) -> None:
        there = list(self.env.agents)
        self._ledger.before(self.env)
        self._ledger.after(self.env, there, self.env.step(action))

    def _empty(self) -> None:
        """Give everybody who is left the turn that takes it away."""
        for _ in range(len(self.env.agents)):
            if left := list(self.env.agents):
                self._act(None)
                if set(left) == set(self.env.agents):
                    self._ledger.stay(left[0])
                    return

    def _gained(self, actor: str) -> dict[str, Any]:
        """What each agent gained; where that is no number, what `env.rewards` says."""
        immediate = dict(self.env.rewards)
        try:
            paid = [float(reward) for reward in immediate.values()]
            totals = {agent: float(total) for agent, total in self.env._cumulative_rewards.items()}
        except (TypeError, ValueError):
            return immediate
        self.paid = self.paid or any(paid)
        self.told = self.told or any(totals.values())
        before, self._totals = self._totals, totals
        return {agent: total - (0.0 if agent == actor else before.get(agent, 0.0)) for agent, total in totals.items()}

    def _take_away(self, dead: str) -> None:
        self._act(None)
        self._totals = dict(self.env._cumulative_rewards)
        if dead in self.env.agents:
            what = f"{dead} has ended, but step(None) does not take it out of env.agents."
            remedy = "Call self._was_dead_step(action) where the selected agent has ended."
            raise Fault(fault("agent_appears", {"agent": dead}, "step(None)", what, remedy))
