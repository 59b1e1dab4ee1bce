"""`marl-stable reward`: plays an environment in every way that tells something of its reward."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from marl_stable import configs
from marl_stable.acting import by_agent
from marl_stable.agents.base import Agent
from marl_stable.config import EnvConfig
from marl_stable.envs import catalog
from marl_stable.folder import RunFolder
from marl_stable.investigate.reward import arena as arenas
from marl_stable.investigate.reward import candidates as behaviour
from marl_stable.investigate.reward import (
    credit,
    critic,
    curves,
    expert,
    metric,
    responses,
    searching,
    shaping,
    statistics,
    training,
    verdicts,
)
from marl_stable.investigate.reward.arena import Arena
from marl_stable.investigate.reward.candidates import Candidate
from marl_stable.investigate.reward.control import Control, control, deviations
from marl_stable.investigate.reward.evidence import Evidence
from marl_stable.investigate.reward.play import Choose, Floats, at_random
from marl_stable.monitor.recording import read_recording
from marl_stable.policy import load_agent
from marl_stable.types import EnvSpec, PerGroup, UsageError, comparable

MOST_SHAPES = 8
DEVIATIONS, FEWEST = 6, 2


def examine(
    target: str,
    kwargs: dict[str, Any] | None = None,
    expert_place: str | None = None,
    metric_name: str | None = None,
    pictured: bool = False,
) -> dict[str, Any]:
    """The findings on the reward of the environment, or of the run's, that `target` names; `reward --json` prints it.

    `kwargs` replace those of the run; `pictured` adds `pictures`, of which the page with pictures is drawn. Who asks
    twice is told the same, but for `played["seconds"]`, as long as nothing was left out for want of time. Raises
    UsageError for an unknown environment or run, and for an expert or a metric that cannot be had.
    """
    began = time.monotonic()
    config, agent = _target(target, kwargs)
    arena = arenas.opened(config)
    try:
        if agent is not None:
            _require_same(agent.spec, arena.spec)
        scripted = expert.load(expert_place, arena.spec) if expert_place else None
        players = {"policy": _trained(agent)} if agent is not None else {}
        players |= {"expert": scripted} if scripted is not None else {}
        if scripted is not None:
            scripted(arena.env.reset(arena.seed), 0)  # what is wrong with it shows before a minute has passed
        told = _metric_of(config, metric_name, arena, {"random": at_random(arena.spec, arena.generator(900))} | players)
        x = gather(arena, players)
        pictures = _pictures(arena, x) if pictured else {}
        sure = None if agent is None else critic.agreement(arena, agent, players["policy"])
        if told is not None:
            hold = behaviour.constantly(arena.spec, x.candidates["best_constant"].action or {})
            x = replace(x, metric=told.joined(_metric_of(config, metric_name, arena, {"best_constant": hold})))
    finally:
        arena.env.close()
    more = pictures | {"critic": None if sure is None else sure._asdict(), "learns_from": config.reward}
    more["training"] = _over_training(target) if agent is not None else []
    return described(x, config.id) | more | {"played": _effort(arena, time.monotonic() - began)}


def _over_training(run: str) -> list[dict[str, Any]]:
    return training.over_training(read_recording(RunFolder(Path(run)).recording))


def _pictures(arena: Arena, x: Evidence) -> dict[str, Any]:
    """Curves and responses, which are too long to be read as numbers."""
    drawn = curves.curves(x.spec, x.who, x.candidates.values())
    return {"pictures": {"curves": drawn, "responses": responses.responses(arena)}}


def _metric_of(config: EnvConfig, name: str | None, arena: Arena, players: dict[str, Choose]) -> metric.Measured | None:
    """What the user's metric says of the players."""
    if name is None:
        return None
    return metric.measure(config.id, config.kwargs, name, players, arena.longest, arena.seed)


def _target(target: str, kwargs: dict[str, Any] | None) -> tuple[EnvConfig, Agent | None]:
    """The environment to look at, and who was trained on it."""
    if Path(target).is_dir():
        config = configs.read_run(RunFolder.open(Path(target)).config).env
        loaded = load_agent(Path(target))
        return replace(config, kwargs=config.kwargs if kwargs is None else kwargs, workers=0), loaded.agent
    catalog.require_known(target)
    return EnvConfig(id=target, kwargs=kwargs or {}), None


def _require_same(trained: EnvSpec, here: EnvSpec) -> None:
    """The policy must fit what is played: `env.kwargs` may have changed it."""

    def shape(spec: EnvSpec) -> list[tuple[Any, ...]]:
        return [(group.agents, group.obs_size, group.action) for group in map(comparable, spec.groups)]

    if shape(trained) != shape(here):
        raise UsageError(
            f"the run's policy does not fit {here.id} with these arguments: its groups or spaces differ; leave "
            "--env.kwargs out, or name the environment instead of the run."
        )


