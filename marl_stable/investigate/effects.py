"""Which actions do anything: two plays from the same seed, alike but for one dimension of one agent's action.

Each copy tries another dimension, so that few plays are enough. A dimension counts as having an effect as soon as any
observation, reward or end of anybody differs, in any copy. Shapes: E copies, A agents of a group, D dimensions of an
action, F features of an outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from marl_stable.acting import random_action
from marl_stable.envs.base import BatchedEnv
from marl_stable.investigate.baselines import next_legal
from marl_stable.types import Box, Discrete, EnvSpec, Group, PerGroup, Step, legal_features

STEPS = 8  # of a play, for each agent that takes turns
TRIES = 2  # copies that try the same, at least
BUDGET = 1_000  # environment steps of all plays together; one pair and its repetition are played whatever they cost


class Target(NamedTuple):
    """What is changed: choice 0 to `choice`, a number by half its range, or the legal action to the next one."""

    group: str
    agent: int
    dimension: int | None  # None: the action has one part only
    choice: int | None


class Trace(NamedTuple):
    """What a play led to, until the first episode ended: what follows may hang on the draws of other copies."""

    outcomes: list[Tensor]  # (E, F) each
    tried: list[Tensor]  # (E,) each: the agent acted, and not as it would have


def effects(env: BatchedEnv, seed: int) -> dict[str, Any]:
    """The `effects` of `preflight`."""
    targets = _targets(env.spec)
    length = STEPS * (len(env.spec.agents) if env.spec.turn_based else 1)
    affordable = (BUDGET // (length * env.num_envs) - 1) // 2
    rounds = max(1, min(-(-TRIES * len(targets) // env.num_envs), affordable))
    tries = min(rounds * env.num_envs, len(targets))
    chosen = [targets[i * len(targets) // tries] for i in range(tries)]
    tried: set[Target] = set()
    effective: set[Target] = set()
    for number in range(rounds):
        row = [chosen[(number * env.num_envs + copy) % len(chosen)] for copy in range(env.num_envs)]
        usual, other = _play(env, seed, row, length, False), _play(env, seed, row, length, True)
        if number == 0 and _differs(usual, _play(env, seed, row, length, False)).any():
            return _described(env.spec, targets, tried, effective, repeatable=False)
        compared = min(len(usual.outcomes), len(other.outcomes))
        acted = torch.stack(other.tried[:compared]).any(0).tolist()
        tried |= {target for target, yes in zip(row, acted, strict=True) if yes}
        effective |= {target for target, yes in zip(row, _differs(usual, other).tolist(), strict=True) if yes}
    return _described(env.spec, targets, tried, effective, repeatable=True)


def _targets(spec: EnvSpec) -> list[Target]:
    found = []
    for group in spec.groups:
        for agent in range(len(group.agents)):
            if group.masked:
                found.append(Target(group.name, agent, None, None))
            elif isinstance(group.action, Discrete):
                found += [Target(group.name, agent, None, choice) for choice in range(1, group.action.n)]
            elif isinstance(group.action, Box):
                found += [Target(group.name, agent, d, None) for d in range(len(group.action.low))]
            else:
                sizes = enumerate(group.action.n)
                found += [Target(group.name, agent, d, choice) for d, n in sizes for choice in range(1, n)]
    return found or [Target(spec.groups[0].name, 0, None, None)]  # one choice only: never tried


def _play(env: BatchedEnv, seed: int, row: Sequence[Target], length: int, changed: bool) -> Trace:
    """Random actions, but for the part of each copy's target, which holds still or is `changed`."""
    generator = torch.Generator(env.device).manual_seed(seed + 1)  # not the environment's, or both would draw the same
    parts = {group.name: _part(env, group, row) for group in env.spec.groups}
    trace = Trace([], [])
    obs = env.reset(seed)
    for _ in range(length):
        action: PerGroup = {}
        apart = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)
        for group in env.spec.groups:
            drawn = random_action(group, obs[group.name], generator)
            mine, choice = parts[group.name]
            usual = drawn if group.masked or isinstance(group.action, Box) else drawn.masked_fill(mine, 0)
            other = torch.where(mine, _changed(group, drawn, choice, obs[group.name]), drawn)
            action[group.name] = other if changed else usual
            apart |= ((other != usual) & mine).flatten(1).any(1)
        step = env.step(action)
        trace.outcomes.append(_outcome(env.spec, step))
        trace.tried.append(apart & _alive(step, row))
        if bool(step.done.any()):
            break
        obs = step.obs
    return trace


