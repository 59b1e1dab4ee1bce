"""Does a trained critic of actions know which way is up? Asked of the environment, the only judge that needs no critic.

The policy plays; the same again, but that in each copy one agent takes another action for one step, and the policy goes
on from there. What its own discounted return then gained is compared with what its critic says of the two actions: the
difference of real plays that begin alike against the difference of values. A correlation near 0 is noise, and an actor
that climbs it goes nowhere; so does one where the environment's luck drowns a single action.

Shapes: T steps, E copies, N agents of all groups, A agents of a group, U features of an encoded action.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marl_stable.acting import random_action
from marl_stable.agents.base import Agent
from marl_stable.agents.ddpg_learner import DDPGLearner, Drawn, Joint
from marl_stable.investigate.reward.arena import Arena
from marl_stable.investigate.reward.fitting import to_come
from marl_stable.investigate.reward.play import Choose, Floats, Played, known
from marl_stable.investigate.reward.statistics import correlation
from marl_stable.types import ActionSpec, Box, PerGroup

PLAYS = 4
FEWEST = 24


class Agreement(NamedTuple):
    """How far critic and environment agree on what another action gains."""

    correlation: float
    cases: int
    signs: float  # share of the cases in which both say gain, or both loss


def agreement(arena: Arena, agent: Agent, policy: Choose) -> Agreement | None:
    """None where the algorithm has no critic of actions, or nothing that differs was played."""
    learners: dict[str, Any] = getattr(agent, "learners", {})
    if not learners or not all(isinstance(learner, DDPGLearner) for learner in learners.values()):
        return None
    gamma = float(learners[arena.spec.groups[0].name].config.gamma)
    rng = np.random.default_rng(arena.seed + 2)
    said, real = [], []
    for i in range(PLAYS):
        base = arena.play(policy, i)
        length = base.live.sum(0)
        moment = rng.integers(0, np.maximum(1, length // 2))
        who = rng.integers(len(arena.who.agents), size=len(length))
        other = arena.play(_once(arena, policy, moment, who, arena.generator(700 + i)), i)
        copies = np.arange(len(length))
        gains = [to_come(known(play.reward), play.live, gamma)[moment, copies, who] for play in (base, other)]
        real.append(gains[1] - gains[0])
        said.append(_valued(arena, learners, other, moment, who) - _valued(arena, learners, base, moment, who))
    return compared(np.concatenate(said), np.concatenate(real))


def compared(said: Floats, real: Floats) -> Agreement | None:
    """Of differences `(M,)`, those that the environment did not notice left out."""
    felt = np.abs(real) > 1e-9
    said, real = said[felt], real[felt]
    value = correlation(said, real) if len(real) >= FEWEST else None
    if value is None:
        return None
    return Agreement(value, len(real), float((np.sign(said) == np.sign(real)).mean()))


def _once(arena: Arena, policy: Choose, moment: NDArray[Any], who: NDArray[Any], draw: torch.Generator) -> Choose:
    """`policy`, but for one agent's action at one moment of each copy, which is random."""

    def choose(obs: PerGroup, t: int) -> PerGroup:
        action, start = dict(policy(obs, t)), 0
        for group in arena.spec.groups:
            n = len(group.agents)
            drawn = random_action(group, obs[group.name], draw)
            swap = torch.from_numpy((moment == t)[:, None] & (who[:, None] == np.arange(start, start + n)))
            swap = swap if drawn.dim() == 2 else swap.unsqueeze(-1)
            action[group.name] = torch.where(swap, drawn, action[group.name].to(drawn.dtype))
            start += n
        return action

    return choose


@torch.no_grad()
def _valued(arena: Arena, learners: dict[str, Any], play: Played, moment: NDArray[Any], who: NDArray[Any]) -> Floats:
    """`(E,)` what each copy's agent `who` had to expect at its `moment`, by its critic, in raw rewards."""
    copies = np.arange(len(moment))
    seen, did = {}, {}
    for group in arena.spec.groups:
        x = learners[group.name]
        seen[group.name] = x.normalized(torch.from_numpy(play.obs[group.name][moment, copies]))
        action = play.action[group.name][torch.from_numpy(moment), torch.from_numpy(copies)]
        did[group.name] = x.actor.encoded(_canonical(group.action, action))
    here = {name: torch.ones(x.shape[:2]) for name, x in seen.items()}
    joint = Joint(*(torch.cat([part.flatten(1) for part in kind.values()], dim=1) for kind in (seen, did, here)))
    values = [_of_group(learners[g.name], seen[g.name], did[g.name], joint) for g in arena.spec.groups]
    found: Floats = torch.cat(values, dim=1).numpy().astype(np.float64)[copies, who]
    return found


def _canonical(kind: ActionSpec, action: Tensor) -> Tensor:
    """Actions in the environment's units as critics know them: boxes from -1 to 1, choices as they are."""
    if not isinstance(kind, Box):
        return action
    low, high = torch.tensor(kind.low), torch.tensor(kind.high)
    return 2 * (action - low) / (high - low) - 1


def _of_group(x: DDPGLearner, seen: Tensor, did: Tensor, joint: Joint) -> Tensor:
    """`(E, A)`."""
    nothing = torch.zeros(seen.shape[:2])
    drawn = Drawn(seen, did, nothing, seen, nothing > 0, nothing + 1)
    return x.scale.raw_value(x.value_of_own(did, drawn, joint))