def _trained(agent: Agent) -> Choose:
    """What the trained agent does greedily, its memory begun anew with each play."""
    playing: list[Any] = []

    def choose(obs: PerGroup, t: int) -> PerGroup:
        if t == 0:
            playing[:] = [by_agent(agent)]
        action: PerGroup = playing[0](obs)
        return action

    return choose


def gather(arena: Arena, players: dict[str, Choose] | None = None) -> Evidence:
    """Play, and measure all that the verdicts ask."""
    random = behaviour.chance(arena)
    moved = control(arena)
    constant, hold, idle = behaviour.best_constant(arena)
    others = [behaviour.paid(arena, name, choose) for name, choose in (players or {}).items()]
    gains = _deviations(arena, constant, random, hold)
    greedy = searching.greedies(arena, random, constant)
    found = {c.name: c for c in (random, idle, constant, *greedy, *others)}
    advantage = credit.advantages(arena.spec, random.play)
    spread = credit.spread(advantage, random.play)
    return Evidence(
        spec=arena.spec,
        who=arena.who,
        candidates=found,
        terms=statistics.describe(random.play, arena.who),
        control=moved,
        share=credit.shares(advantage, random.play),
        spread=spread,
        together=statistics.between_terms(random.play._replace(terms=advantage), arena.who),
        outlier=statistics.outlier(random.play, arena.who, idle.play),
        sharing=statistics.sharing(random.play.reward, random.play.live),
        shapes=_shapes(arena, random, spread),
        deviations=gains,
    )


def _deviations(arena: Arena, constant: Candidate, random: Candidate, hold: Choose) -> Floats | None:
    """What deviating from the best constant action gains, where it is worth asking."""
    gap, _ = behaviour.difference(constant, random)
    if gap <= 0:
        return None
    return deviations(arena, hold, DEVIATIONS if arena.allows("most deviations from the best constant") else FEWEST)


def _shapes(arena: Arena, random: Candidate, spread: Floats) -> dict[tuple[int, int], shaping.Shape]:
    """Of the terms of the first agent of each group that vary."""
    found: dict[tuple[int, int], shaping.Shape] = {}
    start = 0
    for group in arena.spec.groups:
        for k in range(len(arena.who.terms)):
            if arena.who.has[start, k] and spread[start, k] > 0 and len(found) < MOST_SHAPES:
                found[start, k] = shaping.shape(arena.spec, random.play, arena.who, start, k)
        start += len(group.agents)
    return found


def described(x: Evidence, env_id: str) -> dict[str, Any]:
    """What `reward --json` prints of the evidence, findings included."""
    policy = x.candidates.get("policy")
    kept = {name: c.described() for name, c in x.candidates.items()}
    share = {(agent, term): (n, k) for n, agent in enumerate(x.who.agents) for k, term in enumerate(x.who.terms)}
    terms = [entry | _measured(x, *share[entry["agent"], entry["name"]]) for entry in x.terms]
    under = _shares_of(x, policy) if policy is not None else None
    if under is not None:
        for entry in terms:
            entry["share_of_policy"] = float(under[share[entry["agent"], entry["name"]]])
    named = {"random", "no_op", "best_constant", "policy"}
    return {
        "env": env_id,
        "terms": terms,
        "baselines": {name: kept.get(name) for name in ("random", "no_op", "best_constant", "policy")},
        "findings": [finding._asdict() for finding in verdicts.judge(x)],
        "others": {name: value for name, value in kept.items() if name not in named},
        "rewards": x.sharing,
        "repeats": x.control.repeats,
        "checked": verdicts.checked(x),
        "metric": None if x.metric is None else _metric(x.metric),
    }


def _measured(x: Evidence, n: int, k: int) -> dict[str, Any]:
    moved: Control = x.control
    return {
        "share": float(x.share[n, k]),
        "explained_by_actions": float(moved.share[n, k]),
        "p": float(moved.p[n, k]),
        "signal_to_noise": float(moved.snr[n, k]),
        "lag": moved.lag[n][k],
    }


def _shares_of(x: Evidence, candidate: Candidate) -> Floats:
    return credit.shares(credit.advantages(x.spec, candidate.play), candidate.play)


def _metric(m: metric.Measured) -> dict[str, Any]:
    return {"name": m.name} | {
        who: {"metric": float(m.metric[who].mean()), "return": float(m.returns[who].mean())} for who in m.metric
    }


def _effort(arena: Arena, seconds: float) -> dict[str, Any]:
    return {
        "copies": arena.env.num_envs,
        "longest": arena.longest,
        "steps": arena.steps,
        "left_out": arena.left_out,
        "seconds": seconds,
    }
