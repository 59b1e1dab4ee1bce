"""Looks at environment and agent before the first update of a run: most faults that end as a frozen policy show here.

Everything is played on the evaluation environment, whose every play begins with a reset of its own, and learned by a
copy of the agent; nothing of the run changes. The numbers of steps are fixed, so that runs repeat exactly.
`metadata.json` has the result as `preflight`, a dictionary of plain types (None where a figure is not known; agents,
dimensions and features by name or number from 0):

rewards       by agent, of random play:
                mean, std, median, mad      of one step's reward; mad is the median of |r - median|
                scale                       1.4826 mad, or where over half of the rewards are equal that of the others
                                            times the root of their share; 0 where the reward never varied
                p999, peak                  99.9th percentile and largest of |r - median|
                tail_ratio                  p999 / scale: above 50 the tail is heavy
                offset_ratio                |median| / scale: above 10 an offset hides the differences
                zero                        share of steps with a reward of exactly 0
                non_finite                  steps with a reward of NaN or infinity, left out of all other figures
                return_std                  deviation of discounted Monte-Carlo returns: fine from 0.1 to 30
                reward_share                Var(r) / (Var(r) + gamma^2 Var(G')): below 1e-4 rewards are lost in targets
terms         by agent and reward term, of random play, where the environment reports terms: mean of a step, zero (share
              of steps in which it is exactly 0), per_episode
unaccounted   by agent, of random play: the share of steps whose reward is not the sum of its terms; where all are, none
observations  by agent, of random play, legal actions left out; features, or by feature (a text) a figure:
                features                    how many there are
                constant                    those that never changed
                non_finite                  how often NaN or infinite
                huge, tiny                  99th percentile of |x| over 100 times that of the median feature, or below
                                            1/100 of it, as the ratio
                duplicated                  [earlier, later]: equal in every row, constant ones left out
                at_bounds                   share of values that are exactly the lowest, or the highest, above a half
                clock                       those that grow or fall in proportion to the step of the episode
ends          of random play:
                episodes                    that ended
                terminated, truncated       shares of them (with both, terminated)
                shortest, longest           terminated episodes, in steps
                same_length                 whether all terminated episodes, five or more, were equally long, and longer
                                            than a step: a time limit that is reported as an end, or a true one
effects       of actions, changed one at a time in otherwise equal plays:
                repeatable                  whether two equal plays were equal; else nothing below is known
                without_effect              [{agent, dimension}]: nothing that anybody saw or was paid ever differed
                like_choice_0               [{agent, dimension, choices}]: choices that never differed from the first
                untried                     [{agent, dimension}]: no other action was possible, or there were too many
              ("dimension" only where an action has several)
control       by agent and reward term (`reward` where the environment reports none), of two plays from one seed in
              which everybody acts otherwise: how far what was paid hangs on actions; 0: on nobody's; about 1: on
              little else (terms that did not vary between copies are left out)
first_step    by group: value, warn, alarm; how far the first update can move an output before the tanh, or a logit:
              lr ||h||_1, and its budget (beyond `alarm` the guard lowers the step size to that of `warn`)
untrained     [{group, network, tensor, agent, why}]: what the first update left bit for bit as it was ("agent" only
              where agents have networks of their own)
non_finite    [{group, network}]: whose gradient was not finite in the first update
range         by group of continuous actions, dimensions: zero_width (low is not below high), infinite (a bound is),
              mismatch (driven to its ends, the network does not reach the bounds)

Shapes: T steps, E copies, N rows, A agents of a group, O observation features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from marl_stable.agents.base import Agent
from marl_stable.envs.base import BatchedEnv
from marl_stable.investigate.baselines import SEED, Outcomes, RandomPlay
from marl_stable.investigate.control import control
from marl_stable.investigate.dry_run import dry_run
from marl_stable.investigate.effects import effects
from marl_stable.normalize import robust, sampled
from marl_stable.returns import finished, gae
from marl_stable.terms import left_out, told_of_left_out
from marl_stable.types import EnvSpec, legal_features

Floats = NDArray[np.float64]

FAR_APART = 100.0  # times the median feature's scale
AT_BOUNDS, FEW_VALUES = 0.5, 10  # share of values at one end; a feature with no more values than these is a category
IN_STEP = 0.999  # correlation with the step of the episode
ENTRIES, FEWEST_ROWS, MOST_ROWS = 400_000, 256, 4_096  # of a table of observations that percentiles are taken from
FEWEST_ENDS = 5


def inspect(agent: Agent, env: BatchedEnv, at_random: RandomPlay, seed: int) -> dict[str, Any]:
    """The `preflight` of `metadata.json`, as this module's docstring has it.

    `agent`: before training, its statistics begun; `env`: the evaluation environment, on which `at_random` was played.
    """
    return {
        "rewards": rewards(env.spec, at_random.outcomes, agent.config.gamma),
        "terms": terms(env.spec, at_random),
        "unaccounted": unaccounted(env.spec, at_random.outcomes),
        "observations": observations(env.spec, at_random),
        "ends": ends(at_random.outcomes),
        "effects": effects(env, seed + SEED),
        "control": control(env, seed + SEED),
        **dry_run(agent, env, at_random.obs, seed + SEED),
    }


def rewards(spec: EnvSpec, outcomes: Outcomes, gamma: float) -> dict[str, dict[str, Any]]:
    """What each agent was paid; steps count in which it acted, or in turn-based play anybody."""
    found = {}
    somebody = torch.cat(list(outcomes.alive.values()), dim=-1).any(-1, keepdim=True)  # (T, E, 1)
    for group in spec.groups:
        reward = outcomes.reward[group.name].to(torch.float64)
        counted = somebody.expand_as(reward) if spec.turn_based else outcomes.alive[group.name]
        terminated = outcomes.terminated[group.name]
        ended = terminated | outcomes.truncated[group.name] | outcomes.done.unsqueeze(-1)
        nothing = torch.zeros_like(reward)
        known = torch.nan_to_num(reward, posinf=0.0, neginf=0.0)
        returns = gae(known, nothing, nothing, terminated, ended, gamma, 1.0)  # (T, E, A) to the episode's end
        whole = finished(ended) & counted
        for i, agent in enumerate(group.agents):
            rows = (whole if whole[..., i].any() else counted)[..., i]
            found[agent] = _of_steps(reward[..., i][counted[..., i]]) | _of_returns(
                known[..., i][rows].cpu().numpy(), returns[..., i][rows].cpu().numpy()
            )
    return {agent: found[agent] for agent in spec.agents}


def terms(spec: EnvSpec, at_random: RandomPlay) -> dict[str, dict[str, dict[str, float]]]:
    """What each agent was paid by term; steps count in which it acted, or in turn-based play anybody."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    outcomes = at_random.outcomes
    for group in spec.groups if outcomes.terms else ():
        if not group.terms:
            continue
        paid = torch.nan_to_num(outcomes.terms[group.name].double(), posinf=0.0, neginf=0.0)  # (T, E, A, K)
        alive = outcomes.alive[group.name]
        counted = torch.ones_like(alive) if spec.turn_based else alive
        for i, agent in enumerate(group.agents):
            rows, own = paid[..., i, :][counted[..., i]], int(alive[..., i].sum())
            share = own / alive[..., i].numel()  # of an episode's steps that are its own
            for k, term in enumerate(group.terms if own else ()):
                mean = float(rows[:, k].sum()) / own
                figures = {"mean": mean, "zero": float((rows[:, k] == 0).double().mean())}
                figures["per_episode"] = mean * share * at_random.horizon()
                found.setdefault(agent, {})[term] = figures
    return found


