"""PPO with networks that remember: learned from in chunks of consecutive steps, each from its stored memory.

Actors go on from what they remembered while acting, so that the first ratios of an update are 1. Critics are asked once
an update, through the whole rollout; what they remember then at each chunk's first step is where their chunks start.

Shapes: T steps, E copies, K chunks of L steps, F steps with final observations, N chunks of a minibatch, A agents,
O observation features, S features of the joint observation, M features of memory.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from marl_stable.agents import behaviour
from marl_stable.agents.base import Player
from marl_stable.agents.ppo import Batch, Past
from marl_stable.agents.ppo_learner import PPOLearner
from marl_stable.buffers import ChunkedRollout
from marl_stable.networks.heads import Distribution
from marl_stable.rows import spread
from marl_stable.types import PerGroup


class RecurrentPPOLearner(PPOLearner):
    """A group whose actor or critic (or both) remembers."""

    rollout: ChunkedRollout
    critic_starts: Tensor  # (K + 1, E, M) or (K + 1, E, A, M): at each chunk's first step, and at the next rollout's

    def _storage(self, steps: int, copies: int, device: torch.device) -> ChunkedRollout:
        memory, past = self.actor.no_memory(copies), self.critic.no_memory(copies)
        return ChunkedRollout((steps, copies), self.group, device, self.config.chunk_length, memory, past)

    def explore(self, t: int, obs: Tensor) -> Distribution:
        """The policy at step `t` of the batch, from raw observations `(E, A, O)` and what came before."""
        policy, after = self.recall(obs, self.rollout.memory)
        self.rollout.write_memory(t, after)
        return policy

    @torch.no_grad()
    def recall(self, obs: Tensor, memory: Tensor) -> tuple[Distribution, Tensor]:
        """The policy for raw observations `(E, A, O)` after `memory (E, A, M)`, and what is remembered then."""
        policy, memories = self.actor.sequence(self.normalized(obs).unsqueeze(0), memory, _never(len(obs), obs))
        return policy, memories[0]

    @torch.no_grad()
    def batch(self, seen: Tensor, critic_input: Tensor) -> tuple[Batch, dict[str, Tensor]]:
        """The same, with what was remembered where chunks begin."""
        rows, stats = super().batch(seen, critic_input)
        actor, critic = self.rollout.starts.flatten(0, 1), self.critic_starts[:-1].flatten(0, 1)
        return rows._replace(past=Past(actor, critic, self.rollout.begins[:-1])), stats

    def _values(self, critic_input: Tensor) -> Tensor:
        """`(T + 1 + F, E, A)` in the critic's units: final observations follow the episode that they end."""
        r, steps = self.rollout, len(self.rollout.reward)
        value, after = self.critic.sequence(critic_input[: steps + 1], r.past, r.begins)
        ends = [min(chunk * r.length, steps) - 1 for chunk in range(1, r.chunks + 1)]
        self.critic_starts = torch.stack([r.past, *(after[t] for t in ends)])
        if not r.final_obs:
            return value
        memory = torch.stack([after[t] for t in r.final_obs]).flatten(0, 1)  # (F * E, ...)
        final = critic_input[steps + 1 :].flatten(0, 1).unsqueeze(0)
        final_value, _ = self.critic.sequence(final, memory, _never(len(memory), memory))
        return torch.cat([value, final_value[0].unflatten(0, (len(r.final_obs), -1))])

    @property
    def samples(self) -> int:
        """Chunks of all copies."""
        return self.rollout.chunks * self.rollout.alive.shape[1]

    def part(self, batch: Batch, index: Tensor) -> Batch:
        """The chunks `index (N,)` of a whole batch: `L * N` rows, time by time."""
        assert batch.past is not None
        rows, counts = self.rollout.rows(index)
        begins = batch.past.begins.flatten().index_select(0, rows.flatten()).view_as(rows)
        past = Past(batch.past.actor.index_select(0, index), batch.past.critic.index_select(0, index), begins)
        part = batch.rows(rows.flatten())
        return part._replace(alive=part.alive * counts.reshape(-1, 1), past=past)

    def _policy(self, batch: Batch) -> Distribution:
        assert batch.past is not None
        obs = batch.obs.unflatten(0, batch.past.begins.shape)
        return self.actor.sequence(obs, batch.past.actor, batch.past.begins)[0]

    def _value(self, batch: Batch) -> Tensor:
        assert batch.past is not None
        seen = batch.critic_input.unflatten(0, batch.past.begins.shape)
        return self.critic.sequence(seen, batch.past.critic, batch.past.begins)[0].flatten(0, 1)

    def finish(self, losses: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The same; critics go on from what they remembered at the rollout's end."""
        means = super().finish(losses)
        self.rollout.past.copy_(self.critic_starts[-1])
        return means

    def _steps(self) -> slice:
        """Where chunks begin, since there the memory is known."""
        return slice(None, None, self.rollout.length)

    def _memory(self) -> Tensor:
        memory = self.rollout.starts.flatten(0, 1)
        return memory.index_select(0, spread(len(memory), behaviour.PROBE, memory.device))

    def _ask(self, seen: Tensor, memory: Tensor | None) -> Distribution:
        assert memory is not None
        return self.actor.sequence(seen.unsqueeze(0), memory, _never(len(seen), seen))[0]


class RecurrentPlayer(Player):
    """Remembers each copy's episode, group by group."""

    def __init__(self, learners: Mapping[str, PPOLearner]) -> None:
        self.learners = {name: x for name, x in learners.items() if isinstance(x, RecurrentPPOLearner)}
        self.memory: PerGroup = {}

    def __call__(self, obs: PerGroup) -> dict[str, Distribution]:
        """Each group's answer to raw observations `(E, A, O)` and what came before them."""
        answers = {}
        for name, learner in self.learners.items():
            memory = self.memory[name] if name in self.memory else learner.actor.no_memory(len(obs[name]))
            answers[name], self.memory[name] = learner.recall(obs[name], memory)
        return answers

    def ended(self, done: Tensor) -> None:
        """Forget the episodes of the copies `done (E,)`."""
        over = done.reshape(-1, 1, 1)
        self.memory = {name: memory.masked_fill(over, 0.0) for name, memory in self.memory.items()}


def _never(copies: int, like: Tensor) -> Tensor:
    """`(1, E)`: no episode begins."""
    return torch.zeros(1, copies, dtype=torch.bool, device=like.device)
