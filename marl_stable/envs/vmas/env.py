"""A VMAS simulator as one batched environment.

Shapes: E copies, A agents of one group, N agents, O observation features, D action features, K reward terms.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from marl_stable.envs.groups import groups_of, stem
from marl_stable.envs.vmas import generators, object_state
from marl_stable.envs.vmas import terms as reward_terms
from marl_stable.envs.vmas.generators import OwnGenerators
from marl_stable.types import Box, EnvironmentFailure, EnvSpec, Group, PerGroup, Step, UsageError


class VmasEnv:
    """E copies of one VMAS scenario, each with its own end and automatic reset."""

    def __init__(self, name: str, num_envs: int, device: torch.device, max_steps: int, **kwargs: Any) -> None:
        self.num_envs, self.device = num_envs, device
        self.replay_differs: tuple[int, ...] = ()
        self.generators = OwnGenerators(device)
        self.simulator = self._make(name, {"max_steps": max_steps, **kwargs})
        self.agents = [agent.name for agent in self.simulator.agents]
        self.spec = self._spec(f"vmas/{name}")
        self._members = {g.name: [self.agents.index(agent) for agent in g.agents] for g in self.spec.groups}
        self._always = {
            g.name: torch.ones(num_envs, len(g.agents), dtype=torch.bool, device=device) for g in self.spec.groups
        }
        self._can_mix = True
        self.obs: PerGroup = {}
        self._settle()
        self._new = object_state.take(self._root())

    def reset(self, seed: int) -> PerGroup:
        """Begin the first episode of every copy; the same seed draws the same episodes."""
        self._put(self._new)  # some scenarios carry state over a reset
        self.generators.seed(seed)
        with self.generators.in_use():
            self._reset_all()
            self.obs = self._observe()
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
        return self._grouped(obs), rewards, terms, terminated.view(-1), truncated.view(-1)

    def played(self, action: PerGroup) -> Any:
        """What VMAS makes of one step: observations, rewards, ended copies, those cut off, and infos."""
        actions: list[Any] = [None] * len(self.agents)
        for name, members in self._members.items():
            for i, member in enumerate(members):
                actions[member] = action[name][:, i].clone()  # VMAS changes the shape of what it is given
        try:
            with self.generators.in_use():
                return self._call("step", actions)
        except Exception as error:
            told = str(error) or "an action is not a number, or it is outside its bounds"
            raise EnvironmentFailure(f"{self.spec.id} failed in a step: {type(error).__name__}: {told}") from error

    def name_terms(self, names: tuple[str, ...]) -> None:
        """From now on tell these parts of `info` as the terms of every agent's reward."""
        self.spec = self.spec._replace(groups=tuple(group._replace(terms=names) for group in self.spec.groups))

    def state_dict(self) -> dict[str, Any]:
        """All tensors and numbers inside VMAS's objects, the observations and the generators."""
        return {
            "world": object_state.take(self._root()),
            "obs": {name: obs.clone() for name, obs in self.obs.items()},
            "generators": self.generators.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> PerGroup:
        """Go on where `state_dict` was taken.

        Copies whose world shows other observations than were saved (a scenario that keeps state out of sight) begin a
        new episode and are named in `replay_differs`.
        """
        self.obs = {name: obs.to(self.device, copy=True) for name, obs in state["obs"].items()}
        fits = self._put(state["world"])
        self.generators.load_state_dict(state["generators"])
        everyone = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        differs = self._differs(state) if fits else everyone
        self.replay_differs = tuple(differs.nonzero().flatten().tolist())
        if self.replay_differs:
            self.obs = self._begin_anew(differs, self.obs)
        return self.obs

    def render(self) -> Any:
        """The first copy as an RGB array `(height, width, 3)` uint8; UsageError where this machine cannot draw."""
        try:
            return np.ascontiguousarray(self.simulator.render(mode="rgb_array"))
        except Exception as error:
            raise UsageError(
                f"{self.spec.id} cannot be drawn here ({type(error).__name__}: {error}); pyglet needs a display, or "
                "EGL and GLU without one: apt install libegl1 libglu1-mesa."
            ) from error

    def close(self) -> None:
        """Close the window that pictures were drawn in."""
        if self.simulator.viewer is not None:
            self.simulator.viewer.close()
            self.simulator.viewer = None

    def _make(self, name: str, kwargs: dict[str, Any]) -> Any:
        """The simulator, made with generators of our own so that two are made alike."""
        vmas = importlib.import_module("vmas")
        shared = vmas.simulator.environment.Environment.vmas_random_state  # what all instances draw from
        before = list(shared)
        with self.generators.in_use(), warnings.catch_warnings():
            warnings.filterwarnings("error", message="Scenario kwargs")  # VMAS only warns of misspelt ones
            shared[:] = self.generators.states[:3]
            try:
                return vmas.make_env(
                    name, self.num_envs, self.device, clamp_actions=True, terminated_truncated=True, **kwargs
                )
            finally:
                shared[:] = before

    def _settle(self) -> None:
        """One step of doing nothing: scenarios make much of what holds their state in their first step."""
        self.infos = self.played({g.name: _nothing(g, self.num_envs, self.device) for g in self.spec.groups})[-1]

    def _spec(self, env_id: str) -> EnvSpec:
        with self.generators.in_use():
            seen = self._call("get_from_scenario", True, False, False, False)[0]
        sizes = [_flat(obs).shape[1] for obs in seen]
        observation = {a: spaces.Box(-np.inf, np.inf, (n,)) for a, n in zip(self.agents, sizes, strict=True)}
        action = {a: _space(own) for a, own in zip(self.agents, self.simulator.action_space, strict=True)}
        teams = _teams(env_id, self.agents, [agent.adversary for agent in self.simulator.agents])
        return EnvSpec(env_id, tuple(self.agents), groups_of(self.agents, observation, action, teams))

    def _begin_anew(self, ended: Tensor, obs: PerGroup) -> PerGroup:
        """New episodes in the copies `ended` (E,); the observations `obs` of the others stay as they are."""
        with self.generators.in_use():
            self._restart(ended)
            first = self._observe()
        return {name: torch.where(ended.view(-1, 1, 1), new, obs[name]) for name, new in first.items()}

    def _restart(self, ended: Tensor) -> None:
        """Restart `ended`: restart all, and give the others back their rows of everything.

        VMAS restarts one copy in the time that it takes for all; and to do so changes others in some scenarios
        (`ball_trajectory` gives all of them the shaping of the one). It is left to VMAS where something without rows
        changes at a restart (`football`).
        """
        copies = ended.nonzero().flatten().tolist()
        if len(copies) == self.num_envs:
            self._reset_all()
            return
        if self._can_mix:
            before, streams = object_state.take(self._root()), generators.read(self.generators.cuda)
            self._reset_all()
            if object_state.keep_rows(self._root(), before, ~ended):
                return
            self._can_mix = False
            if not self._put(before):
                raise EnvironmentFailure(f"{self.spec.id} cannot restart one copy and leave the others as they were")
            generators.write(streams, self.generators.cuda)
        for copy in copies:
            self._call("reset_at", copy, return_observations=False)

    def _reset_all(self) -> None:
        with self.generators.in_use():
            self._call("reset", return_observations=False)

    def _put(self, state: object_state.Snapshot) -> bool:
        """Give the simulator `state`; False where its objects are other ones.

        Some scenarios drop objects at a reset and make them again in the next step (`football`).
        """
        if object_state.put(self._root(), state):
            return True
        self._settle()
        if object_state.put(self._root(), state):
            return True
        self._reset_all()
        return object_state.put(self._root(), state)

    def _differs(self, state: dict[str, Any]) -> Tensor:
        """Copies (E,) that look otherwise than when saved; none where looking twice shows two things (noise)."""
        looks = []
        with self.generators.in_use():
            for _ in range(2):
                looks.append(self._observe())
                object_state.put(self._root(), state["world"])
        self.generators.load_state_dict(state["generators"])
        other = [(looks[0][name] != obs).flatten(1).any(1) for name, obs in self.obs.items()]
        noise = any(not torch.equal(looks[0][name], looks[1][name]) for name in looks[0])
        return torch.stack(other).any(0) & (not noise)

    def _root(self) -> list[Any]:
        """Where the state hangs: the entities first, so that they are named by their places in the world."""
        world = self.simulator.world
        return [world.landmarks, world.agents, self.simulator]

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """A method of VMAS without its exchange of generators, which are all instances' common ones."""
        return inspect.unwrap(getattr(type(self.simulator), method))(self.simulator, *args, **kwargs)

    def _observe(self) -> PerGroup:
        return self._grouped(self._call("get_from_scenario", True, False, False, False)[0])

    def _grouped(self, obs: list[Any]) -> PerGroup:
        return {name: torch.stack([_flat(obs[i]) for i in members], 1) for name, members in self._members.items()}

    def _for_all(self, flags: Tensor) -> PerGroup:
        """(E,) to (E, A) of every group."""
        return {g.name: flags.unsqueeze(1).expand(-1, len(g.agents)).contiguous() for g in self.spec.groups}


def _space(own: Any) -> spaces.Space[Any]:
    """One of Gym's spaces, which VMAS still uses, as Gymnasium's."""
    return spaces.Box(own.low, own.high) if hasattr(own, "low") else spaces.Discrete(int(own.n))


def _nothing(group: Group, copies: int, device: torch.device) -> Tensor:
    shape = (copies, len(group.agents))
    if isinstance(group.action, Box):
        return torch.zeros(*shape, len(group.action.low), device=device)
    return torch.zeros(shape, dtype=torch.int64, device=device)


def _flat(obs: Any) -> Tensor:
    """One agent's observation, a tensor or a dict of them, as features (E, O)."""
    if isinstance(obs, dict):
        return torch.cat([_flat(part) for part in obs.values()], dim=1)
    features: Tensor = obs.float().flatten(1)
    return features


def _teams(env_id: str, agents: list[str], adversary: list[bool]) -> dict[str, str]:
    """VMAS marks adversaries; football's sides are told apart by their names alone."""
    if env_id == "vmas/football":
        return {agent: stem(agent).removeprefix("agent_") for agent in agents}
    if any(adversary):
        return {agent: "adversary" if against else "agent" for agent, against in zip(agents, adversary, strict=True)}
    return dict.fromkeys(agents, "team")