def unaccounted(spec: EnvSpec, outcomes: Outcomes) -> dict[str, float]:
    """Share of each agent's steps whose reward its terms do not add up to; only of agents who have such steps.

    Terms are those that were reported in the first steps: others have no name by then.
    """
    found: dict[str, float] = {}
    for group in spec.groups:
        if group.terms and outcomes.terms:
            wrong = left_out(outcomes.reward[group.name], outcomes.terms[group.name])  # (T, E, A)
            counted = torch.ones_like(wrong) if spec.turn_based else outcomes.alive[group.name]
            shares = ((wrong & counted).sum((0, 1)) / counted.sum((0, 1)).clamp_min(1)).tolist()
            found |= {agent: share for agent, share in zip(group.agents, shares, strict=True) if share > 0}
    return found


def warnings(found: Mapping[str, Any]) -> list[str]:
    """What of a preflight must be known before training, in sentences."""
    told = []
    if unsummed := found.get("unaccounted"):
        told.append(told_of_left_out("in random play", unsummed))
    if found.get("ends", {}).get("episodes") == 0:
        told.append(
            "no episode of random play came to an end, so that each of an evaluation may take as long, and returns of "
            "episodes that are cut off say little; have the environment report `truncated` after some steps."
        )
    return told


def _of_steps(reward: torch.Tensor) -> dict[str, float | None]:
    """Figures of single rewards `(N,)`."""
    finite = reward[torch.isfinite(reward)]
    names = ("mean", "std", "median", "mad", "scale", "p999", "peak", "tail_ratio", "offset_ratio", "zero")
    if not len(finite):
        return dict.fromkeys(names) | {"non_finite": len(reward)}
    scale = float(robust(sampled(finite, torch.ones_like(finite, dtype=torch.bool)))[1])
    r: Floats = finite.cpu().numpy()
    median = float(np.median(r))
    off = np.abs(r - median)
    p999 = float(np.percentile(off, 99.9))
    ratios = (p999 / scale, abs(median) / scale) if scale > 0 else (None, None)
    values = (r.mean(), r.std(), median, np.median(off), scale, p999, off.max(), *ratios, (r == 0).mean())
    plain = [None if value is None else float(value) for value in values]
    return dict(zip(names, plain, strict=True)) | {"non_finite": len(reward) - len(finite)}


