"""Whose doing the learning is: advantages taken apart by term, exactly.

Advantages are linear in rewards as long as values are, so that those of the terms sum to the whole's; a term's share
is Cov(A_k, A) / Var(A), and shares sum to 1. Shapes: T steps, E copies, N agents, K terms.
"""

from __future__ import annotations

import numpy as np

from marl_stable.investigate.reward.fitting import sight, solve, to_come
from marl_stable.investigate.reward.play import Floats, Played, known
from marl_stable.types import EnvSpec

GAMMA, GAE_LAMBDA = 0.95, 0.95
MOST_ROWS = 12_000


def advantages(spec: EnvSpec, play: Played) -> Floats:
    """`(T, E, N, K)` generalised advantage estimates of every term, with values fitted to what was to come.

    Where no episode truly ends, terms that never vary count as nothing: they change no advantage, but where plays are
    left off they would pass for something that runs out.
    """
    terms = known(play.terms)
    if not play.terminated[play.live].any():
        terms = np.where(np.ptp(terms[play.live], axis=0) > 0, terms, 0.0)
    terms = np.where(play.live[:, :, None, None], terms, 0.0)
    value = values(spec, play, to_come(terms, play.live, GAMMA))
    return gae(terms, value, play)


def gae(terms: Floats, value: Floats, play: Played) -> Floats:
    """The recursion, with `value (T, E, N, K)` 0 beyond an end and taken as it stands where a play was left off."""
    alive = play.live[:, :, None, None]
    follows = np.zeros_like(alive)
    follows[:-1] = alive[1:]
    after = np.zeros_like(value)
    after[:-1] = value[1:]
    found, running = np.zeros_like(terms), np.zeros_like(terms[0])
    for t in range(len(terms) - 1, -1, -1):
        delta = terms[t] + GAMMA * np.where(follows[t], after[t], _beyond(value[t], play, t)) - value[t]
        running = np.where(alive[t], delta + GAMMA * GAE_LAMBDA * np.where(follows[t], running, 0.0), 0.0)
        found[t] = running
    return found


def _beyond(value: Floats, play: Played, t: int) -> Floats:
    """What follows a last step: nothing after a true end, else about what is here."""
    return np.where(play.terminated[t][:, :, None], 0.0, value)


def values(spec: EnvSpec, play: Played, targets: Floats) -> Floats:
    """`(T, E, N, K)` by state, from a linear fit of `targets`: the same fit for every term."""
    found, start = np.zeros_like(targets), 0
    for group in spec.groups:
        n = len(group.agents)
        obs, rows = play.obs[group.name], play.live
        seen = sight(obs[rows], group)
        state = seen.of(obs[rows])  # (M, A, F)
        y = targets[rows][:, start : start + n]
        stride = max(1, -(-len(state) * n // MOST_ROWS))
        x = state[::stride].reshape(-1, state.shape[-1])
        weights = solve(x, y[::stride].reshape(-1, y.shape[-1]))
        part = found[:, :, start : start + n]
        part[rows] = state @ weights
        start += n
    return found


def shares(advantage: Floats, play: Played) -> Floats:
    """`(N, K)` Cov(A_k, A) / Var(A) over the steps of each agent; 0 where nothing varies."""
    found = np.zeros(advantage.shape[2:])
    for n in range(advantage.shape[2]):
        rows = advantage[:, :, n][play.live & play.acted[..., n]]
        if len(rows) < 2:
            continue
        whole = rows.sum(1)
        centred = whole - whole.mean()
        variance = float((centred**2).mean())
        if variance > 1e-24 * max(1e-30, float(np.abs(rows).max())) ** 2 and variance > 0:
            found[n] = ((rows - rows.mean(0)) * centred[:, None]).mean(0) / variance
    return found


def spread(advantage: Floats, play: Played) -> Floats:
    """`(N, K)` deviation of each term's own advantages."""
    found = np.zeros(advantage.shape[2:])
    for n in range(advantage.shape[2]):
        rows = advantage[:, :, n][play.live & play.acted[..., n]]
        found[n] = rows.std(0) if len(rows) else 0.0
    return found
