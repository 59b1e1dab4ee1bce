"""How one group of agents learns with PPO: its networks, statistics, optimisers and storage, and their update.

Shapes: T steps, E copies, K steps with final observations, B = T * E rows, A agents, O observation features,
S features of what a central critic is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from marl_stable import distributed
from marl_stable.agents import behaviour
from marl_stable.agents.base import mean_of
from marl_stable.agents.config import MAPPOConfig
from marl_stable.agents.figures import collected, diversity
from marl_stable.agents.group_learner import GroupLearner, step_stats
from marl_stable.agents.ppo import (
    Batch,
    Terms,
    normalized_advantage,
    policy_figures,
    policy_loss,
    root_mean_square,
    value_loss,
)
from marl_stable.agents.reward_scale import REWARD_CLIP
from marl_stable.buffers import Rollout
from marl_stable.drift import Beginnings
from marl_stable.graphs import Replayed
from marl_stable.monitor.signals.data import History, Recent, by_turns
from marl_stable.monitor.signals.team import swapped
from marl_stable.monitor.signals.values import Judged, infeasible, td_error, value_signals
from marl_stable.networks.actors import Actor
from marl_stable.networks.batchnorm import BatchNorms
from marl_stable.networks.critics import CentralCritic, LocalCritic, PooledCritic
from marl_stable.networks.heads import Distribution
from marl_stable.networks.pooling import Members
from marl_stable.normalize import RunningNorm, robust, sampled
from marl_stable.returns import explained_variance, finished, gae, gae_by_turns
from marl_stable.rows import spread
from marl_stable.types import Group

VALUE_CLIP = 10.0  # deviations
LONGEST_HORIZON = 1_000.0  # steps, where values are guessed


Learned = tuple[Terms, dict[str, Tensor]]
"""Of one step: what the policy's objective was made of, and figures by tag."""