def _of_returns(reward: Floats, returns: Floats) -> dict[str, float | None]:
    """Figures of discounted returns `(N,)` from steps with `reward (N,)`."""
    if not len(returns):
        return {"return_std": None, "reward_share": None}
    now, later = float(reward.var()), float((returns - reward).var())
    return {"return_std": float(returns.std()), "reward_share": now / (now + later) if now + later > 0 else None}


def observations(spec: EnvSpec, at_random: RandomPlay) -> dict[str, dict[str, Any]]:
    """What each agent saw where it acted."""
    found = {}
    ages = torch.from_numpy(_ages(at_random.outcomes))
    for group in spec.groups:
        obs = at_random.obs[group.name].cpu()
        rows = len(obs)
        age = ages.flatten()[:rows].numpy()  # the first observations are those of the first steps, copy by copy
        alive = at_random.outcomes.alive[group.name].flatten(0, 1)[:rows].cpu().numpy()  # (N, A)
        table = obs[..., : group.obs_size - legal_features(group)].numpy()  # (N, A, O)
        for i, agent in enumerate(group.agents):
            found[agent] = _of_features(table[alive[:, i], i].astype(np.float64), age[alive[:, i]])
    return {agent: found[agent] for agent in spec.agents}


def _of_features(x: Floats, age: NDArray[np.int64]) -> dict[str, Any]:
    """What is the matter with each column of `(N, O)` seen at steps `age (N,)` of episodes."""
    finite = np.isfinite(x)
    low = np.where(finite, x, np.inf).min(axis=0, initial=np.inf)
    high = np.where(finite, x, -np.inf).max(axis=0, initial=-np.inf)
    varies = low < high
    limit = min(max(ENTRIES // max(x.shape[1], 1), FEWEST_ROWS), MOST_ROWS)
    stride = max(1, -(-len(x) // limit))
    sample, age = np.where(finite, x, 0.0)[::stride], age[::stride]
    ratio = _scales(sample, varies)
    bad = (~finite).sum(axis=0)
    return {
        "features": x.shape[1],
        "constant": [int(feature) for feature in np.flatnonzero(~varies)],
        "non_finite": {str(feature): int(bad[feature]) for feature in np.flatnonzero(bad)},
        "huge": _by_feature(ratio, ratio > FAR_APART),
        "tiny": _by_feature(ratio, (ratio > 0) & (ratio < 1 / FAR_APART)),
        "duplicated": [list(pair) for pair in _twins(sample, varies)],
        "at_bounds": _at_bounds(sample, varies, low, high),
        "clock": [int(feature) for feature in np.flatnonzero(varies & _in_step(sample, age))],
    }


def _by_feature(values: Floats, chosen: NDArray[np.bool_]) -> dict[str, float]:
    return {str(feature): float(values[feature]) for feature in np.flatnonzero(chosen)}


def _scales(x: Floats, varies: NDArray[np.bool_]) -> Floats:
    """`(O,)` the 99th percentile of each column's size in that of the median one; 0 for those that do not vary.

    Of an even number of columns the lower middle one is the median, so that of two the larger is the odd one.
    """
    if not varies.any():
        return np.zeros(x.shape[1])
    size: Floats = np.percentile(np.abs(x), 99, axis=0) * varies
    known = np.sort(size[size > 0])
    return size / known[(len(known) - 1) // 2] if len(known) else size


def _twins(x: Floats, varies: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Columns that are equal in every row, with the first of them."""
    first: dict[bytes, int] = {}
    for feature in np.flatnonzero(varies):
        earlier = first.setdefault((x[:, feature] + 0.0).tobytes(), int(feature))  # + 0.0 makes -0.0 equal to 0.0
        if earlier != feature:
            yield earlier, int(feature)


def _at_bounds(x: Floats, varies: NDArray[np.bool_], low: Floats, high: Floats) -> dict[str, float]:
    share = np.maximum((x == low).mean(axis=0), (x == high).mean(axis=0)) if len(x) else np.zeros(x.shape[1])
    chosen = np.flatnonzero(varies & (share > AT_BOUNDS))
    return {str(f): float(share[f]) for f in chosen if len(np.unique(x[:, f])) > FEW_VALUES}


def _in_step(x: Floats, age: NDArray[np.int64]) -> NDArray[np.bool_]:
    """`(O,)` whether each column is proportional to the step of the episode, but for its beginning."""
    if len(np.unique(age)) < 3:  # any feature that tells two steps apart would
        return np.zeros(x.shape[1], bool)
    t, x = age - age.mean(), x - x.mean(axis=0)
    size = np.sqrt((t**2).sum() * (x**2).sum(axis=0))
    found: NDArray[np.bool_] = np.abs(t @ x) > IN_STEP * np.where(size > 0, size, np.inf)
    return found


def ends(outcomes: Outcomes) -> dict[str, Any]:
    """How the episodes of the play ended; those that were given up because their environment failed do not count."""
    alive = torch.cat(list(outcomes.alive.values()), dim=-1).any(-1)  # (T, E)
    over = (outcomes.done & alive).cpu().numpy()
    terminated = torch.cat(list(outcomes.terminated.values()), dim=-1).any(-1).cpu().numpy() & over
    lengths = _ages(outcomes)[terminated] + 1
    share = len(lengths) / int(over.sum()) if over.any() else None
    same = bool(lengths.min() == lengths.max() > 1) if len(lengths) >= FEWEST_ENDS else None
    return {
        "episodes": int(over.sum()),
        "terminated": share,
        "truncated": None if share is None else 1 - share,
        "shortest": int(lengths.min()) if len(lengths) else None,
        "longest": int(lengths.max()) if len(lengths) else None,
        "same_length": same,
    }


def _ages(outcomes: Outcomes) -> NDArray[np.int64]:
    """`(T, E)` the step of its episode that each step was."""
    done = outcomes.done.cpu().numpy()
    ages = np.zeros(done.shape, np.int64)
    for t in range(1, len(done)):
        ages[t] = np.where(done[t - 1], 0, ages[t - 1] + 1)
    return ages
