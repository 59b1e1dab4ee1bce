"""How one group of agents learns with DDPG: its networks and their targets, statistics, optimisers and replay.

Shapes: B rows of a batch, A agents of the group, O observation features, U features of an encoded action, S features of
the joint observation, V those of the joint action, N agents of all groups, J features of a central critic's input, K
critics.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from marl_stable.agents import behaviour
from marl_stable.agents.config import MADDPGConfig
from marl_stable.agents.ddpg import actor_loss, critic_loss, td_target
from marl_stable.agents.figures import collected, diversity
from marl_stable.agents.group_learner import GroupLearner, step_stats
from marl_stable.agents.network_watch import TargetWatch
from marl_stable.agents.reward_scale import RewardScale
from marl_stable.buffers import Replay
from marl_stable.monitor.signals.data import History, Recent
from marl_stable.monitor.signals.team import swapped
from marl_stable.networks.actors import DeterministicActor, encoded_size
from marl_stable.networks.batchnorm import BatchNorms
from marl_stable.networks.critics import JointQ, LocalQ, PooledQ
from marl_stable.networks.heads import Differentiable
from marl_stable.networks.pooling import Members, PooledNetwork
from marl_stable.optim import flatten, polyak
from marl_stable.rows import spread
from marl_stable.types import Group

NetworkT = TypeVar("NetworkT", bound=nn.Module)


class Drawn(NamedTuple):
    """A batch from the replay as networks see it."""

    obs: Tensor  # (B, A, O) normalised
    action: Tensor  # (B, A, U) encoded
    reward: Tensor  # (B, A) normalised
    next_obs: Tensor  # (B, A, O) normalised
    terminated: Tensor  # (B, A) bool
    alive: Tensor  # (B, A) 1 where the agent acted


class Joint(NamedTuple):
    """What all agents of all groups saw and did."""

    obs: Tensor  # (B, S)
    action: Tensor  # (B, V)
    present: Tensor  # (B, N) 1 for who was there

    def seen(self, pooled: bool = False) -> Tensor:
        """`(B, J)` what a central critic sees: S + V features, and where it pools N more."""
        return torch.cat(self if pooled else self[:2], dim=1)


class DDPGLearner(GroupLearner):
    """A group's deterministic actor, its critics, the targets that follow them, and their replay."""

    PARTS = (
        *("actor", "critic", "target_actor", "target_critic"),
        *("obs_norm", "scale", "actor_optimizer", "critic_optimizer"),
    )
    config: MADDPGConfig
    actor: DeterministicActor

    def __init__(
        self,
        group: Group,
        config: MADDPGConfig,
        everybody: Sequence[Group] | None,
        shape: tuple[int, int],
        device: torch.device,
        init: torch.Generator,
        refuse: bool,
        watch: bool,
    ) -> None:
        """`everybody`: all groups for a central critic, None for a local one; `shape`: slots and copies of the replay;
        `init` draws the first weights."""
        super().__init__(group, config, everybody is not None, device)
        self.config = c = config
        assert isinstance(c.gamma, float)
        agents, share = len(group.agents), c.share
        self.scale = RewardScale(agents, c.gamma, c.normalize_reward).to(device)
        self.actor = DeterministicActor(group, c.actor_network.over(c.network), share, init).to(device)
        self.critic = self._critic(everybody, device, init)
        self._add_optimizers(self.actor, self.critic, c, refuse, watch)
        self.target_actor, self._target_actor = _target(self.actor, self.actor_optimizer.rows)
        self.target_critic, self._target_critic = _target(self.critic, self.critic_optimizer.rows)
        self.target_watches = (
            TargetWatch("actor", self._target_actor, self.actor_optimizer.flat),
            TargetWatch("critic", self._target_critic, self.critic_optimizer.flat),
        )
        self.actor_norms = BatchNorms(self.actor, self.target_actor)
        self.critic_norms = BatchNorms(self.critic, self.target_critic)
        self.replay = Replay(*shape, group, device)
        self.history = History(shape[1], agents, device)
        self.figures: dict[str, Tensor] = {}  # of the last round of updates

    def _critic(
        self, everybody: Sequence[Group] | None, device: torch.device, init: torch.Generator
    ) -> JointQ | PooledQ | LocalQ:
        c, group, agents, size = self.config, self.group, len(self.group.agents), self.actor.outputs
        network, count = c.critic_network.over(c.network), 2 if c.twin_critics else 1
        if everybody is None:
            return LocalQ(count, agents, group.obs_size + size, network, c.share, init).to(device)
        members = [Members(g.name, len(g.agents), g.obs_size, encoded_size(g.action)) for g in everybody]
        own = everybody.index(group)
        if self.pooled:
            return PooledQ(count, members, own, network, init).to(device)
        columns = [m.agents * m.action_size for m in members]
        self.first = sum(columns[:own])
        self.own = _blocks(agents, size, sum(columns), self.first).to(device)  # (A, V)
        features = sum(m.agents * m.obs_size for m in members)
        return JointQ(count, agents, features + sum(columns), network, init).to(device)

    # ---- what networks see

    def take_in_last(self, t: int, steps: int, learning: bool) -> None:
        """Let the `steps` steps before `t` into the statistics; those of rewards settle once `learning` begins.

        A moving centre would move all values with it, by 1/(1 - gamma) times as much.
        """
        at = self.replay.last(t, steps)
        obs, reward, terminated, alive = (
            x[at].flatten(0, 1)
            for x in (self.replay.obs, self.replay.reward, self.replay.terminated, self.replay.alive)
        )
        self.take_in(obs, alive)
        self.scale.take_in(reward, terminated, alive, settled=learning)

    def take_in_activations(self, drawn: Drawn, next_action: Tensor, now: Joint, then: Joint, steps: int) -> None:
        """Let what the networks make of a batch into their own statistics, before `steps` steps of the optimisers.

        The critic's come from actions of the replay and of the target policy alike: it is asked about both, and their
        distributions differ (Bhatt et al. 2024, section 3).
        """
        self.actor_norms.take_in(drawn.obs, drawn.alive, steps)
        seen = torch.cat(
            [self.critic_input(drawn.obs, drawn.action, now), self.critic_input(drawn.next_obs, next_action, then)]
        )
        goes_on = torch.where(drawn.terminated, 0.0, drawn.alive)
        self.critic_norms.take_in(seen, self._critic_rows(torch.cat([drawn.alive, goes_on])), steps)

    def critic_input(self, obs: Tensor, action: Tensor, joint: Joint) -> Tensor:
        """What the critic sees: `(B, J)`, or of its own agent `(B, A, O + U)`."""
        return joint.seen(self.pooled) if self.central else torch.cat([obs, action], dim=-1)

    def draw(self, rows: Tensor) -> Drawn:
        """The transitions `rows (B,)` of the replay."""
        raw = self.replay.draw(rows)
        return Drawn(
            self.normalized(raw.obs),
            self.actor.encoded(raw.action),
            self.scale.normalized(raw.reward),
            self.normalized(raw.next_obs),
            raw.terminated,
            raw.alive.to(torch.float32),
        )

    # ---- learning

    def fit_critic(
        self, drawn: Drawn, next_action: Tensor, now: Joint, then: Joint, lr: float | Tensor
    ) -> dict[str, Tensor]:
        """One step of the critic towards its target; `next_action (B, A, U)` is the target actors'."""
        c = self.config
        assert isinstance(c.gamma, float)
        with torch.no_grad():
            next_q = self.target_critic(self.critic_input(drawn.next_obs, next_action, then))  # (K, B, A)
            target = td_target(drawn.reward, next_q, drawn.terminated, c.gamma, self.scale.terminal_value())
        with self.critic_norms.learning(self._critic_rows(drawn.alive)):
            q = self.critic(self.critic_input(drawn.obs, drawn.action, now))
        loss = critic_loss(q, target, drawn.alive, c.huber, share=self.central or c.share)
        fitted = self.critic_optimizer.move(loss, lr)
        mean = (q.detach()[0] * drawn.alive).sum() / drawn.alive.sum().clamp_min(1)
        return {"losses/critic": loss.detach(), "losses/q": mean} | step_stats("critic", fitted)

    def improve_actor(
        self, drawn: Drawn, now: Joint, lr: float | Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """One step of the actor along the critic's gradient."""
        c = self.config
        with self.actor_norms.learning(drawn.alive):
            answer: Differentiable = self.actor(drawn.obs)
        worth = partial(self.value_of_own, drawn=drawn, now=now)
        slope = c.discrete_gradient == "straight_through"
        q = worth(answer.relaxed(generator)) if slope else answer.expected(worth, generator)
        loss = actor_loss(q, answer.penalty(), drawn.alive, c.action_penalty, c.share)
        moved = self.actor_optimizer.move(loss, lr)
        return {"losses/actor": loss.detach()} | step_stats("actor", moved)

    def value_of_own(self, action: Tensor, drawn: Drawn, now: Joint, critic: nn.Module | None = None) -> Tensor:
        """`(B, A)` each agent's value of its own current `action (B, A, U)`, all other actions from the replay.

        It is the first critic's unless another is named.
        """
        critic = critic or self.critic.networks[0]
        if not self.central:
            return critic(torch.cat([drawn.obs, action], dim=-1)).squeeze(-1)  # type: ignore[no-any-return]
        if isinstance(critic, PooledNetwork):
            return critic.of_own(now.seen(pooled=True), action)
        agents, last = action.shape[1], self.first + action.shape[1] * action.shape[2]
        current = torch.cat([now.action[:, : self.first], action.flatten(1), now.action[:, last:]], dim=1)  # (B, V)
        mixed = torch.where(self.own, current.unsqueeze(1), now.action.unsqueeze(1))  # (B, A, V)
        seen = torch.cat([now.obs.unsqueeze(1).expand(-1, agents, -1), mixed], dim=-1)
        values = critic(seen.flatten(0, 1)).unflatten(0, (-1, agents))  # (B, A, A): row i is what i's action is worth
        return values.diagonal(dim1=1, dim2=2)  # type: ignore[no-any-return]

    def follow(self) -> None:
        """Let the targets follow what is learned."""
        polyak(self._target_actor, self.actor_optimizer.flat, self.config.tau)
        polyak(self._target_critic, self.critic_optimizer.flat, self.config.tau)
        self.actor_norms.follow(self.config.tau)
        self.critic_norms.follow(self.config.tau)

    # ---- being watched

    def recent(self, t: int, steps: int) -> Recent:
        """The `steps` steps before `t`, `(steps, E, A, ...)`."""
        r, at = self.replay, self.replay.last(t, steps)
        terminated, ended = r.terminated[at], r.ended[at]
        return Recent(r.obs[at], r.action[at], r.reward[at], terminated, ended & ~terminated, ended, r.alive[at])

    @torch.no_grad()
    def signals(self, t: int, steps: int, probe: bool) -> dict[str, Tensor]:
        """Figures of the `steps` steps before `t`; with `probe` also what takes forward passes of the actor."""
        recent, (seen, _, asked) = self.recent(t, steps), self.probe(t, steps)
        actions = (self.actor, self.actor(seen), recent.action, recent.ended)
        found = behaviour.action_signals(*actions, alive=recent.alive, asked=asked, probe=probe)
        found |= collected(self.actor, recent, self.obs_norm if self._normalize_obs else None, self.history)
        agents = seen.shape[1]
        if probe and agents > 1:
            found |= diversity(self.actor, self.actor(swapped(seen[::agents])), swapped(asked[::agents]))
        return found

    def probe(self, t: int, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised observations `(P, A, O)` spread over the `steps` steps before `t`, encoded actions `(P, A, U)`,
        and whose agents lived, `(P, A)`."""
        r, at = self.replay, self.replay.last(t, steps)
        obs, action, alive = (x[at].flatten(0, 1) for x in (r.obs, r.action, r.alive))
        some = spread(len(obs), behaviour.PROBE, obs.device)
        obs, action, alive = (x.index_select(0, some) for x in (obs, action, alive))
        return self.normalized(obs), self.actor.encoded(action), alive

    def network_signals(self, actor_lr: float, critic_lr: float, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of all learners, and how the targets follow."""
        found = super().network_signals(actor_lr, critic_lr, seen)
        for watch in self.target_watches:
            found |= watch.read()
        return found

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        super().load_state_dict(state)
        for watch in self.target_watches:
            watch.restart()

    def action_counts(self, t: int, steps: int) -> dict[str, Tensor]:
        """Counts of the executed actions of the `steps` steps before `t`, `agent/dimension -> (bins,)`."""
        at = self.replay.last(t, steps)
        return behaviour.action_counts(self.group, self.replay.action[at], self.replay.alive[at])


def _target(network: NetworkT, rows: int) -> tuple[NetworkT, Tensor]:
    """A copy of `network` to follow it, and all its parameters as one `(R, P)` tensor."""
    target = copy.deepcopy(network).requires_grad_(False)
    return target, flatten(list(target.parameters()), rows)


def _blocks(agents: int, size: int, columns: int, first: int) -> Tensor:
    """`(A, V)` true where a column of the joint action is the agent's own."""
    own = torch.zeros(agents, columns, dtype=torch.bool)
    for agent in range(agents):
        own[agent, first + agent * size : first + (agent + 1) * size] = True
    return own