class PPOLearner(GroupLearner):
    """A group's stochastic actor, its critic, and the rollout that they learn from."""

    PARTS = (
        "actor",
        "critic",
        "obs_norm",
        "beginnings",
        "value_norm",
        "reward_norm",
        "actor_optimizer",
        "critic_optimizer",
    )
    config: MAPPOConfig
    actor: Actor
    advantage_size: Tensor  # () of the batch that is being learned from

    def __init__(
        self,
        group: Group,
        config: MAPPOConfig,
        everybody: Sequence[Group] | None,
        shape: tuple[int, int],
        turn_based: bool,
        device: torch.device,
        init: torch.Generator,
        refuse: bool,
        watch: bool,
    ) -> None:
        """`everybody`: all groups for a central critic, None for a local one; `shape`: (T, E); `init` draws the first
        weights."""
        super().__init__(group, config, everybody is not None, device)
        agents, share = len(group.agents), config.share
        self.config, self.turn_based = config, turn_based
        network = config.actor_network.over(config.network)
        self.actor = Actor(group, network, share, config.squash, init, config.log_std_init).to(device)
        self.critic = self._critic(everybody, init).to(device)
        self.actor_norms, self.critic_norms = BatchNorms(self.actor), BatchNorms(self.critic)
        self.value_norm = RunningNorm((agents,), VALUE_CLIP).to(device)
        self.reward_norm = RunningNorm((agents,), REWARD_CLIP).to(device)
        self.beginnings = Beginnings(self.obs_norm.mean.shape).to(device)
        self._add_optimizers(self.actor, self.critic, config, refuse, watch)
        self.rollout = self._storage(*shape, device)
        self.history = History(shape[1], agents, device)
        self.judged: Judged | None = None  # in units of the scaled reward
        self.figures: dict[str, Tensor] = {}  # of the last update
        self.step = Replayed(self._step)

    def _critic(
        self, everybody: Sequence[Group] | None, init: torch.Generator
    ) -> CentralCritic | PooledCritic | LocalCritic:
        agents, network = len(self.group.agents), self.config.critic_network.over(self.config.network)
        if everybody is None:
            return LocalCritic(agents, self.group.obs_size, network, self.config.share, init)
        if self.pooled:
            members = [Members(g.name, len(g.agents), g.obs_size) for g in everybody]
            return PooledCritic(members, everybody.index(self.group), network, init)
        return CentralCritic(agents, sum(len(g.agents) * g.obs_size for g in everybody), network, init)

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
        steps, reward = len(r.reward), self._scaled_reward()
        if c.normalize_value:
            self._expect_values(reward)
        normal = self._values(critic_input)
        value = self.value_norm.inverse(normal) if c.normalize_value else normal
        value, final_value = value[: steps + 1], value[steps + 1 :]
        flow = (value[:-1], r.next_values(value, final_value), r.terminated, r.ended)
        advantage, learned = self._advantages(reward, flow, c.gae_lambda)
        target = (advantage + value[:-1]).flatten(0, 1)
        alive = learned.flatten(0, 1).to(target.dtype)
        standard = self._standardised(advantage.flatten(0, 1), alive)
        self.advantage_size = root_mean_square(standard, alive)
        if c.normalize_value:
            self.value_norm.update(target, alive)
            target = self.value_norm(target)
        rows = Batch(
            obs=seen[:steps].flatten(0, 1),
            critic_input=critic_input[:steps].flatten(0, 1),
            action=r.action.flatten(0, 1),
            log_prob=r.log_prob.flatten(0, 1),
            advantage=standard,
            value=(self.value_norm(value[:-1]) if c.normalize_value else value[:-1]).flatten(0, 1),
            target=target,
            alive=alive,
        )
        monte_carlo = self._advantages(reward, flow, 1.0)[0] + value[:-1]
        known = finished(r.ended) & learned
        parts = (value[:-1], self._earned(reward), self._error(reward, flow), monte_carlo, known, learned)
        self.judged = j = Judged._make(x.flatten(0, 1) for x in parts)
        explained = explained_variance(j.outcome, j.value, j.known.to(target.dtype))
        return rows, {"losses/explained_variance": explained.nanmean()}

    def _expect_values(self, reward: Tensor) -> None:
        """Before any value is known, let the critic begin where a constant one would end.

        That is the fixed point of v = r + gamma (1 - p) v for the median reward r and the share p of steps that
        terminate. From zero, targets would climb for many updates towards r / (1 - gamma), and the deviation of that
        climb, long remembered, would hide all differences beside a reward with an offset.
        """
        gamma, alive = self.config.gamma, self.rollout.alive
        assert isinstance(gamma, float)
        centre, scale = robust(sampled(self._earned(reward).double().flatten(0, 1), alive.flatten(0, 1)))
        acted = torch.stack([(self.rollout.terminated & alive).sum((0, 1)), alive.sum((0, 1))])
        ended, steps = distributed.total(acted)
        horizon = (1 / (1 - gamma * (1 - ended / steps.clamp_min(1)))).clamp_max(LONGEST_HORIZON)
        noise = scale / math.sqrt(max(1 - gamma**2, 1 / LONGEST_HORIZON))  # of returns, were rewards independent
        self.value_norm.expect(centre * horizon, torch.where(noise > 0, noise, 1.0))

    def _earned(self, reward: Tensor) -> Tensor:
        """`(T, E, A)` rewards of actions: where turn-based, all that come before the agent's next."""
        return by_turns(reward, self.rollout.alive) if self.turn_based else reward

    def _error(self, reward: Tensor, flow: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """`(T, E, A)` temporal-difference errors."""
        value, next_value, terminated, _ = flow
        assert isinstance(self.config.gamma, float)
        if self.turn_based:
            return self._advantages(reward, flow, 0.0)[0]
        return td_error(reward, value, next_value, terminated, self.config.gamma)

    def _values(self, critic_input: Tensor) -> Tensor:
        """`(T + 1 + K, E, A)` in the critic's units."""
        return self.critic(critic_input.flatten(0, 1)).unflatten(0, critic_input.shape[:2])  # type: ignore[no-any-return]

    def _scaled_reward(self) -> Tensor:
        """`(T, E, A)`: raw, or divided by the robust scale of what actions earn. Never centred: that would change tasks
        that terminate."""
        reward = self.rollout.reward
        if not self.config.normalize_reward:
            return reward
        self.reward_norm.update(self._earned(reward).flatten(0, 1), self.rollout.alive.flatten(0, 1))
        return self.reward_norm.scaled(reward)

    def _advantages(
        self, reward: Tensor, flow: tuple[Tensor, Tensor, Tensor, Tensor], gae_lambda: float
    ) -> tuple[Tensor, Tensor]:
        """`(T, E, A)` advantages, and where there is one to learn from."""
        gamma = self.config.gamma
        assert isinstance(gamma, float)
        if self.turn_based:
            return gae_by_turns(reward, *flow, self.rollout.alive, gamma, gae_lambda, self.rollout.missing)
        return gae(reward, *flow, gamma, gae_lambda, self.rollout.alive), self.rollout.alive

    def _standardised(self, advantage: Tensor, alive: Tensor) -> Tensor:
        return normalized_advantage(advantage, alive) if self.config.normalize_advantage else advantage

    @property
    def samples(self) -> int:
        """How many parts a batch has that minibatches are drawn from."""
        return self.rollout.alive.shape[0] * self.rollout.alive.shape[1]

    def part(self, batch: Batch, index: Tensor) -> Batch:
        """The samples `index (N,)` of a whole batch."""
        return batch.rows(index)

    def learn(self, batch: Batch, scale: float, entropy_scale: float) -> Learned:
        """One step of actor and critic; the factors are those of the schedule."""
        c = self.config
        entropy_coef = c.entropy_coef * entropy_scale
        terms, found = self.step(batch, scale * (c.actor_lr or c.lr), scale * (c.critic_lr or c.lr), entropy_coef)
        self.remember(found)
        return terms, found | {"stability/entropy_weight": entropy_coef / self.advantage_size}

    def told(self, steps: list[Learned]) -> list[dict[str, Tensor]]:
        """What is to be told of each of an epoch's steps."""
        policies = policy_figures([terms for terms, _ in steps], self.config.clip_coef)
        return [policy | found for policy, (_, found) in zip(policies, steps, strict=True)]

    def _step(
        self, batch: Batch, actor_lr: float | Tensor, critic_lr: float | Tensor, entropy_coef: float | Tensor
    ) -> Learned:
        c = self.config
        with self.actor_norms.learning(batch.alive):
            policy = self._policy(batch)
        loss, terms = policy_loss(policy, batch, c.clip_coef, entropy_coef, c.action_penalty, c.share)
        moved = self.actor_optimizer.move(loss, actor_lr)
        with self.critic_norms.learning(self._critic_rows(batch.alive)):
            value = self._value(batch)
        loss = value_loss(value, batch, c.clip_value, share=self.central or c.share)
        fitted = self.critic_optimizer.move(loss, critic_lr)
        return terms, {"losses/critic": loss.detach()} | step_stats("actor", moved) | step_stats("critic", fitted)

    def _policy(self, batch: Batch) -> Distribution:
        return self.actor(batch.obs)  # type: ignore[no-any-return]

    def _value(self, batch: Batch) -> Tensor:
        return self.critic(batch.critic_input)  # type: ignore[no-any-return]

    def finish(self, losses: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Means over the update's steps; observation statistics move on only now, between updates."""
        r = self.rollout
        if self._normalize_obs:
            self.beginnings.follow(self.obs_norm, *r.beginnings())
        self.take_in(r.obs[:-1].flatten(0, 1), r.alive.flatten(0, 1))
        self.history.take_in(self.recent())
        self.rollout.clear()
        first = {"stability/first_ratio": losses[0]["stability/first_ratio"]}
        self.figures = mean_of(losses) | first | {"weights/norm": self.weight_norm()}
        return self.figures

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; in runs of before drift was followed, beginnings begin anew."""
        super().load_state_dict({"beginnings": self.beginnings.state_dict()} | state)

    # ---- being watched

    def recent(self) -> Recent:
        """The rollout."""
        r = self.rollout
        truncated = r.ended & ~r.terminated
        return Recent(r.obs[:-1], r.action, self._earned(r.reward), r.terminated, truncated, r.ended, r.alive)

    @torch.no_grad()
    def signals(self, probe: bool) -> dict[str, Tensor]:
        """Figures of the rollout just learned from; with `probe` also what takes forward passes of the actor.

        The policy is asked at observations spread over the rollout.
        """
        recent, (seen, asked) = self.recent(), self.probe()
        actions = (self.actor, self._ask(seen, self._memory()), recent.action, recent.ended)
        found = behaviour.action_signals(*actions, alive=recent.alive, asked=asked, probe=probe)
        found |= collected(self.actor, recent, self.obs_norm if self._normalize_obs else None, self.history)
        found |= self._value_signals()
        if probe and len(self.group.agents) > 1:
            found |= diversity(self.actor, self._apart(seen), swapped(asked[:: asked.shape[1]]))
        return found

    def _value_signals(self) -> dict[str, Tensor]:
        if self.judged is None:
            return {}
        judged, gamma = self.judged.some(), self.config.gamma
        assert isinstance(gamma, float)
        if self.config.normalize_reward:
            judged = judged.times(self.reward_norm.divisor)
        return value_signals(judged) | infeasible(
            judged.value, judged.learned, self.history.low, self.history.high, gamma
        )

    def probe(self) -> tuple[Tensor, Tensor]:
        """Normalised observations `(P, A, O)` spread over the rollout, and whose agents lived, `(P, A)`."""
        obs, alive = (x[self._steps()].flatten(0, 1) for x in (self.rollout.obs[:-1], self.rollout.alive))
        some = spread(len(obs), behaviour.PROBE, obs.device)
        return self.normalized(obs.index_select(0, some)), alive.index_select(0, some)

    def _steps(self) -> slice:
        """Which steps of the rollout are probed."""
        return slice(None)

    def _memory(self) -> Tensor | None:
        """`(P, A, M)` what the actor remembered at the probe."""
        return None

    def _ask(self, seen: Tensor, memory: Tensor | None) -> Distribution:
        """The policy for normalised observations `(P, A, O)` after `memory (P, A, M)`."""
        return self.actor(seen)  # type: ignore[no-any-return]

    def _apart(self, seen: Tensor) -> Distribution:
        """All agents' answers to what each saw, at as many rows as the probe has."""
        memory, agents = self._memory(), seen.shape[1]
        return self._ask(swapped(seen[::agents]), None if memory is None else swapped(memory[::agents]))

    def action_counts(self) -> dict[str, Tensor]:
        """Counts of the rollout's executed actions, `agent/dimension -> (bins,)`."""
        return behaviour.action_counts(self.group, self.actor.canonical(self.rollout.action), self.rollout.alive)
