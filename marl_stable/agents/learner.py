"""How one group of agents learns with PPO: its networks, statistics, optimisers and storage, and their update.

Shapes: T steps, E copies, K steps with final observations, B = T * E rows, A agents, O observation features,
S features of the joint observation, R optimiser rows (1 where agents share, else A).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from marl_stable.agents.config import MAPPOConfig
from marl_stable.agents.ppo import Batch, normalized_advantage, policy_loss, value_loss
from marl_stable.buffers import Rollout
from marl_stable.monitor import signals
from marl_stable.networks.actor_critic import Actor, CentralCritic, LocalCritic
from marl_stable.networks.heads import Categorical
from marl_stable.normalize import RunningNorm
from marl_stable.optim import GuardedAdam, StepStats
from marl_stable.returns import explained_variance, finished, gae
from marl_stable.types import Discrete, Group

OBS_CLIP, VALUE_CLIP, REWARD_CLIP = 5.0, 10.0, 10.0  # deviations
PROBE = 256  # observations at which the policy is asked how it responds


class GroupLearner:
    """Everything of one group that has a state."""

    def __init__(
        self,
        group: Group,
        config: MAPPOConfig,
        joint: int | None,
        shape: tuple[int, int],
        device: torch.device,
        init: torch.Generator,
        refuse: bool,
    ) -> None:
        """`joint`: S for a central critic, None for a local one; `shape`: (T, E); `init` draws the first weights."""
        agents, share = len(group.agents), config.share
        self.group, self.config, self.central = group, config, joint is not None
        self.actor = Actor(group, config.actor_network.over(config.network), share, config.squash, init).to(device)
        network = config.critic_network.over(config.network)
        critic: nn.Module = (
            LocalCritic(agents, group.obs_size, network, share, init)
            if joint is None
            else CentralCritic(agents, joint, network, init)
        )
        self.critic = critic.to(device)
        self.obs_norm = RunningNorm((group.obs_size,) if share else (agents, group.obs_size), OBS_CLIP).to(device)
        self.value_norm = RunningNorm((agents,), VALUE_CLIP).to(device)
        self.reward_norm = RunningNorm((agents,), REWARD_CLIP).to(device)
        rows = 1 if share else agents
        self.actor_optimizer = _optimizer(self.actor, rows, config, refuse)
        self.critic_optimizer = _optimizer(self.critic, 1 if self.central else rows, config, refuse)
        self.rollout = Rollout(*shape, group, device)

    def normalized(self, obs: Tensor) -> Tensor:
        """What the actor sees of raw observations `(..., A, O)`."""
        return self.obs_norm(obs) if self.config.normalize_obs else obs

    def take_in(self, obs: Tensor, alive: Tensor | None) -> None:
        """Let raw observations `(N, A, O)` of living agents `(N, A)` into the statistics."""
        if not self.config.normalize_obs:
            return
        weight = None if alive is None else alive.unsqueeze(-1).expand_as(obs)
        if self.config.share:  # one statistic for all agents: their rows are rows alike
            obs = obs.flatten(0, 1)
            weight = None if weight is None else weight.flatten(0, 1)
        self.obs_norm.update(obs, weight)

    @torch.no_grad()
    def batch(self, seen: Tensor, critic_input: Tensor) -> tuple[Batch, dict[str, Tensor]]:
        """Rows to learn from, and what was seen on the way.

        `seen (T + 1 + K, E, A, O)` are the normalised observations, `critic_input` the same or `(T + 1 + K, E, S)`.
        """
        c, r = self.config, self.rollout
        steps = len(r.reward)
        normal = self.critic(critic_input.flatten(0, 1)).unflatten(0, critic_input.shape[:2])  # (T + 1 + K, E, A)
        value = self.value_norm.inverse(normal) if c.normalize_value else normal
        value, final_value, reward = value[: steps + 1], value[steps + 1 :], self._scaled_reward()
        flow = (value[:-1], r.next_values(value, final_value), r.terminated, r.ended)
        assert isinstance(c.gamma, float)
        advantage = gae(reward, *flow, c.gamma, c.gae_lambda)
        target = (advantage + value[:-1]).flatten(0, 1)
        alive = r.alive.flatten(0, 1).to(target.dtype)
        if c.normalize_value:
            self.value_norm.update(target, alive)
            target = self.value_norm(target)
        rows = Batch(
            obs=seen[:steps].flatten(0, 1),
            critic_input=critic_input[:steps].flatten(0, 1),
            action=r.action.flatten(0, 1),
            log_prob=r.log_prob.flatten(0, 1),
            advantage=self._advantage(advantage.flatten(0, 1), alive),
            value=(self.value_norm(value[:-1]) if c.normalize_value else value[:-1]).flatten(0, 1),
            target=target,
            alive=alive,
        )
        monte_carlo = gae(reward, *flow, c.gamma, 1.0) + value[:-1]
        known = (finished(r.ended) & r.alive).flatten(0, 1).to(target.dtype)
        explained = explained_variance(monte_carlo.flatten(0, 1), value[:-1].flatten(0, 1), known)
        return rows, {"losses/explained_variance": explained.nanmean()}

    def _scaled_reward(self) -> Tensor:
        """`(T, E, A)`: raw, or divided by its robust scale. Never centred: that would change tasks that terminate."""
        reward = self.rollout.reward
        if not self.config.normalize_reward:
            return reward
        self.reward_norm.update(reward.flatten(0, 1), self.rollout.alive.flatten(0, 1))
        return self.reward_norm.scaled(reward)

    def _advantage(self, advantage: Tensor, alive: Tensor) -> Tensor:
        return normalized_advantage(advantage, alive) if self.config.normalize_advantage else advantage

    def learn(self, batch: Batch, scale: float, entropy_scale: float) -> dict[str, Tensor]:
        """One step of actor and critic; the factors are those of the schedule."""
        c = self.config
        policy = self.actor(batch.obs)
        entropy_coef = c.entropy_coef * entropy_scale
        loss, stats = policy_loss(policy, batch, c.clip_coef, entropy_coef, c.action_penalty, c.share)
        moved = self.actor_optimizer.step(loss, scale * (c.actor_lr or c.lr))
        value = self.critic(batch.critic_input)
        loss = value_loss(value, batch, c.clip_value, share=self.central or c.share)
        stats["losses/critic"] = loss.detach()
        fitted = self.critic_optimizer.step(loss, scale * (c.critic_lr or c.lr))
        return stats | _step_stats("actor", moved) | _step_stats("critic", fitted)

    def finish(self, losses: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Means over the update's steps; observation statistics move on only now, between updates."""
        self.take_in(self.rollout.obs[:-1].flatten(0, 1), self.rollout.alive.flatten(0, 1))
        self.rollout.clear()
        means = {tag: torch.stack([step[tag] for step in losses]).float().mean(0) for tag in losses[0]}
        norms = self.actor_optimizer.weight_norm().square().sum() + self.critic_optimizer.weight_norm().square().sum()
        return means | {"weights/norm": norms.sqrt()}

    @torch.no_grad()
    def action_signals(self) -> dict[str, Tensor]:
        """How the actions of the rollout behave, `(A,)` each; the policy is asked at observations spread over it."""
        r = self.rollout
        obs = r.obs[:-1].flatten(0, 1)
        probe = self.actor(self.normalized(obs[:: max(1, len(obs) // PROBE)]))
        action = self.actor.canonical(r.action)
        if isinstance(probe, Categorical):
            probs = probe.log_probs.exp()
            responds, saturated = signals.discrete_responsiveness(probs), signals.discrete_saturation(probs)
        else:
            mode = self.actor.canonical(probe.mode())
            responds, saturated = signals.continuous_responsiveness(mode), signals.continuous_saturation(mode)
        return {
            "actions/saturation": saturated,
            "actions/repeat_ratio": signals.repeat_ratio(action, r.ended),
            "actions/responsiveness": responds,
            "sameness": self.sameness(action),
        }

    def sameness(self, action: Tensor) -> Tensor:
        """`(A,)` how alike canonical actions are."""
        if isinstance(self.group.action, Discrete):
            return signals.discrete_sameness(action, self.group.action.n)
        return signals.continuous_sameness(action)

    def action_counts(self) -> dict[str, Tensor]:
        """Counts of the rollout's executed actions, `agent/dimension -> (bins,)`."""
        n = self.group.action.n if isinstance(self.group.action, Discrete) else None
        counts = signals.action_counts(self.actor.canonical(self.rollout.action), n)
        counts = counts.unsqueeze(1) if n is not None else counts  # (A, D, bins)
        return {
            f"{agent}/{d}": counts[a, d] for a, agent in enumerate(self.group.agents) for d in range(counts.shape[1])
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything but the rollout."""
        return {key: dict(part.state_dict()) for key, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        for key, part in self._parts().items():
            part.load_state_dict(state[key])

    def _parts(self) -> dict[str, Any]:
        names = ("actor", "critic", "obs_norm", "value_norm", "reward_norm", "actor_optimizer", "critic_optimizer")
        return {name: getattr(self, name) for name in names}


def _optimizer(network: nn.Module, rows: int, c: MAPPOConfig, refuse: bool) -> GuardedAdam:
    return GuardedAdam(network, rows, c.adam_betas, c.adam_eps, c.max_grad_norm, c.weight_decay, c.l1, refuse)


def _step_stats(name: str, step: StepStats) -> dict[str, Tensor]:
    """Gradient norm, clipped and non-finite shares of a step, `(R,)`: by row, to name the agent."""
    return {
        f"grad_norm/{name}": step.norm,
        f"grad_norm/{name}_clipped_fraction": step.clipped,
        f"non_finite/{name}": step.non_finite,
    }
