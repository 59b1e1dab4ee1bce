"""A VMAS simulator as one batched environment.

Shapes: E copies, A agents of one group, N agents, O observation features, D action features, K reward terms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from marl_stable.envs.groups import groups_of, stem
from marl_stable.envs.vmas import terms as reward_terms
from marl_stable.envs.vmas.simulator import Seen, Simulator, features
from marl_stable.types import EnvSpec, PerGroup, Step, UsageError


class VmasEnv:
    """E copies of one VMAS scenario, each with its own end and automatic reset."""

    def __init__(self, name: str, num_envs: int, device: torch.device, max_steps: int, **kwargs: Any) -> None:
        self.num_envs, self.device = num_envs, device
        self.replay_differs: tuple[int, ...] = ()
        self.simulator = Simulator(name, num_envs, device, max_steps, **kwargs)
        self.agents = self.simulator.agents
        self.spec = self._spec(f"vmas/{name}")
        self._members = {g.name: [self.agents.index(agent) for agent in g.agents] for g in self.spec.groups}
        self._always = {
            g.name: torch.ones(num_envs, len(g.agents), dtype=torch.bool, device=device) for g in self.spec.groups
        }
        self.obs: PerGroup = {}

    def reset(self, seed: int) -> PerGroup:
        """Begin the first episode of every copy; the same seed draws the same episodes."""
        self.obs = self._grouped(self.simulator.begin(seed))
        return self.obs

    def step(self, action: PerGroup) -> Step:
        """Advance every copy by one step, and begin a new episode where one ended.

        Raises EnvironmentFailure where VMAS refuses the actions or fails.
        """
        led_to, reward, terms, terminated, truncated = self.advance(action)
        done = terminated | truncated
        self.obs = self._begin_anew(done, led_to) if bool(done.any()) else led_to
        return Step(
            obs=self.obs,
            next_obs=led_to,
            reward=reward,
            terminated=self._for_all(terminated),
            truncated=self._for_all(truncated & ~terminated),
            alive=self._always,
            done=done,
            terms=terms,
        )

    def advance(self, action: PerGroup) -> tuple[PerGroup, PerGroup, PerGroup, Tensor, Tensor]:
        """Advance every copy by one step and leave it there.

        What it led to `(E, A, O)`, rewards `(E, A)`, their terms `(E, A, K)`, and which copies `(E,)` have ended or are
        cut off.
        """
        obs, reward, terminated, truncated, infos = self.played(action)
        rewards = {
            name: torch.stack([reward[i].float().view(-1) for i in members], 1)
            for name, members in self._members.items()
        }
        terms = {
            g.name: torch.stack([reward_terms.columns(infos[i], g.terms) for i in self._members[g.name]], 1)
            for g in self.spec.groups
            if g.terms
        }
        return self._grouped([features(each) for each in obs]), rewards, terms, terminated.view(-1), truncated.view(-1)

    def played(self, action: PerGroup) -> Any:
        """What VMAS makes of one step: observations, rewards, ended copies, those cut off, and infos."""
        actions: list[Any] = [None] * len(self.agents)
        for name, members in self._members.items():
            for i, member in enumerate(members):
                actions[member] = action[name][:, i].clone()  # VMAS changes the shape of what it is given
        return self.simulator.step(actions)

    def name_terms(self, names: tuple[str, ...]) -> None:
        """From now on tell these parts of `info` as the terms of every agent's reward."""
        self.spec = self.spec._replace(groups=tuple(group._replace(terms=names) for group in self.spec.groups))

    def state_dict(self) -> dict[str, Any]:
        """All tensors and numbers inside VMAS's objects, the observations and the generators."""
        return self.simulator.state_dict() | {"obs": {name: obs.clone() for name, obs in self.obs.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> PerGroup:
        """Go on where `state_dict` was taken.

        Copies whose world shows other observations than were saved (a scenario that keeps state out of sight) begin a
        new episode and are named in `replay_differs`.
        """
        self.obs = {name: obs.to(self.device, copy=True) for name, obs in state["obs"].items()}
        fits = self.simulator.load_state_dict(state)
        everyone = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        differs = self._differs(state) if fits else everyone
        self.replay_differs = tuple(differs.nonzero().flatten().tolist())
        if self.replay_differs:
            self.obs = self._begin_anew(differs, self.obs)
        return self.obs

    def render(self) -> Any:
        """The first copy as an RGB array `(height, width, 3)` uint8; UsageError where this machine cannot draw."""
        try:
            return np.ascontiguousarray(self.simulator.env.render(mode="rgb_array"))
        except Exception as error:
            raise UsageError(
                f"{self.spec.id} cannot be drawn here ({type(error).__name__}: {error}); pyglet needs a display, or "
                "EGL and GLU without one: apt install libegl1 libglu1-mesa."
            ) from error

    def close(self) -> None:
        """Close the window that pictures were drawn in."""
        self.simulator.close()

    def _spec(self, env_id: str) -> EnvSpec:
        sizes, actions = self.simulator.sizes, self.simulator.env.action_space
        observation = {a: spaces.Box(-np.inf, np.inf, (n,)) for a, n in zip(self.agents, sizes, strict=True)}
        action = {a: _space(own) for a, own in zip(self.agents, actions, strict=True)}
        teams = _teams(env_id, self.agents, [agent.adversary for agent in self.simulator.env.agents])
        return EnvSpec(env_id, tuple(self.agents), groups_of(self.agents, observation, action, teams))

    def _begin_anew(self, ended: Tensor, obs: PerGroup) -> PerGroup:
        """New episodes in the copies `ended` (E,); the observations `obs` of the others stay as they are."""
        first = self._grouped(self.simulator.begin_anew(ended))
        return {name: torch.where(ended.view(-1, 1, 1), new, obs[name]) for name, new in first.items()}

    def _differs(self, state: dict[str, Any]) -> Tensor:
        """Copies (E,) that look otherwise than when saved; none where looking twice shows two things (noise)."""
        looks = [self._grouped(seen) for seen in self.simulator.looks(state)]
        other = [(looks[0][name] != obs).flatten(1).any(1) for name, obs in self.obs.items()]
        noise = any(not torch.equal(looks[0][name], looks[1][name]) for name in looks[0])
        return torch.stack(other).any(0) & (not noise)

    def _grouped(self, obs: Seen) -> PerGroup:
        return {name: torch.stack([obs[i] for i in members], 1) for name, members in self._members.items()}

    def _for_all(self, flags: Tensor) -> PerGroup:
        """(E,) to (E, A) of every group."""
        return {g.name: flags.unsqueeze(1).expand(-1, len(g.agents)).contiguous() for g in self.spec.groups}


def _space(own: Any) -> spaces.Space[Any]:
    """One of Gym's spaces, which VMAS still uses, as Gymnasium's."""
    return spaces.Box(own.low, own.high) if hasattr(own, "low") else spaces.Discrete(int(own.n))


def _teams(env_id: str, agents: list[str], adversary: list[bool]) -> dict[str, str]:
    """VMAS marks adversaries; football's sides are told apart by their names alone."""
    if env_id == "vmas/football":
        return {agent: stem(agent).removeprefix("agent_") for agent in agents}
    if any(adversary):
        return {agent: "adversary" if against else "agent" for agent, against in zip(agents, adversary, strict=True)}
    return dict.fromkeys(agents, "team")
