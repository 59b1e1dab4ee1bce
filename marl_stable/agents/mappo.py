"""MAPPO: PPO for teams, with a critic that sees all agents (Yu et al. 2022, "The surprising effectiveness of PPO").

Shapes: T steps, E copies, B = T * E rows of a batch, A agents of one group, O observation features, S features of what
central critics are given: the sum over groups of A * O, and where they pool A for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from marl_stable import distributed
from marl_stable.agents import behaviour
from marl_stable.agents.base import DRAWS, Player, Rings, Stats, copied, decay, merge
from marl_stable.agents.config import MAPPOConfig
from marl_stable.agents.figures import BACKWARD, layer_names, probe_every, probe_passes, rates
from marl_stable.agents.ppo import Batch
from marl_stable.agents.ppo_learner import Learned, PPOLearner
from marl_stable.agents.recurrent_learner import RecurrentPlayer, RecurrentPPOLearner
from marl_stable.generators import go_on
from marl_stable.graphs import Replayed
from marl_stable.monitor.table import Layers
from marl_stable.networks.heads import Distribution
from marl_stable.types import EnvSpec, PerGroup, Step

KL_GOAL = 0.01  # nats per update; the aim of `lr_schedule kl` where no target_kl is set


class MAPPO:
    """Acts for all groups, keeps what happened, and learns from it once a batch is full."""

    centralised = True

    def __init__(
        self,
        spec: EnvSpec,
        config: MAPPOConfig,
        num_envs: int,
        device: torch.device,
        seed: int,
        refuse: bool = True,
        watch: bool = True,
    ) -> None:
        """`config.gamma` must be a number by now. `refuse`: bad gradients move nothing; `watch`: spikes are counted."""
        self.spec, self.config, self.num_envs = spec, config, num_envs
        self.rollout_steps = max(1, config.batch_size // (num_envs * distributed.world_size()))
        self.generator = torch.Generator(device).manual_seed(distributed.own_seed(seed) + DRAWS)
        self.t = 0
        self.kl_scale = 1.0  # of the step size, moved by `lr_schedule kl`
        self.scale = 1.0  # of the step size in the last update
        init = torch.Generator().manual_seed(seed)
        everybody = spec.groups if self.centralised else None
        shape = (self.rollout_steps, num_envs)
        learner = RecurrentPPOLearner if config.recurrent else PPOLearner
        self.learners: dict[str, PPOLearner] = {
            g.name: learner(g, config, everybody, shape, spec.turn_based, device, init, refuse, watch)
            for g in spec.groups
        }
        self.choose = Replayed(self._choose)

    def compile(self) -> None:
        """From now on, record acting and learning and replay them, on a CUDA device; results stay what they were."""
        if not self.config.recurrent:  # what is remembered has a place of its own at each step
            self.choose.record(self.generator)
        for learner in self.learners.values():
            learner.step.record(self.generator)

    # ---- acting

    @torch.no_grad()
    def policy(self, obs: PerGroup) -> dict[str, Distribution]:
        """Each group's distribution over raw actions, from raw observations `(E, A, O)`; with memory, first ones."""
        return {name: learner.actor(learner.normalized(obs[name])) for name, learner in self.learners.items()}

    def player(self) -> Player:
        """Who answers as the policy does, and remembers what it must from step to step."""
        return RecurrentPlayer(self.learners) if self.config.recurrent else Player(self.policy)

    def to_env(self, raw: PerGroup) -> PerGroup:
        """Raw actions in the environment's units."""
        return {name: self.learners[name].actor.to_env(action) for name, action in raw.items()}

    @torch.no_grad()
    def act(self, obs: PerGroup) -> PerGroup:
        """Draw this step's actions and keep them; `(E, A)` or `(E, A, D)` in the environment's units."""
        raw, log_prob, action = self.choose(obs)
        for name, learner in self.learners.items():
            learner.rollout.write(self.t, obs[name], raw[name], log_prob[name])
        return action  # type: ignore[no-any-return]

    @torch.no_grad()
    def _choose(self, obs: PerGroup) -> tuple[PerGroup, PerGroup, PerGroup]:
        """Raw actions for raw observations, their log-probabilities, and the same in the environment's units."""
        policies = {name: learner.explore(self.t, obs[name]) for name, learner in self.learners.items()}
        raw = {name: policy.sample(self.generator) for name, policy in policies.items()}
        log_prob = {name: policy.log_prob(raw[name]) for name, policy in policies.items()}
        return raw, log_prob, self.to_env(raw)

    def observe(self, step: Step) -> None:
        """Keep what the actions led to."""
        for name, learner in self.learners.items():
            learner.rollout.write_outcome(self.t, name, step)
        self.t += 1

    def ready(self) -> bool:
        """Whether the batch is full."""
        return self.t == self.rollout_steps

    # ---- learning

    def initialize_statistics(self, obs: PerGroup, alive: PerGroup | None = None) -> None:
        """Start the observation statistics from a short random play, `(N, A, O)` per group; of those `alive (N, A)`."""
        alive = alive or {name: torch.ones_like(x[..., 0]) for name, x in obs.items()}
        for name, learner in self.learners.items():
            learner.take_in(obs[name], alive[name])
        self._take_in_activations(obs, alive, 0)

    def update(self, progress: float, interrupted: Callable[[], bool]) -> Stats | None:
        """Learn from the full batch, `progress` (0 to 1) into the run.

        None where `interrupted` said so in mid-update: then nothing has changed, and the update can be repeated.
        """
        before = copied(self._learning_state())
        batches, stats = self._batches()
        losses: dict[str, list[dict[str, Tensor]]] = {name: [] for name in self.learners}
        self.scale, entropy_scale = self._schedule(progress)
        for minibatches in self._epochs():
            steps: dict[str, list[Learned]] = {name: [] for name in self.learners}
            for index in minibatches:
                if interrupted():
                    self._load_learning_state(before)
                    return None
                for name, learner in self.learners.items():
                    steps[name].append(learner.learn(learner.part(batches[name], index), self.scale, entropy_scale))
            for name, learner in self.learners.items():
                losses[name] += learner.told(steps[name])
            if self._moved_enough(losses):
                break
        for name, learner in self.learners.items():
            merge(stats, name, learner.finish(losses[name]))
        obs = {name: learner.rollout.obs[:-1].flatten(0, 1) for name, learner in self.learners.items()}
        alive = {name: learner.rollout.alive.flatten(0, 1) for name, learner in self.learners.items()}
        self._take_in_activations(obs, alive, max(map(len, losses.values())))
        self._adapt_to_kl(stats)
        self.t = 0
        return stats

    def _take_in_activations(self, obs: PerGroup, alive: PerGroup, steps: int) -> None:
        """Let raw observations `(N, A, O)` into the statistics inside networks, after those of observations moved."""
        if not any(x.actor_norms or x.critic_norms for x in self.learners.values()):
            return
        seen = {name: learner.normalized(obs[name]) for name, learner in self.learners.items()}
        joint = self._joint(seen, alive)
        for name, learner in self.learners.items():
            critic_input = joint if self.centralised else seen[name]
            learner.take_in_activations(seen[name], critic_input, alive[name], steps)

    def _batches(self) -> tuple[dict[str, Batch], Stats]:
        """Normalised rows of every group, and what was seen on the way."""
        batches, stats = {}, Stats()
        seen = {name: learner.normalized(learner.rollout.all_obs()) for name, learner in self.learners.items()}
        joint = self._joint(seen, {name: learner.rollout.present() for name, learner in self.learners.items()})
        for name, learner in self.learners.items():
            batches[name], found = learner.batch(seen[name], joint if self.centralised else seen[name])
            merge(stats, name, found)
        return batches, stats

    def _joint(self, seen: PerGroup, alive: PerGroup) -> Tensor:
        """`(..., S)` what central critics are given of normalised `seen (..., A, O)`: all side by side.

        Those that pool are also told who is there, `alive (..., A)`; where turn-based everybody, since that is only who
        moves.
        """
        parts = [obs.flatten(-2) for obs in seen.values()]
        if self.config.critic_input == "pool":
            parts += [torch.ones_like(x) if self.spec.turn_based else x for x in alive.values()]
        return torch.cat(parts, dim=-1)

    def _epochs(self) -> Iterator[Sequence[Tensor]]:
        """The samples `(B / num_minibatches,)` of each minibatch, epoch by epoch."""
        samples = next(iter(self.learners.values())).samples
        for _ in range(self.config.update_epochs):
            order = torch.randperm(samples, generator=self.generator, device=self.generator.device)
            yield order.tensor_split(min(self.config.num_minibatches, samples))

    def _schedule(self, progress: float) -> tuple[float, float]:
        """Factors of the step size and of the entropy bonus; decays take both down together."""
        factor = decay(self.config.lr_schedule, progress)
        return factor * self.kl_scale, factor

    def _moved_enough(self, losses: dict[str, list[dict[str, Tensor]]]) -> bool:
        """Whether some group's policy is beyond `target_kl`; the one wait for the device per epoch."""
        target, last = self.config.target_kl, self.config.num_minibatches
        if target is None:
            return False
        moved = [torch.stack([x["losses/approx_kl"] for x in found[-last:]]).mean() for found in losses.values()]
        return bool(distributed.mean(torch.stack(moved)).max() > target)

    def _adapt_to_kl(self, stats: Stats) -> None:
        """`lr_schedule kl`: halve the step size beyond twice the goal, raise it below half, within [1/30, 1]."""
        if self.config.lr_schedule != "kl":
            return
        goal = self.config.target_kl or KL_GOAL
        moved = float(distributed.mean(torch.stack(list(stats["losses/approx_kl"].values()))).max())
        factor = 0.5 if moved > 2 * goal else 1.5 if moved < 0.5 * goal else 1.0
        self.kl_scale = min(1.0, max(1 / 30, self.kl_scale * factor))

    # ---- being watched

    @property
    def probe_every(self) -> int:
        """Every how many iterations what takes passes of its own costs less than half a percent of an update."""
        rows, probe, update = self.rollout_steps * self.num_envs, 0, 0
        for x in self.learners.values():
            actors, critics = len(x.group.agents), x.critic_agents
            update += critics + (1 + BACKWARD) * self.config.update_epochs * (actors + critics)
            probe += probe_passes(x, rows)
        return probe_every(probe, update * rows)

    def signals(self, probe: bool) -> Stats:
        """Figures of the batch just learned from, and with `probe` of what networks make of it now."""
        stats, probes = Stats(), {name: learner.probe() for name, learner in self.learners.items()}
        joint = self._joint(*({name: x[i] for name, x in probes.items()} for i in range(2)))
        for name, learner in self.learners.items():
            actor_lr, critic_lr = rates(self.config, self.scale)
            found = learner.signals(probe) | learner.network_signals(actor_lr, critic_lr, learner.figures)
            if probe:
                seen, alive = probes[name]
                found |= learner.probe_signals(seen, joint if self.centralised else seen, actor_lr, alive)
            merge(stats, name, found)
        return stats

    def layer_names(self) -> dict[str, dict[str, Layers]]:
        """What the layers of each group's actor and critic are called, `group -> network -> names`."""
        return layer_names(self.learners)

    def sameness(self, raw: PerGroup) -> Stats:
        """How alike the raw actions `(T, E, A)` or `(T, E, A, D)` are, `{"sameness": group -> (A,)}`."""
        found = {}
        for name, learner in self.learners.items():
            found[name] = behaviour.sameness(learner.group.action, learner.actor.canonical(raw[name]))
        return {"sameness": found}

    def action_counts(self) -> PerGroup:
        """Counts of executed actions of the batch just learned from, keyed by `agent/dimension`."""
        counts: PerGroup = {}
        for learner in self.learners.values():
            counts |= learner.action_counts()
        return counts

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly, the unfinished batch included."""
        rollouts = {name: learner.rollout.state_dict() for name, learner in self.learners.items()}
        histories = {name: learner.history.state_dict() for name, learner in self.learners.items()}
        return {"learning": self._learning_state(), "rollouts": rollouts, "histories": histories, "t": self.t}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._load_learning_state(state["learning"])
        for name, rollout in state["rollouts"].items():
            self.learners[name].rollout.load_state_dict(rollout)
            self.learners[name].history.load_state_dict(state["histories"][name])
        self.t = state["t"]

    def begin_anew(self, copies: Tensor, obs: PerGroup) -> None:
        """The running episodes of `copies (E,)` are lost; new ones begin there with `obs (E, A, O)`."""
        for name, learner in self.learners.items():
            learner.rollout.begin_anew(self.t, copies, obs[name])
            if self.t == 0:  # later on the rollout says where they ended
                learner.history.begin_anew(copies)

    def rings(self) -> Rings:
        """None: the batch is part of `state_dict`."""
        return Rings({}, 0, 0)

    def policy_state(self) -> dict[str, Any]:
        """Everything needed to act and to be diagnosed: without the batch."""
        return self._learning_state()

    def load_policy_state(self, state: dict[str, Any]) -> None:
        """Act as when `policy_state` was taken."""
        self._load_learning_state(state)

    def _learning_state(self) -> dict[str, Any]:
        groups = {name: learner.state_dict() for name, learner in self.learners.items()}
        return {"groups": groups, "generator": self.generator.get_state(), "kl_scale": self.kl_scale}

    def _load_learning_state(self, state: dict[str, Any]) -> None:
        for name, group in state["groups"].items():
            self.learners[name].load_state_dict(group)
        go_on(self.generator, state["generator"])
        self.kl_scale = state["kl_scale"]