def _part(env: BatchedEnv, group: Group, row: Sequence[Target]) -> tuple[Tensor, Tensor]:
    """`(E, A)` or `(E, A, D)`: which entries of the group's action are targets, and the choice to make there."""
    shape = [env.num_envs, len(group.agents)]
    if not isinstance(group.action, Discrete):
        shape.append(len(group.action.low) if isinstance(group.action, Box) else len(group.action.n))
    mine, choice = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.int64)
    for copy, target in enumerate(row):
        if target.group == group.name:
            place = (copy, target.agent) if target.dimension is None else (copy, target.agent, target.dimension)
            mine[place], choice[place] = True, target.choice or 0
    return mine.to(env.device), choice.to(env.device)


def _changed(group: Group, drawn: Tensor, choice: Tensor, obs: Tensor) -> Tensor:
    """The group's action if it were changed everywhere."""
    if isinstance(group.action, Box):
        low, high = torch.tensor([group.action.low, group.action.high], device=drawn.device)
        half = 0.5 * (high - low)
        return torch.where(drawn < low + half, drawn + half, drawn - half)
    if group.masked:
        n = legal_features(group)
        return next_legal((drawn + 1) % n, obs[..., -n:] > 0.5)
    return choice


def _outcome(spec: EnvSpec, step: Step) -> Tensor:
    """`(E, F)` all that anybody could notice of a step, but for the first observations of new episodes."""
    kinds: list[Mapping[str, Tensor]] = [step.next_obs, step.reward, step.terminated, step.truncated, step.alive]
    parts = [kind[group.name].flatten(1).to(torch.float32) for kind in kinds for group in spec.groups]
    return torch.cat([*parts, step.done.unsqueeze(1).to(torch.float32)], dim=1)


def _alive(step: Step, row: Sequence[Target]) -> Tensor:
    """`(E,)` whether the agent of each copy's target acted."""
    alive = {name: values.tolist() for name, values in step.alive.items()}
    found = [alive[target.group][copy][target.agent] for copy, target in enumerate(row)]
    return torch.tensor(found, device=step.done.device)


def _differs(one: Trace, other: Trace) -> Tensor:
    """`(E,)` whether any outcome differs, as far as both plays go; NaN equals NaN."""
    pairs = list(zip(one.outcomes, other.outcomes, strict=False))  # the shorter one's last step tells of its end
    return torch.stack([((x != y) & ~(x.isnan() & y.isnan())).any(1) for x, y in pairs]).any(0)


def _described(
    spec: EnvSpec, targets: Sequence[Target], tried: set[Target], effective: set[Target], repeatable: bool
) -> dict[str, Any]:
    found: dict[str, Any] = {"repeatable": repeatable, "without_effect": [], "like_choice_0": [], "untried": []}
    agents = {group.name: group.agents for group in spec.groups}
    parts: dict[tuple[str, int, int | None], list[Target]] = {}
    for target in targets:
        parts.setdefault((target.group, target.agent, target.dimension), []).append(target)
    for (group, agent, dimension), choices in parts.items() if repeatable else ():
        where = {"agent": agents[group][agent]} | ({} if dimension is None else {"dimension": dimension})
        idle = [target.choice for target in choices if target in tried - effective]
        if not tried.intersection(choices):
            found["untried"].append(where)
        elif not effective.intersection(choices):
            found["without_effect"].append(where)
        elif idle:
            found["like_choice_0"].append(where | {"choices": idle})
    return found
