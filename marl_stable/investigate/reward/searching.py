"""Greedy play: a brief search for what pays most, for the whole reward and for each term alone.

The cross-entropy method over linear policies, every copy playing one of its own, so that a generation is one play. It
starts at the best constant action, and each copy is measured by what it gains over that on the same episode. It is no
training: it shows what looking is worth at least, and what a term by itself makes agents do.

Shapes: E copies, A agents of a group, F features, P numbers that decide on an action, N agents, K terms.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marl_stable.investigate.reward.arena import Arena
from marl_stable.investigate.reward.candidates import Candidate, paid
from marl_stable.investigate.reward.fitting import Sight, sight
from marl_stable.investigate.reward.play import Choose, Floats, Played
from marl_stable.types import Box, Discrete, Group, PerGroup, legal_features

GENERATIONS, FOR_A_TERM = 8, 4  # twice as many where plays are cheap
FEWEST = 2  # that are played at any rate
MOST_TERMS = 4
ELITE, SMOOTH = 0.15, 0.8
START, LEAST = 0.5, 0.05  # deviations of weights, of unit features


class Policies(NamedTuple):
    """Linear policies of one group, around a mean."""

    group: Group
    sight: Sight
    mean: Floats  # (P, F)
    std: Floats

    def drawn(self, copies: int, rng: np.random.Generator) -> Floats:
        """`(E, P, F)` one for each copy; every second the mirror image of the one before."""
        half = rng.normal(size=((copies + 1) // 2, *self.mean.shape))
        both = np.stack([half, -half], axis=1).reshape(-1, *self.mean.shape)[:copies]
        return self.mean + self.std * both

    def action(self, weights: Floats, obs: Tensor) -> Tensor:
        """What policies `(E or 1, P, F)` do on `obs (E, A, O)`."""
        raw = obs.detach().cpu().numpy()
        said = np.einsum(
            "eaf,epf->eap", self.sight.plain(raw), np.broadcast_to(weights, (len(raw), *weights.shape[1:]))
        )
        return torch.from_numpy(_decided(self.group, said, raw)).to(obs.device)


def _decided(group: Group, said: Floats, obs: NDArray[Any]) -> NDArray[Any]:
    """`(E, A, P)` to actions in the environment's units."""
    kind = group.action
    if isinstance(kind, Box):
        low, high = np.array(kind.low), np.array(kind.high)
        return np.asarray(low + (np.clip(said, -1, 1) + 1) / 2 * (high - low), np.float32)
    if isinstance(kind, Discrete):
        n = legal_features(group)
        chosen: NDArray[Any] = np.argmax(np.where(obs[..., -n:] > 0.5, said, -np.inf) if n else said, axis=-1)
        return chosen
    ends = np.cumsum(kind.n)
    return np.stack([said[..., end - n : end].argmax(-1) for n, end in zip(kind.n, ends, strict=True)], axis=-1)


def greedies(arena: Arena, random: Candidate, constant: Candidate) -> list[Candidate]:
    """The best found for the whole reward, and where there are several for each term."""
    rng = np.random.default_rng(arena.seed)
    terms = len(arena.who.terms)
    made = [search(arena, random, constant, None, arena.rounds * GENERATIONS, rng)]
    for k in range(terms) if 1 < terms <= MOST_TERMS else ():
        varies = np.ptp(random.play.terms[..., k][random.play.live]) > 0
        if varies and arena.allows("greedy play for single terms"):
            made.append(search(arena, random, constant, k, arena.rounds * FOR_A_TERM, rng))
    return made


def search(
    arena: Arena, random: Candidate, constant: Candidate, term: int | None, generations: int, rng: np.random.Generator
) -> Candidate:
    """The mean of the last generation, played by everybody; `term` None: the whole reward."""
    groups = [_begun(arena, group, random.play, constant) for group in arena.spec.groups]
    copies = arena.env.num_envs
    for generation in range(generations):
        if generation >= FEWEST and not arena.allows("most of the greedy search"):
            break
        episode = generation % arena.rounds
        drawn = [policies.drawn(copies, rng) for policies in groups]
        play = arena.play(_acting(groups, drawn), episode)
        part = slice(episode * copies, (episode + 1) * copies)
        gain = _scores(play, term) - _scores(constant.play, term)[part]  # (E, N)
        groups = [
            _improved(policies, weights, _of_team(arena, policies.group, gain))
            for policies, weights in zip(groups, drawn, strict=True)
        ]
    name = "greedy" if term is None else f"greedy for {arena.who.terms[term]}"
    return paid(arena, name, _acting(groups, [policies.mean[None] for policies in groups]))


def _begun(arena: Arena, group: Group, play: Played, constant: Candidate) -> Policies:
    """Around the constant action."""
    obs = play.obs[group.name][play.live]
    seen = sight(obs, group)
    assert constant.action is not None
    held, kind, agents = np.asarray(constant.action[group.agents[0]]), group.action, len(group.agents)
    if isinstance(kind, Box):
        low, high = np.array(kind.low), np.array(kind.high)
        level = 2 * (held - low) / np.where(high > low, high - low, 1.0) - 1
    elif isinstance(kind, Discrete):
        level = np.eye(kind.n)[int(held)]
    else:
        level = np.concatenate([np.eye(n)[int(choice)] for n, choice in zip(kind.n, held, strict=True)])
    mean = np.zeros((len(level), agents + obs.shape[-1]))
    mean[:, :agents] = level[:, None]
    std = np.full_like(mean, START / np.sqrt(max(1, obs.shape[-1]) / 4))
    std[:, :agents] = START
    return Policies(group, seen, mean, std)


def _acting(groups: list[Policies], weights: list[Floats]) -> Choose:
    def choose(obs: PerGroup, _: int) -> PerGroup:
        return {
            policies.group.name: policies.action(own, obs[policies.group.name])
            for policies, own in zip(groups, weights, strict=True)
        }

    return choose


def _scores(play: Played, term: int | None) -> Floats:
    """`(E, N)` what each agent was paid."""
    return play.returns() if term is None else play.sums()[..., term]


def _of_team(arena: Arena, group: Group, gain: Floats) -> Floats:
    """`(E,)` the mean over the group's team."""
    team = [agent for other in arena.spec.groups if other.team == group.team for agent in other.agents]
    found: Floats = gain[:, [arena.who.agents.index(agent) for agent in team]].mean(1)
    return found


def _improved(policies: Policies, drawn: Floats, gain: Floats) -> Policies:
    """Towards the copies that gained most."""
    best = np.argsort(-gain, kind="stable")[: max(4, int(ELITE * len(gain)))]
    mean = (1 - SMOOTH) * policies.mean + SMOOTH * drawn[best].mean(0)
    std = (1 - SMOOTH) * policies.std + SMOOTH * drawn[best].std(0)
    return policies._replace(mean=mean, std=np.maximum(std, LEAST / np.sqrt(drawn.shape[-1])))
