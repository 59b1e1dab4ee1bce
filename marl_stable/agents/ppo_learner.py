"""How one group of agents learns with PPO: its networks, statistics, optimisers and storage, and their update.

Shapes: T steps, E copies, K steps with final observations, B = T * E rows, A agents, O observation features,
S features of the joint observation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marl_stable.agents import behaviour
from marl_stable.agents.base import mean_of
from marl_stable.agents.config import MAPPOConfig
from marl_stable.agents.group_learner import GroupLearner, step_stats
from marl_stable.agents.ppo import Batch, normalized_advantage, policy_loss, value_loss
from marl_stable.buffers import Rollout
from marl_stable.networks.actor_critic import Actor, CentralCritic, LocalCritic
from marl_stable.networks.batchnorm import BatchNorms
from marl_stable.networks.heads import Distribution
from marl_stable.normalize import RunningNorm
from marl_stable.returns import explained_variance, finished, gae, gae_by_turns
from marl_stable.types import Group

VALUE_CLIP = 10.0  # deviations


class PPOLearner(GroupLearner):
    """A group's stochastic actor, its critic, and the rollout that they learn from."""

    PARTS = ("actor", "critic", "obs_norm", "value_norm", "reward_norm", "actor_optimizer", "critic_optimizer")

    def __init__(
        self,
        group: Group,
        config: MAPPOConfig,
        joint: int | None,
        shape: tuple[int, int],
        turn_based: bool,
        device: torch.device,
        init: torch.Generator,
        refuse: bool,
    ) -> None:
        """`joint`: S for a central critic, None for a local one; `shape`: (T, E); `init` draws the first weights."""
        super().__init__(group, config, joint is not None, device)
        agents, share = len(group.agents), config.share
        self.config, self.turn_based = config, turn_based
        self.actor = Actor(group, config.actor_network.over(config.network), share, config.squash, init).to(device)
        network = config.critic_network.over(config.network)
        critic: CentralCritic | LocalCritic = (
            LocalCritic(agents, group.obs_size, network, share, init)
            if joint is None
            else CentralCritic(agents, joint, network, init)
        )
        self.critic = critic.to(device)
        self.actor_norms, self.critic_norms = BatchNorms(self.actor), BatchNorms(self.critic)
        self.value_norm = RunningNorm((agents,), VALUE_CLIP).to(device)
        self._add_optimizers(self.actor, self.critic, config, refuse)
        self.rollout = self._storage(*shape, device)

    def _storage(self, steps: int, copies: int, device: torch.device) -> Rollout:
        return Rollout(steps, copies, self.group, device)

    def explore(self, t: int, obs: Tensor) -> Distribution:
        """The policy at step `t` of the batch, from raw observations `(E, A, O)`."""
        return self.actor(self.normalized(obs))  # type: ignore[no-any-return]

    def take_in_activations(self, seen: Tensor, critic_input: Tensor, alive: Tensor, steps: int) -> None:
        """Let what networks make of normalised `seen (N, A, O)` and of `critic_input` (`(N, S)` or the same) into their
        own statistics, after `steps` steps of the optimiser."""
        self.actor_norms.take_in(seen, alive, steps)
        self.critic_norms.take_in(critic_input, self._critic_rows(alive), steps)

    @torch.no_grad()
    def batch(self, seen: Tensor, critic_input: Tensor) -> tuple[Batch, dict[str, Tensor]]:
        """Rows to learn from, and what was seen on the way.

        `seen (T + 1 + K, E, A, O)` are the normalised observations, `critic_input` the same or `(T + 1 + K, E, S)`.
        """
        c, r = self.config, self.rollout
        steps = len(r.reward)
        normal = self._values(critic_input)
        value = self.value_norm.inverse(normal) if c.normalize_value else normal
        value, final_value, reward = value[: steps + 1], value[steps + 1 :], self._scaled_reward()
        flow = (value[:-1], r.next_values(value, final_value), r.terminated, r.ended)
        advantage, learned = self._advantages(reward, flow, c.gae_lambda)
        target = (advantage + value[:-1]).flatten(0, 1)
        alive = learned.flatten(0, 1).to(target.dtype)
        if c.normalize_value:
            self.value_norm.update(target, alive)
            target = self.value_norm(target)
        rows = Batch(
            obs=seen[:steps].flatten(0, 1),
            critic_input=critic_input[:steps].flatten(0, 1),
            action=r.action.flatten(0, 1),
            log_prob=r.log_prob.flatten(0, 1),
            advantage=self._standardised(advantage.flatten(0, 1), alive),
            value=(self.value_norm(value[:-1]) if c.normalize_value else value[:-1]).flatten(0, 1),
            target=target,
            alive=alive,
        )
        monte_carlo = self._advantages(reward, flow, 1.0)[0] + value[:-1]
        known = (finished(r.ended) & learned).flatten(0, 1).to(target.dtype)
        explained = explained_variance(monte_carlo.flatten(0, 1), value[:-1].flatten(0, 1), known)
        return rows, {"losses/explained_variance": explained.nanmean()}

    def _values(self, critic_input: Tensor) -> Tensor:
        """`(T + 1 + K, E, A)` in the critic's units."""
        return self.critic(critic_input.flatten(0, 1)).unflatten(0, critic_input.shape[:2])  # type: ignore[no-any-return]

    def _scaled_reward(self) -> Tensor:
        """`(T, E, A)`: raw, or divided by its robust scale. Never centred: that would change tasks that terminate."""
        reward = self.rollout.reward
        if not self.config.normalize_reward:
            return reward
        self.reward_norm.update(reward.flatten(0, 1), self.rollout.alive.flatten(0, 1))
        return self.reward_norm.scaled(reward)

    def _advantages(
        self, reward: Tensor, flow: tuple[Tensor, Tensor, Tensor, Tensor], gae_lambda: float
    ) -> tuple[Tensor, Tensor]:
        """`(T, E, A)` advantages, and where there is one to learn from."""
        gamma = self.config.gamma
        assert isinstance(gamma, float)
        if self.turn_based:
            return gae_by_turns(reward, *flow, self.rollout.alive, gamma, gae_lambda)
        return gae(reward, *flow, gamma, gae_lambda), self.rollout.alive

    def _standardised(self, advantage: Tensor, alive: Tensor) -> Tensor:
        return normalized_advantage(advantage, alive) if self.config.normalize_advantage else advantage

    @property
    def samples(self) -> int:
        """How many parts a batch has that minibatches are drawn from."""
        return self.rollout.alive.shape[0] * self.rollout.alive.shape[1]

    def part(self, batch: Batch, index: Tensor) -> Batch:
        """The samples `index (N,)` of a whole batch."""
        return batch.rows(index)

    def learn(self, batch: Batch, scale: float, entropy_scale: float) -> dict[str, Tensor]:
        """One step of actor and critic; the factors are those of the schedule."""
        c = self.config
        with self.actor_norms.learning(batch.alive):
            policy = self._policy(batch)
        entropy_coef = c.entropy_coef * entropy_scale
        loss, stats = policy_loss(policy, batch, c.clip_coef, entropy_coef, c.action_penalty, c.share)
        moved = self.actor_optimizer.step(loss, scale * (c.actor_lr or c.lr))
        with self.critic_norms.learning(self._critic_rows(batch.alive)):
            value = self._value(batch)
        loss = value_loss(value, batch, c.clip_value, share=self.central or c.share)
        stats["losses/critic"] = loss.detach()
        fitted = self.critic_optimizer.step(loss, scale * (c.critic_lr or c.lr))
        return stats | step_stats("actor", moved) | step_stats("critic", fitted)

    def _policy(self, batch: Batch) -> Distribution:
        return self.actor(batch.obs)  # type: ignore[no-any-return]

    def _value(self, batch: Batch) -> Tensor:
        return self.critic(batch.critic_input)  # type: ignore[no-any-return]

    def finish(self, losses: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Means over the update's steps; observation statistics move on only now, between updates."""
        self.take_in(self.rollout.obs[:-1].flatten(0, 1), self.rollout.alive.flatten(0, 1))
        self.rollout.clear()
        return mean_of(losses) | {"weights/norm": self.weight_norm()}

    @torch.no_grad()
    def action_signals(self) -> dict[str, Tensor]:
        """How the actions of the rollout behave, `(A,)` each; the policy is asked at observations spread over it."""
        return behaviour.action_signals(self.actor, self._probe(), self.rollout.action, self.rollout.ended)

    def _probe(self) -> Distribution:
        obs = self.rollout.obs[:-1].flatten(0, 1)
        return self.actor(self.normalized(obs[:: behaviour.stride(len(obs))]))  # type: ignore[no-any-return]

    def action_counts(self) -> dict[str, Tensor]:
        """Counts of the rollout's executed actions, `agent/dimension -> (bins,)`."""
        return behaviour.action_counts(self.group, self.actor.canonical(self.rollout.action))
