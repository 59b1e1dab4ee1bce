"""Games with one flaw each, and what the preflight is asked about them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from marl_stable.agents.maddpg import MADDPG
from marl_stable.agents.mappo import MAPPO
from marl_stable.envs.base import BatchedEnv
from marl_stable.envs.probe import Probe
from marl_stable.investigate import baselines, preflight
from marl_stable.investigate.baselines import RandomPlay
from marl_stable.types import Box
from tests.agents.loops import make_agent, make_ddpg

CPU = torch.device("cpu")
ALGORITHMS = ("mappo", "ippo", "maddpg", "matd3", "iddpg")


def agent_for(env: BatchedEnv, algo: str, **settings: Any) -> MAPPO | MADDPG:
    return (make_agent if algo in ("mappo", "ippo") else make_ddpg)(env, algo, **settings)


def prepared(env: BatchedEnv, algo: str = "mappo", **settings: Any) -> tuple[MAPPO | MADDPG, RandomPlay]:
    """An agent as a run begins with it, and the random play."""
    played = baselines.random_play(env, 1)
    agent = agent_for(env, algo, **settings)
    agent.initialize_statistics(played.obs)
    return agent, played


def inspected(env: BatchedEnv, algo: str = "mappo", **settings: Any) -> dict[str, Any]:
    agent, played = prepared(env, algo, **settings)
    return preflight.inspect(agent, env, played, 1)


def remarks(found: dict[str, Any]) -> set[str]:
    """Everything that is not as it should be, by the limits of the theory."""
    bad = set()
    for paid in found["rewards"].values():
        bad |= {"non_finite reward"} if paid["non_finite"] else set()
        bad |= {"never paid"} if paid["scale"] == 0 else set()
        bad |= {"tail"} if (paid["tail_ratio"] or 0) > 50 else set()
        bad |= {"offset"} if (paid["offset_ratio"] or 0) > 10 else set()
        bad |= set() if 0.1 <= paid["return_std"] <= 30 else {"return_std"}
        bad |= {"reward_share"} if (paid["reward_share"] or 0) < 1e-4 else set()
    for seen in found["observations"].values():
        bad |= {key for key, value in seen.items() if key not in ("features", "clock") and value}
    bad |= {"same_length"} if found["ends"]["same_length"] else set()
    effect = found["effects"]
    bad |= {key for key in ("without_effect", "like_choice_0", "untried") if effect[key]}
    bad |= set() if effect["repeatable"] else {"not repeatable"}
    for faults in found["range"].values():
        bad |= {key for key, places in faults.items() if places}
    bad |= {"first_step" for reach in found["first_step"].values() if reach["value"] > reach["warn"]}
    return bad | {key for key in ("untrained", "non_finite") if found[key]}


class Healthy(Probe):
    """Five steps, cut off: minus the squared distance of two continuous actions to the first two of three features."""

    agents, obs_size, length, cut_off, best_return = 2, 3, 5, True, 0.0
    action: Any = Box((-1.0, -2.0), (1.0, 2.0))

    @staticmethod
    def value(gamma: float) -> float:
        return 0.0

    def _begin(self) -> Tensor:
        return self.changed(self._uniform())

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        reward = -(action - self.obs[..., :2]).square().sum(-1)
        return self.paid(reward), self.changed(self._uniform())

    def changed(self, obs: Tensor) -> Tensor:
        return obs

    def paid(self, reward: Tensor) -> Tensor:
        return reward


class DeadDimension(Healthy):
    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        return super()._play(action * torch.tensor([1.0, 0.0]))


class ZeroWidth(Healthy):
    action = Box((-1.0, 0.5), (1.0, 0.5))


class ConstantFeature(Healthy):
    def changed(self, obs: Tensor) -> Tensor:
        return torch.cat([obs[..., :2], torch.full_like(obs[..., 2:], 7.0)], dim=-1)


class HugeFeature(Healthy):
    def changed(self, obs: Tensor) -> Tensor:
        return obs * torch.tensor([1.0, 1.0, 1e4])


class TinyFeature(Healthy):
    def changed(self, obs: Tensor) -> Tensor:
        return obs * torch.tensor([1.0, 1.0, 1e-4])


class TwiceTheSame(Healthy):
    def changed(self, obs: Tensor) -> Tensor:
        return torch.cat([obs[..., :2], obs[..., :1]], dim=-1)


class Clipped(Healthy):
    def changed(self, obs: Tensor) -> Tensor:
        return torch.cat([obs[..., :2], obs[..., 2:].clamp_max(-0.5)], dim=-1)


class NotANumber(Healthy):
    """One copy sees NaN in its second feature at each episode's beginning."""

    def _begin(self) -> Tensor:
        obs = self._uniform()
        obs[0, 1, 2] = torch.nan
        return obs


class TinyReward(Healthy):
    def paid(self, reward: Tensor) -> Tensor:
        return 1e-4 * reward


class OffsetReward(Healthy):
    def paid(self, reward: Tensor) -> Tensor:
        return reward + 1000


class HeavyTail(Healthy):
    def paid(self, reward: Tensor) -> Tensor:
        rare = torch.rand(reward.shape, generator=self.generator) < 0.005
        return torch.where(rare, -1e4, reward)


class TimeLimitAsEnd(Healthy):
    cut_off = False


class Unrepeatable(Healthy):
    """Draws that no seed begins."""

    unseeded = torch.Generator().manual_seed(0)

    def changed(self, obs: Tensor) -> Tensor:
        return obs + 1e-3 * torch.rand(obs.shape, generator=self.unseeded)
