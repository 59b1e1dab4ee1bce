"""Plays a batched task beside mpe2's own, copy by copy, and compares all that can be seen."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from marl_stable.envs import particle
from marl_stable.envs.particle import ParticleEnv
from marl_stable.types import Discrete, PerGroup
from tests.envs import playing
from tests.envs.particle.hidden import Hiding, Repeated, bring, told

CPU = torch.device("cpu")

Actor = Callable[[ParticleEnv, PerGroup, torch.Generator], PerGroup]


def make(name: str, num_envs: int = 3, **kwargs: Any) -> ParticleEnv:
    return particle.make(name, num_envs, CPU, **kwargs)


def random_actions(env: ParticleEnv, obs: PerGroup, draw: torch.Generator) -> PerGroup:
    return roughly(playing.random_actions(env, draw), draw)


def towards(offset: torch.Tensor, continuous: bool) -> torch.Tensor:
    """The moves (..., ) or pushes (..., 5) that go along the offsets (..., 2)."""
    right, up = offset[..., 0], offset[..., 1]
    if continuous:
        return torch.stack([torch.zeros_like(right), -right, right, -up, up], -1).mul(3).clamp(0, 1)
    across = torch.where(right > 0, 2, 1)
    along = torch.where(up > 0, 4, 3)
    return torch.where(right.abs() > up.abs(), across, along)


class Twin:
    """One mpe2 environment in the state of one of our copies."""

    def __init__(self, env: ParticleEnv, copy: int, name: str, **kwargs: Any) -> None:
        self.env, self.copy = env, copy
        self.mpe2 = importlib.import_module(f"mpe2.{name}").parallel_env(**kwargs)
        self.mpe2.reset(seed=0)
        self.world = self.mpe2.unwrapped.world
        place = env.pos[:, copy].reshape(-1, 2).numpy().copy()
        speed = np.zeros_like(place)
        speed[env.movers.start : env.movers.stop] = env.vel[:, copy].reshape(-1, 2).numpy()
        for i, entity in enumerate(self.world.entities):
            entity.state.p_pos, entity.state.p_vel = place[i].copy(), speed[i].copy()
        bring(env, copy, self.mpe2.unwrapped)

    def places(self) -> NDArray[np.float64]:
        return np.concatenate([entity.state.p_pos for entity in self.world.entities])

    def observations(self) -> dict[str, NDArray[np.float32]]:
        seen: dict[str, NDArray[np.float32]] = {a: self.mpe2.unwrapped.observe(a) for a in self.env.spec.agents}
        return seen

    def step(self, actions: PerGroup, hidings: list[Hiding]) -> tuple[Any, ...]:
        if hidings:
            self.world._np_random = Repeated(hidings[-1], self.copy, self.world)
        given: dict[str, Any] = {}
        for group in self.env.spec.groups:
            for i, agent in enumerate(group.agents):
                action = actions[group.name][self.copy, i]
                given[agent] = int(action) if isinstance(group.action, Discrete) else action.numpy()
        observed: tuple[Any, ...] = self.mpe2.step(given)
        return observed


def assert_twins(
    env: ParticleEnv, name: str, act: Actor = random_actions, velocity: float = 0.0, **kwargs: Any
) -> list[PerGroup]:
    """Play one episode in every copy and in its twin, begun at random velocities; the rewards of each step."""
    obs = env.reset(seed=11)
    draw = torch.Generator().manual_seed(5)
    if velocity:
        thrown = velocity * torch.randn(env.vel.shape, generator=draw, dtype=torch.float64)
        obs = env.load_state_dict(env.state_dict() | {"vel": thrown})
    twins = [Twin(env, copy, name, **kwargs) for copy in range(env.num_envs)]
    where = [(agent, group.name, i) for group in env.spec.groups for i, agent in enumerate(group.agents)]
    for copy, twin in enumerate(twins):
        seen = twin.observations()
        for agent, group_name, i in where:
            np.testing.assert_allclose(obs[group_name][copy, i].numpy(), seen[agent], atol=1e-6, rtol=0)
    drawn = told(env)
    rewards = []
    for t in range(env.max_cycles):
        actions = act(env, obs, draw)
        before = env.pos.clone()
        step = env.step(actions)
        obs = step.obs
        rewards.append(step.reward)
        last = t == env.max_cycles - 1
        assert step.done.tolist() == [last] * env.num_envs
        for copy, twin in enumerate(twins):
            observed, paid, terminated, truncated, _ = twin.step(actions, drawn[: t + 1])
            if last:
                assert not torch.equal(env.pos, before)  # the next episode has begun
            else:
                places = twin.places()
                np.testing.assert_allclose(env.pos[: len(places), copy].numpy(), places, atol=1e-7, rtol=0)
            for agent, group_name, i in where:
                np.testing.assert_allclose(
                    step.next_obs[group_name][copy, i].numpy(), observed[agent], atol=1e-6, rtol=0
                )
                assert float(step.reward[group_name][copy, i]) == pytest.approx(paid[agent], abs=1e-6, rel=1e-6)
                assert bool(step.terminated[group_name][copy, i]) is terminated[agent]
                assert bool(step.truncated[group_name][copy, i]) is truncated[agent]
    return rewards


def roughly(actions: PerGroup, draw: torch.Generator) -> PerGroup:
    """Pushes with all the digits of float32, as a policy gives them; `torch.rand` alone lies on a coarse grid."""
    rough = {}
    for name, x in actions.items():
        rough[name] = 0.9 * x + 0.1 * torch.rand(x.shape, generator=draw) ** 3 if x.is_floating_point() else x
    return rough
