"""mpe2's tasks as `ParallelEnv`s without what PettingZoo puts between: the same episodes in about half the time.

PettingZoo makes them of turns. Every turn passes through two wrappers, which look up each attribute through one
another, and observes the agent only to throw the observation away. Here the same task is stepped by its own interface.
Only where that makes no difference is it done: mpe2's observations draw no random numbers, its rewards stay those of
the last turn of a step, and the wrappers do nothing but check what the adapter has decoded into the space already.
"""

from __future__ import annotations

import importlib
from typing import Any

WRAPPERS = ("AssertOutOfBoundsWrapper", "ClipOutOfBoundsWrapper", "OrderEnforcingWrapper")


class Unwrapped:
    """One of mpe2's tasks; `env` is what `parallel_env` makes of it, which still draws it and begins its episodes."""

    def __init__(self, env: Any) -> None:
        self.env, self.unwrapped = env, env.unwrapped
        self.metadata, self.render_mode = env.metadata, env.render_mode
        self.possible_agents: list[str] = env.possible_agents
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.render, self.state, self.close = env.render, env.state, env.close

    @property
    def agents(self) -> list[str]:
        """Who is there; everybody until the episode ends."""
        agents: list[str] = self.unwrapped.agents
        return agents

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], Any]:
        """Begin an episode; observations and infos."""
        observations, infos = self.env.reset(seed=seed, options=options)
        return observations, infos

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        """One turn of every agent: observations, rewards, terminations, truncations, infos."""
        task = self.unwrapped
        for agent in task.agents:
            task.step(actions[agent])
        told = (dict(task.rewards), dict(task.terminations), dict(task.truncations), dict(task.infos))
        observations = {agent: task.observe(agent) for agent in task.agents}
        while task.agents and (task.terminations[task.agent_selection] or task.truncations[task.agent_selection]):
            task.step(None)  # takes one of the dead away
        return observations, *told


def unwrapped(env: Any) -> Any:
    """`env`, or the same without wrappers where it is one of mpe2's own tasks as `parallel_env` makes them."""
    conversions = importlib.import_module("pettingzoo.utils.conversions")
    if type(env) is not conversions.aec_to_parallel_wrapper or not type(env.unwrapped).__module__.startswith("mpe2."):
        return env
    wrappers = importlib.import_module("pettingzoo.utils.wrappers")
    known = [getattr(wrappers, name, None) for name in WRAPPERS]  # not all of them in every version
    inner = env.aec_env
    while type(inner) in known:
        inner = inner.env
    return Unwrapped(env) if inner is env.unwrapped else env
