"""Which parts of the reward actions can move at all: two plays from the same seed, in which everybody acts otherwise.

What is equal in both plays, copy by copy, though it varies between copies, came about without anybody's doing.
Shapes: E copies, A agents of a group, K reward terms.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marl_stable.acting import random_action
from marl_stable.envs.base import BatchedEnv
from marl_stable.types import Group, PerGroup, Step

STEPS = 50  # of a play, for each agent that takes turns; each copy's play ends with its episode
BUDGET = 2_000  # environment steps of both plays together; at least `FEWEST` steps are played whatever they cost
FEWEST = 8
WHOLE = "reward"  # what the reward of an environment without terms is called


def control(env: BatchedEnv, seed: int) -> dict[str, dict[str, float]]:
    """By agent and term, how far pay hangs on actions: Var(x - x')/2 over Var(x), of the sums x and x' of two plays.

    0 where nobody can move the term, about 1 where actions decide (or where chance hangs on actions, so that the plays
    meet other luck). Terms that did not vary between copies are left out, and so is everything where only one copy is.
    """
    turns = len(env.spec.agents) if env.spec.turn_based else 1
    length = max(FEWEST, min(STEPS * turns, BUDGET // (2 * env.num_envs)))
    plays = [_sums(env, seed, seed + 1 + play, length) for play in range(2)]
    found: dict[str, dict[str, float]] = {}
    for group in env.spec.groups:
        one, other = (play[group.name].double() for play in plays)
        spread = (one.var(0, correction=0) + other.var(0, correction=0)) / 2  # (A, K)
        apart = (one - other).square().mean(0) / 2
        for i, agent in enumerate(group.agents):
            rows = zip(group.terms or (WHOLE,), spread[i].tolist(), apart[i].tolist(), strict=True)
            found[agent] = {term: differs / varies for term, varies, differs in rows if varies > 0}
    return found


def _sums(env: BatchedEnv, seed: int, actions: int, length: int) -> PerGroup:
    """`(E, A, K)` what each agent was paid by term in the first episode from `seed`, with random `actions`."""
    generator = torch.Generator(env.device).manual_seed(actions)
    obs = env.reset(seed)
    running = torch.ones(env.num_envs, 1, 1, dtype=torch.bool, device=env.device)
    total: PerGroup = {}
    for _ in range(length):
        step = env.step({group.name: random_action(group, obs[group.name], generator) for group in env.spec.groups})
        for group in env.spec.groups:
            paid = torch.where(running, _paid(step, group), 0.0)
            total[group.name] = total[group.name] + paid if group.name in total else paid
        running = running & ~step.done.view(-1, 1, 1)
        obs = step.obs
    return total


def _paid(step: Step, group: Group) -> Tensor:
    """`(E, A, K)` in finite numbers; without terms the whole reward is one."""
    paid = step.terms[group.name] if group.terms else step.reward[group.name].unsqueeze(-1)
    return torch.nan_to_num(paid, nan=0.0, posinf=0.0, neginf=0.0)
