"""MADDPG: deterministic policies, each improved along a critic that sees all agents (Lowe et al. 2017).

The actor's gradient is the paper's equation 5: an agent's own action is its current one, the others' are those of the
replay. With all actions current, the critic of one agent would train the others for its own reward.

Shapes: E copies, B rows of a batch, A agents of one group, S and V features of the joint observation and action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from marl_stable import distributed
from marl_stable.agents import behaviour
from marl_stable.agents.base import DRAWS, Player, Rings, Stats, copied, decay, mean_of, merge
from marl_stable.agents.config import MADDPGConfig
from marl_stable.agents.critic_probe import critic_passes, critic_signals, mean_age, moments
from marl_stable.agents.ddpg_learner import DDPGLearner, Drawn, Joint
from marl_stable.agents.figures import BACKWARD, layer_names, probe_every, probe_passes, rates
from marl_stable.buffers import require_room
from marl_stable.generators import go_on
from marl_stable.graphs import Replayed
from marl_stable.monitor.table import Layers
from marl_stable.networks.heads import Differentiable
from marl_stable.turns import Turns
from marl_stable.types import EnvSpec, PerGroup, Step

COUNTERS = ("t", "learned_at", "updates", "unlearned", "progress")


class MADDPG:
    """Acts for all groups, keeps what happened in a replay, and learns from it in rounds of updates."""

    centralised = True

    def __init__(
        self,
        spec: EnvSpec,
        config: MADDPGConfig,
        num_envs: int,
        device: torch.device,
        seed: int,
        refuse: bool = True,
        watch: bool = True,
    ) -> None:
        """`config.gamma` must be a number by now. `refuse`: bad gradients move nothing; `watch`: spikes are counted."""
        self.spec, self.config, self.num_envs = spec, config, num_envs
        self.copies = num_envs * distributed.world_size()  # of all processes that train together
        self.rollout_steps = max(1, config.train_every // self.copies)
        self.generator = torch.Generator(device).manual_seed(distributed.own_seed(seed) + DRAWS)
        self.t = 0  # steps of every copy
        self.learned_at = 0  # the same at the last round of updates
        self.updates = 0
        self.unlearned = 0  # environment steps for which no update was made yet
        self.progress = 0.0
        self.seen: PerGroup = {}
        self.raw: PerGroup = {}
        slots = max(
            self.rollout_steps, -(-config.buffer_size // self.copies)
        )  # no step is lost before it is learned from
        self.slots = slots
        require_room(slots, num_envs, spec, device)
        init = torch.Generator().manual_seed(seed)
        everybody = spec.groups if self.centralised else None
        self.learners: dict[str, DDPGLearner] = {
            g.name: DDPGLearner(g, config, everybody, (slots, num_envs), device, init, refuse, watch)
            for g in spec.groups
        }
        self.turns = Turns({name: x.replay for name, x in self.learners.items()}) if spec.turn_based else None
        self.choose = Replayed(self._choose)
        self.steps = {turn: Replayed(partial(self._step, turn)) for turn in (False, True)}

    def compile(self) -> None:
        """From now on, record acting and learning and replay them, on a CUDA device; results stay what they were."""
        for work in (self.choose, *self.steps.values()):
            work.record(self.generator)

    # ---- acting

    @torch.no_grad()
    def policy(self, obs: PerGroup) -> dict[str, Differentiable]:
        """Each group's answer, in raw actions, to raw observations `(E, A, O)`."""
        return self._answers(obs, self._exploration())

    def _answers(self, obs: PerGroup, noise: float | Tensor) -> dict[str, Differentiable]:
        return {name: x.actor(x.normalized(obs[name]), noise) for name, x in self.learners.items()}

    def player(self) -> Player:
        """Who answers as the policy does."""
        return Player(self.policy)

    def _exploration(self) -> float:
        c = self.config
        return c.exploration_noise + min(self.progress, 1.0) * (c.final_noise - c.exploration_noise)

    def to_env(self, raw: PerGroup) -> PerGroup:
        """Raw actions in the environment's units."""
        return {name: self.learners[name].actor.to_env(action) for name, action in raw.items()}

    @torch.no_grad()
    def act(self, obs: PerGroup) -> PerGroup:
        """This step's actions: uniform during the warm-up, then the policy's with noise."""
        self.seen = obs
        if self.t * self.copies < self.config.warm_up:
            self.raw = {name: answer.uniform(self.generator) for name, answer in self.policy(obs).items()}
            return self.to_env(self.raw)
        self.raw, action = self.choose(obs, self._exploration())
        return action  # type: ignore[no-any-return]

    @torch.no_grad()
    def _choose(self, obs: PerGroup, noise: float | Tensor) -> tuple[PerGroup, PerGroup]:
        """Raw actions for raw observations, explored with `noise`, and the same in the environment's units."""
        raw = {name: answer.sample(self.generator) for name, answer in self._answers(obs, noise).items()}
        return raw, self.to_env(raw)

    def observe(self, step: Step) -> None:
        """Keep what the actions led to."""
        if self.turns:
            self.turns.write(self.t, self.seen, self.raw, step)
        else:
            for name, learner in self.learners.items():
                learner.replay.write(self.t, name, self.seen[name], self.raw[name], step)
        self.t += 1

    def ready(self) -> bool:
        """Whether a round of updates is due."""
        return self.t - self.learned_at >= self.rollout_steps

    # ---- learning

    def initialize_statistics(self, obs: PerGroup, alive: PerGroup | None = None) -> None:
        """Start the observation statistics from a short random play, `(N, A, O)` per group; of those `alive (N, A)`."""
        alive = alive or {name: torch.ones_like(x[..., 0]) for name, x in obs.items()}
        for name, learner in self.learners.items():
            learner.take_in(obs[name], alive[name])
            learner.actor_norms.take_in(learner.normalized(obs[name]), alive[name], 0)

    def update(self, progress: float, interrupted: Callable[[], bool]) -> Stats | None:
        """A round of updates, `progress` (0 to 1) into the run; none during the warm-up.

        None where `interrupted` said so in mid-round: then nothing has changed, and the round can be repeated.
        """
        before = copied(self.policy_state())
        self.progress = progress
        for learner in self.learners.values():
            learner.take_in_last(self.t, self.rollout_steps, learning=self.updates > 0)
        self.learned_at = self.t
        losses: dict[str, list[dict[str, Tensor]]] = {name: [] for name in self.learners}
        if self.t * self.copies >= self.config.warm_up:
            self.unlearned += self.rollout_steps * self.copies
        if any(x.actor_norms or x.critic_norms for x in self.learners.values()):
            self._take_in_activations(self.unlearned // self.config.steps_per_update)
        while self.unlearned >= self.config.steps_per_update:
            if interrupted():
                self.load_policy_state(before)
                return None
            self._learn(losses, decay(self.config.lr_schedule, progress))
            self.unlearned -= self.config.steps_per_update
        stats = Stats()
        for name, learner in self.learners.items():
            learner.history.take_in(learner.recent(self.t, self.rollout_steps))
            learner.figures = mean_of(losses[name]) | {"weights/norm": learner.weight_norm()}
            merge(stats, name, learner.figures)
        return stats

    def _learn(self, losses: dict[str, list[dict[str, Tensor]]], scale: float) -> None:
        """One step of every critic and, when it is their turn, of every actor and the targets."""
        self.updates += 1
        turn = self.updates % self.config.policy_delay == 0
        found: Mapping[str, dict[str, Tensor]] = self.steps[turn](self._rows(), scale)
        for name, learner in self.learners.items():
            learner.remember(found[name])
            losses[name].append(found[name])

    def _step(self, turn: bool, rows: Tensor, scale: float | Tensor) -> dict[str, dict[str, Tensor]]:
        """Learn from the `rows (B,)` of the replay; with `turn` actors and targets move as well."""
        c, found = self.config, {}
        drawn, next_action, now, then = self._situation(rows, c.target_noise)
        for name, x in self.learners.items():
            found[name] = x.fit_critic(drawn[name], next_action[name], now, then, scale * (c.critic_lr or c.lr))
            if turn:
                found[name] |= x.improve_actor(drawn[name], now, scale * (c.actor_lr or c.lr), self.generator)
                x.follow()
        return found

    @torch.no_grad()
    def _take_in_activations(self, steps: int) -> None:
        """Let a batch into the statistics inside networks: once a round, before its `steps` updates."""
        drawn, next_action, now, then = self._situation(self._rows(), self.config.target_noise)
        for name, x in self.learners.items():
            x.take_in_activations(drawn[name], next_action[name], now, then, steps)

    def _rows(self) -> Tensor:
        """`(B,)` rows of the replay, at random: the same for every group, since critics see them together."""
        filled, size = min(self.t, self.slots) * self.num_envs, self.config.batch_size // distributed.world_size()
        return torch.randint(filled, (size,), generator=self.generator, device=self.generator.device)

    def _situation(self, rows: Tensor, noise: float) -> tuple[dict[str, Drawn], PerGroup, Joint, Joint]:
        """A batch, what target actors do next `(B, A, U)` with `noise`, and what critics see of now and then."""
        with torch.no_grad():
            drawn = {name: learner.draw(rows) for name, learner in self.learners.items()}
        now = self._joint({name: (d.obs, d.action, d.alive) for name, d in drawn.items()})
        answers = {name: x.target_actor(drawn[name].next_obs) for name, x in self.learners.items()}
        smoothing = (noise, self.config.target_noise_clip, self.generator)
        next_action = {name: answer.smoothed(*smoothing) for name, answer in answers.items()}
        stays = {name: torch.where(d.terminated, 0.0, d.alive) for name, d in drawn.items()}
        then = self._joint({name: (d.next_obs, next_action[name], stays[name]) for name, d in drawn.items()})
        return drawn, next_action, now, then

    def _joint(self, groups: dict[str, tuple[Tensor, Tensor, Tensor]]) -> Joint:
        """Observations `(B, A, O)`, encoded actions `(B, A, U)` and who is there `(B, A)`, of all groups side by side.

        Where turn-based everybody is there: `alive` tells who moves.
        """
        obs, action, alive = zip(*groups.values(), strict=True)
        present = torch.cat(alive, dim=1).to(obs[0].dtype)
        return Joint(
            torch.cat([x.flatten(1) for x in obs], dim=1),
            torch.cat([x.flatten(1) for x in action], dim=1),
            torch.ones_like(present) if self.spec.turn_based else present,
        )

    # ---- being watched

    @property
    def probe_every(self) -> int:
        """Every how many iterations what takes passes of its own costs less than half a percent of the updates."""
        c, probe, update = self.config, 0, 0.0
        rows = self.rollout_steps * self.num_envs
        for x in self.learners.values():
            agents, critics = len(x.group.agents), len(x.critic.networks) * x.critic_agents
            update += agents + (2 + BACKWARD) * critics + 2 * (1 + BACKWARD) * agents / c.policy_delay
            probe += probe_passes(x, rows) + critic_passes(x, self.num_envs, self.rollout_steps)
        return probe_every(probe, update * c.batch_size * rows / c.steps_per_update)

    def signals(self, probe: bool) -> Stats:
        """Figures of the steps since the last round of updates, and with `probe` of policies and critics now."""
        stats, window = Stats(), (self.t, self.rollout_steps)
        probes = {name: x.probe(*window) for name, x in self.learners.items()}
        joint = self._joint(probes)
        lr = rates(self.config, decay(self.config.lr_schedule, self.progress))
        age = torch.full((), mean_age(self.t, self.slots), device=self.generator.device)
        for name, x in self.learners.items():
            found = x.signals(*window, probe) | x.network_signals(*lr, x.figures) | {"stability/data_age": age / self.t}
            if probe:
                seen, action, alive = probes[name]
                found |= x.probe_signals(seen, x.critic_input(seen, action, joint), lr[0], alive)
            merge(stats, name, found)
        if probe and self.updates:
            self._ask_critics(stats)
        return stats

    def _ask_critics(self, stats: Stats) -> None:
        """Add what critics make of the replay."""
        generator = torch.Generator(self.generator.device).manual_seed(self.updates)
        at = moments(self.t, self.slots, self.num_envs, self.rollout_steps, generator)
        with torch.no_grad():
            drawn, next_action, now, then = self._situation(at.rows, noise=0.0)
        for name, x in self.learners.items():
            seen = (drawn[name], next_action[name], now, then)
            merge(stats, name, critic_signals(x, at, *seen, turn_based=self.spec.turn_based))

    def layer_names(self) -> dict[str, dict[str, Layers]]:
        """What the layers of each group's actor and critic are called, `group -> network -> names`."""
        return layer_names(self.learners)

    def sameness(self, raw: PerGroup) -> Stats:
        """How alike the raw actions `(T, E, A)` or `(T, E, A, D)` are, `{"sameness": group -> (A,)}`."""
        found = {name: behaviour.sameness(x.group.action, raw[name]) for name, x in self.learners.items()}
        return {"sameness": found}

    def action_counts(self) -> PerGroup:
        """Counts of the actions executed since the last round, keyed by `agent/dimension`."""
        counts: PerGroup = {}
        for learner in self.learners.values():
            counts |= learner.action_counts(self.t, self.rollout_steps)
        return counts

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly but the replay, which is too large to be written anew each time."""
        histories = {name: learner.history.state_dict() for name, learner in self.learners.items()}
        state = {"learning": self.policy_state(), "histories": histories}
        return state | ({"turns": self.turns.state_dict()} if self.turns else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.load_policy_state(state["learning"])
        for name, history in state["histories"].items():
            self.learners[name].history.load_state_dict(history)
        if self.turns:
            self.turns.load_state_dict(state["turns"])

    def begin_anew(self, copies: Tensor, obs: PerGroup) -> None:
        """The running episodes of `copies (E,)` are lost; new ones begin there with `obs (E, A, O)`."""
        for learner in self.learners.values():
            learner.replay.begin_anew(self.t, copies)
            if self.t == self.learned_at:  # later on the replay says where they ended
                learner.history.begin_anew(copies)
        if self.turns:
            self.turns.begin_anew(copies)

    def rings(self) -> Rings:
        """The replay of every group."""
        groups = {name: learner.replay.tensors() for name, learner in self.learners.items()}
        return Rings(groups, self.t, self.turns.settled(self.t) if self.turns else self.t)

    def policy_state(self) -> dict[str, Any]:
        """Everything needed to act and to be diagnosed."""
        groups = {name: learner.state_dict() for name, learner in self.learners.items()}
        counters = {name: getattr(self, name) for name in COUNTERS}
        return {"groups": groups, "generator": self.generator.get_state(), "counters": counters}

    def load_policy_state(self, state: dict[str, Any]) -> None:
        """Act as when `policy_state` was taken."""
        for name, group in state["groups"].items():
            self.learners[name].load_state_dict(group)
        go_on(self.generator, state["generator"])
        for name, value in state["counters"].items():
            setattr(self, name, value)
