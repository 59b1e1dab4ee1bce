"""The boundary between environment and learning: numbers that are not finite are counted, and kept out of learning.

One such number in an observation or a reward, let in once, is in every weight after the next update. So each step is
looked at as it comes. A step that an agent cannot learn from is excluded for this agent alone; nothing is dropped from
the episode, and nothing happens silently: it is counted, becomes an incident, and where it happens often the run stops.

Shapes: E environment copies, A agents of a group, O observation features, K reward terms.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marl_stable import distributed
from marl_stable.envs.base import BatchedEnv
from marl_stable.evaluation import Act, Remembering
from marl_stable.monitor.detectors import Incident
from marl_stable.monitor.table import Host
from marl_stable.types import EnvSpec, PerGroup, Step

OBSERVATIONS, REWARDS = "stability/obs_non_finite", "stability/reward_non_finite"
EXCLUDED = "stability/excluded"
TOLERATED_SHARE = 1e-3  # of an agent's recent steps; beyond it learning would no longer be that of the task
TOLERATED_STEPS = 20  # fewer are no rate
RECENT = 100_000.0  # steps in which an old one fades to 1/e: a copy that fails for one episode is no reason to stop


class Validation:
    """Looks at every step of training; to be handed the first observations, then each step, each exactly once.

    Observations: an entry that is not finite becomes the last finite value of that feature, agent and copy (0 before
    there was one), so that policies and central critics see numbers. Rewards: it becomes 0, and so do its terms. Agents
    whose observation, next observation or reward was concerned do not learn from that step.

    The host never waits for a device. On the CPU, where to look at a number is no waiting, a step of finite numbers
    comes back as it was, the same objects.
    """

    def __init__(self, envs: BatchedEnv, acts: bool) -> None:
        """`acts`: false counts, and hands everything on as it is."""
        self.acts, self.spec, self.copies = acts, envs.spec, envs.num_envs
        self._may_look = envs.device.type == "cpu"  # elsewhere it would be to wait
        sizes = {g.name: (envs.num_envs, len(g.agents), g.obs_size) for g in envs.spec.groups}
        self._last = {name: torch.zeros(size, device=envs.device) for name, size in sizes.items()}  # as handed on
        self._no_feature = {name: torch.zeros_like(x, dtype=torch.bool) for name, x in self._last.items()}
        self._no_agent = {name: none.new_zeros(none.shape[:2]) for name, none in self._no_feature.items()}
        self._bad: PerGroup | None = None  # (E, A, O) of the observations to act on next; None: nothing
        self._excluded: PerGroup | None = None  # (E, A) in the last step; None: nobody
        self.unpaid: PerGroup | None = None
        """`(E, A)` whose reward of the last step was not finite and is 0 now; None: nobody's."""
        self._features = {name: none.to(torch.int32) for name, none in self._no_feature.items()}  # counts
        self._rewards = {name: none.to(torch.int32) for name, none in self._no_agent.items()}
        self._losses = {name: none.to(torch.int32) for name, none in self._no_agent.items()}
        self._counted = False  # whether any of these can be above 0
        self._steps = 0  # of all copies together, since the last `take`
        self._taken = 0  # the same at the last `take`
        self._where: dict[str, tuple[Tensor, Tensor]] = {}  # at the last `take`: copies most concerned, (A, O) and (A,)
        self._recent_steps = 0.0
        self._recent = dict.fromkeys(envs.spec.agents, 0.0)  # steps excluded

    # ---- step by step

    def first(self, obs: PerGroup) -> PerGroup:
        """The observations to act on first, after a reset or a `load_state_dict`, in finite numbers."""
        self._bad = not_finite(obs, self._may_look)
        self._last = self._mended(obs, self._bad, self._last)
        return self._last if self.acts else obs

    def check(self, step: Step) -> Step:
        """`step` in finite numbers; `alive` still says who acted, so that ends read as the environment told them."""
        self._steps += self.copies
        before, whole = self._bad, step.next_obs is step.obs
        self._bad = now = not_finite(step.obs, self._may_look)
        then = now if whole else not_finite(step.next_obs, self._may_look)
        unpaid = not_finite(step.reward, self._may_look)
        self._excluded = self.unpaid = None
        if before is None and now is None and then is None and unpaid is None:
            self._last = step.obs
            return step
        excluded = self._count(step, before or self._no_feature, then or self._no_feature, unpaid or self._no_agent)
        if not self.acts:
            return step
        self._excluded, self.unpaid = excluded, unpaid
        next_obs = self._mended(step.next_obs, then, self._last)
        self._last = next_obs if whole else self._mended(step.obs, now, next_obs)
        reward, terms = step.reward, step.terms
        if unpaid is not None:
            reward = {name: x.masked_fill(unpaid[name], 0.0) for name, x in reward.items()}
            terms = {name: x.masked_fill(unpaid[name].unsqueeze(-1), 0.0) for name, x in terms.items()}
        return step._replace(obs=self._last, next_obs=next_obs, reward=reward, terms=terms)

    def exclude(self, step: Step) -> Step:
        """What may be learned from the step checked last: `alive` false for agents whose numbers were not finite.

        In turn-based play what is lost may be part of what an earlier turn brought, which is then `missing` something.
        """
        if self._excluded is None:
            return step
        alive = {name: acted & ~self._excluded[name] for name, acted in step.alive.items()}
        return step._replace(alive=alive, missing=self._missing(step, self._excluded) if self.spec.turn_based else {})

    def _missing(self, step: Step, excluded: PerGroup) -> PerGroup:
        """`(E, A)` agents with an excluded turn or end of their own, and those unpaid in anybody's turn."""
        concerned = {name: x | step.terminated[name] | step.truncated[name] for name, x in step.alive.items()}
        unpaid = self.unpaid or self._no_agent
        return {name: excluded[name] & concerned[name] | unpaid[name] for name in excluded}

    def _mended(self, tensors: PerGroup, bad: PerGroup | None, instead: PerGroup) -> PerGroup:
        if bad is None or not self.acts:
            return tensors
        return {name: torch.where(bad[name], instead[name], x) for name, x in tensors.items()}

    def _count(self, step: Step, before: PerGroup, then: PerGroup, unpaid: PerGroup) -> PerGroup:
        """Count what concerned agents that acted; who has nothing to learn from this step, `(E, A)`.

        An observation counts when it was acted on, and in the step that ends its agent, after which nobody acts on it.
        In a turn-based environment rewards count whoever acted.
        """
        self._counted = True
        excluded = {}
        for name, alive in step.alive.items():
            ended = alive & (step.terminated[name] | step.truncated[name])
            seen = (before[name] & alive.unsqueeze(-1)) | (then[name] & ended.unsqueeze(-1))
            missed = unpaid[name] if self.spec.turn_based else unpaid[name] & alive
            excluded[name] = (before[name] | then[name]).any(-1) | unpaid[name]
            self._features[name] += seen
            self._rewards[name] += missed
            self._losses[name] += (excluded[name] & alive) | missed
        return excluded

    # ---- once per logged iteration

    def take(self) -> dict[str, PerGroup]:
        """Shares of the steps since the last call, still on the device; all that follows is about these steps.

        They are those of all processes that train together, whose copies are counted one process after the other.
        """
        self._taken, self._steps = self._steps * distributed.world_size(), 0
        mine = {OBSERVATIONS: self._features, REWARDS: self._rewards, EXCLUDED: self._losses}
        if not distributed.anyone(self._counted):  # zeros in every copy
            return {tag: {name: x[0].double() for name, x in groups.items()} for tag, groups in mine.items()}
        counts = {tag: {name: distributed.gathered(x) for name, x in groups.items()} for tag, groups in mine.items()}
        shares = {tag: {name: x.sum(0) / self._taken for name, x in y.items()} for tag, y in counts.items()}
        rewards = counts[REWARDS]
        self._where = {name: (x.argmax(0), rewards[name].argmax(0)) for name, x in counts[OBSERVATIONS].items()}
        for groups in mine.values():
            for x in groups.values():
                x.zero_()
        self._counted = False
        return shares

    def incidents(self, steps: int, found: Host) -> list[Incident]:
        """From what was taken, as the host has it: at most one of each kind per agent, with its worst feature.

        `value` is the number of steps; `copy` the one most concerned.
        """
        told = []
        action = "excluded" if self.acts else "none"
        for group in self.spec.groups:
            features, rewards = found[OBSERVATIONS][group.name], found[REWARDS][group.name]
            if not (features.any() or rewards.any()):
                continue
            copies, paying = (x.tolist() for x in self._where[group.name])  # a second transfer, but a rare one
            for i, agent in enumerate(group.agents):
                if features[i].any():
                    worst = int(features[i].argmax())
                    place = {"agent": agent, "feature": worst, "copy": copies[i][worst]}
                    count = float(round(features[i, worst] * self._taken))
                    told.append(Incident(steps, "non_finite_observation", place, count, 0.0, action, {}))
                if rewards[i] > 0:
                    place = {"agent": agent, "copy": paying[i]}
                    count = float(round(rewards[i] * self._taken))
                    told.append(Incident(steps, "non_finite_reward", place, count, 0.0, action, {}))
        return told

    def stop(self, found: Host) -> str | None:
        """Why the run should end, if too many of an agent's recent steps were excluded; to be asked once per `take`."""
        keep = math.exp(-self._taken / RECENT)
        self._recent_steps = keep * self._recent_steps + self._taken
        worst, told = 0.0, None
        for group in self.spec.groups:
            features, rewards = found[OBSERVATIONS][group.name], found[REWARDS][group.name]
            for i, agent in enumerate(group.agents):
                lost = keep * self._recent[agent] + float(found[EXCLUDED][group.name][i]) * self._taken
                self._recent[agent] = lost
                blamed = bool(features[i].any() or rewards[i] > 0)  # else it is the next reading that can name it
                limit = max(worst, TOLERATED_STEPS - 0.5, TOLERATED_SHARE * self._recent_steps)
                if self.acts and blamed and lost > limit:
                    worst, told = lost, self._sentence(agent, features[i], float(rewards[i]), lost)
        return told

    def _sentence(self, agent: str, features: NDArray[np.float64], reward: float, lost: float) -> str:
        share = max(reward, features.max(initial=0.0))
        what, remedy = f"{agent}'s reward", "mend its formula"
        if share > reward:
            what = f"feature {int(features.argmax())} of {agent}'s observations"
            remedy = "mend that feature or leave it out"
        return (
            f"stopped: {what} is not finite in {_percent(share)} of the last {self._taken:,} steps, and "
            f"{_percent(lost / self._recent_steps)} of {agent}'s recent steps could not be learned from "
            f"({_percent(TOLERATED_SHARE)} are tolerated); {remedy}."
        )

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """Observations as handed on last, counts since the last `take`, and how much was excluded of late."""
        return {
            "last": dict(self._last),
            "counts": [dict(counts) for counts in (self._features, self._rewards, self._losses)],
            "steps": self._steps,
            "recent_steps": self._recent_steps,
            "recent": dict(self._recent),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; the environment's observations are then to be handed to `first`."""
        self._last = {name: state["last"][name].to(x) for name, x in self._last.items()}
        for mine, saved in zip((self._features, self._rewards, self._losses), state["counts"], strict=True):
            for name, counts in mine.items():
                counts.copy_(saved[name])
        self._counted = state["steps"] > 0
        self._steps, self._recent_steps = state["steps"], state["recent_steps"]
        self._recent = dict(state["recent"])


class Mended:
    """An evaluation's act, for one play, that sees observations mended as in training; rewards are left as they are."""

    def __init__(self, act: Act) -> None:
        self.act = act
        self.last: PerGroup = {}
        self.counts: PerGroup = {}  # (E, A, O)

    def __call__(self, obs: PerGroup) -> PerGroup:
        """Observations `(E, A, O)` to actions in the environment's units."""
        bad = not_finite(obs, may_look=next(iter(obs.values())).device.type == "cpu")
        if bad is not None:
            last = self.last or {name: torch.zeros_like(x) for name, x in obs.items()}
            obs = {name: torch.where(bad[name], last[name], x) for name, x in obs.items()}
            self.counts = {name: x + self.counts.get(name, 0) for name, x in bad.items()}
        self.last = obs
        return self.act(obs)

    def ended(self, done: Tensor) -> None:
        """The episodes of the copies `done (E,)` are over."""
        if isinstance(self.act, Remembering):
            self.act.ended(done)

    def incidents(self, steps: int, spec: EnvSpec) -> list[Incident]:
        """What was mended: one incident per agent, with its worst feature; `value` counts observations."""
        told = []
        for group in spec.groups if self.counts else ():
            counts = self.counts[group.name].cpu().numpy()
            for i, agent in enumerate(group.agents):
                features = counts[:, i].sum(0)
                if features.any():
                    worst = int(features.argmax())
                    where = {"agent": agent, "feature": worst, "copy": int(counts[:, i, worst].argmax())}
                    value = float(features[worst])
                    told.append(Incident(steps, "non_finite_observation", where, value, 0.0, "none", {}))
        return told


def not_finite(tensors: PerGroup, may_look: bool) -> PerGroup | None:
    """True where an entry is not finite; None where the host, if it `may_look`, knows that all are: their sums are."""
    if may_look and math.isfinite(sum(float(x.sum()) for x in tensors.values())):
        return None
    return {name: (x - x) != 0 for name, x in tensors.items()}  # inf - inf is NaN; cheaper than isfinite


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
