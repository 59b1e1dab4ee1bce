"""Rewards with one known flaw each, and sound ones, on tasks of mpe2, vmas and sisl, as wrappers that report terms.

A design says of a step what each agent is paid, term by term. The same design runs on batched environments and, through
`infos`, on PettingZoo's. mpe2's tasks are mostly played on their batched twins, whose physics are the same.

Shapes: E copies, A agents of a group, O observation features, D action features, K terms.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from marl_stable.config import EnvConfig
from marl_stable.envs import catalog
from marl_stable.types import Discrete, PerGroup, Step


class Moment(NamedTuple):
    """One step of a group, as a reward sees it."""

    obs: Tensor  # (E, A, O) before
    next_obs: Tensor  # (E, A, O) after
    action: Tensor  # (E, A) or (E, A, D)
    reward: Tensor  # (E, A) the task's own
    terms: dict[str, Tensor]  # (E, A) each, the task's own; empty where it has none
    over: Tensor  # (E,) the task ended here
    rng: torch.Generator


Pay = Callable[[Moment], dict[str, Tensor]]


@dataclass(frozen=True)
class Design:
    """A reward on a task. `cause` is the verdict that is right; None where it is sound."""

    task: str
    cause: str | None
    pay: Pay | None  # None: the task's own reward
    says: str
    built_on: bool  # whether the task was played while thresholds were chosen
    kwargs: dict[str, Any] = field(default_factory=dict)
    single: bool = False  # through PettingZoo and infos
    ends: Callable[[Moment], Tensor] | None = None  # (E,) ends episodes, of single ones
    metric: Callable[[Moment], Tensor] | None = None  # (E, A) reported as infos["metric"]
    expert: str | None = None  # in benchmarks.reward_designs


class Redesigned:
    """A batched environment whose agents are paid by a design."""

    def __init__(self, env: Any, design: Design) -> None:
        self.env, self.design, self.num_envs, self.device = env, design, env.num_envs, env.device
        self.replay_differs: tuple[int, ...] = ()
        self.rng = torch.Generator()
        obs, step = self._first()
        names = {g.name: tuple(self._pay(g, obs, _still(env), step)) for g in env.spec.groups}
        self.spec = env.spec._replace(groups=tuple(g._replace(terms=names[g.name]) for g in env.spec.groups))

    def reset(self, seed: int) -> PerGroup:
        """Begin anew."""
        self.rng.manual_seed(seed)
        first: PerGroup = self.env.reset(seed)
        self.obs = first
        return first

    def step(self, action: PerGroup) -> Step:
        """One step, paid by the design."""
        step: Step = self.env.step(action)
        paid = {g.name: self._pay(g, self.obs, action, step) for g in self.env.spec.groups}
        self.obs = step.obs
        terms = {name: torch.stack(list(parts.values()), dim=-1) for name, parts in paid.items()}
        return step._replace(reward={name: x.sum(-1) for name, x in terms.items()}, terms=terms)

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _first(self) -> tuple[PerGroup, Step]:
        obs: PerGroup = self.env.reset(0)
        return obs, self.env.step(_still(self.env))

    def _pay(self, group: Any, obs: PerGroup, action: PerGroup, step: Step) -> dict[str, Tensor]:
        own = step.terms[group.name].unbind(-1) if group.terms else ()
        name = group.name
        terms = dict(zip(group.terms, own, strict=True))
        seen, led_to, did, paid = (x[name] for x in (obs, step.next_obs, action, step.reward))
        moment = Moment(seen, led_to, did, paid, terms, step.done, self.rng)
        assert self.design.pay is not None
        return self.design.pay(moment)


def _still(env: Any) -> PerGroup:
    """Zeros of the right shape."""
    found = {}
    for group in env.spec.groups:
        shape = (env.num_envs, len(group.agents))
        if isinstance(group.action, Discrete):
            found[group.name] = torch.zeros(shape, dtype=torch.int64)
        else:
            found[group.name] = torch.zeros(*shape, len(group.action.low))
    return found


class Single:
    """A PettingZoo ParallelEnv whose agents, all alike, are paid by a design, told in infos."""

    def __init__(self, env: Any, design: Design) -> None:
        self.env, self.design = env, design
        self.metadata, self.possible_agents = env.metadata, list(env.possible_agents)
        self.render_mode = getattr(env, "render_mode", None)
        self.rng = torch.Generator()

    @property
    def agents(self) -> list[str]:
        """Who is left."""
        return [] if self.ended else list(self.env.agents)

    def observation_space(self, agent: str) -> Any:
        """The task's."""
        return self.env.observation_space(agent)

    def action_space(self, agent: str) -> Any:
        """The task's."""
        return self.env.action_space(agent)

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        """Begin an episode."""
        self.ended = False
        if seed is not None:
            self.rng.manual_seed(seed)
        self.obs, infos = self.env.reset(seed=seed, options=options)
        return self.obs, infos

    def step(self, actions: dict[str, Any]) -> Any:
        """One step, paid by the design."""
        names = list(self.env.agents)
        obs, rewards, terminated, truncated, infos = self.env.step(actions)
        over = torch.tensor([any(terminated.values())])
        told = [np.stack([np.asarray(x[n], np.float32) for n in names]) for x in (self.obs, obs, actions, rewards)]
        before, after, did, paid_by_task = (torch.from_numpy(x).unsqueeze(0) for x in told)
        moment = Moment(before, after, did, paid_by_task, {}, over, self.rng)
        if self.design.ends is not None and bool(self.design.ends(moment)[0]):
            self.ended, terminated, moment = (
                True,
                dict.fromkeys(names, True),
                moment._replace(over=torch.tensor([True])),
            )
        paid = {k: v[0].tolist() for k, v in (self.design.pay or own)(moment).items()}
        measured = self.design.metric(moment)[0].tolist() if self.design.metric else None
        for i, name in enumerate(names):
            infos[name] = {"reward_terms": {term: values[i] for term, values in paid.items()}}
            if measured is not None:
                infos[name]["metric"] = measured[i]
        self.obs = obs
        rewards = {name: float(sum(values[i] for values in paid.values())) for i, name in enumerate(names)}
        return obs, rewards, terminated, truncated, infos

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


def batched(design: str, num_envs: int, device: torch.device) -> Any:
    """The batched environment of a design, for `env.kwargs`."""
    chosen = DESIGNS[design]
    return Redesigned(catalog.make(EnvConfig(id=chosen.task, kwargs=chosen.kwargs), device, num_envs), chosen)


def single(design: str) -> Any:
    """The PettingZoo environment of a design."""
    chosen = DESIGNS[design]
    return Single(catalog.make_single(chosen.task, chosen.kwargs), chosen)


def own(m: Moment) -> dict[str, Tensor]:
    """The task's own reward as one term."""
    return {"task": m.reward}


# What designs are made of. Observations of simple_spread: velocity, position, then 3 landmarks relative to the agent.


def landmarks(obs: Tensor) -> Tensor:
    """`(E, A, 3)` distances of simple_spread."""
    found: Tensor = obs[..., 4:10].unflatten(-1, (3, 2)).norm(dim=-1)
    return found


def cover(obs: Tensor) -> Tensor:
    """`(E, A)` minus the summed distance of each landmark to its nearest agent."""
    return -landmarks(obs).amin(1).sum(-1, keepdim=True).expand(obs.shape[:2])


def moves(m: Moment) -> Tensor:
    """`(E, A)` whether discrete actions are not the first, or mean squares of others."""
    return (m.action != 0).float() if m.action.dim() == 2 else m.action.square().mean(-1)


def speed(m: Moment) -> Tensor:
    """`(E, A)` of mpe2's agents, whose velocity comes first."""
    found: Tensor = m.next_obs[..., :2].norm(dim=-1)
    return found


def noise(m: Moment) -> Tensor:
    """`(E, A)` standard normal."""
    return torch.randn(m.reward.shape, generator=m.rng)


def rare(m: Moment, share: float) -> Tensor:
    """`(E, A)` 1 now and then."""
    return (torch.rand(m.reward.shape, generator=m.rng) < share).float()


def goal(obs: Tensor, at: int) -> Tensor:
    """`(E, A)` distance to what is seen relative to the agent in two features."""
    found: Tensor = obs[..., at : at + 2].norm(dim=-1)
    return found


SPREAD, LISTEN, BALANCE, WALK = (
    "particle/simple_spread_v3",
    "particle/simple_speaker_listener_v4",
    "vmas/balance",
    "sisl/multiwalker_v9",
)
ADVERSARY, REFERENCE, TAG, NAVIGATION, DISPERSION, TRANSPORT, SIMPLE, WHEEL = (
    "particle/simple_adversary_v3",
    "particle/simple_reference_v3",
    "particle/simple_tag_v3",
    "vmas/navigation",
    "vmas/dispersion",
    "vmas/transport",
    "mpe2/simple_v3",
    "vmas/wheel",
)
PLAYED_SINCE = (WHEEL,)  # new until one of its designs showed that a verdict was wrong, which was mended by it


def _flawed(built_on: bool) -> dict[str, Design]:
    def d(task: str, cause: str, says: str, pay: Pay, **more: Any) -> Design:
        return Design(task, cause, pay, says, built_on or task in PLAYED_SINCE, **more)

    if built_on:
        return {
            "effort, spread": d(
                SPREAD,
                "constant_action_is_optimal",
                "effort costs more than any landmark is worth (reaver #7: converges to no_op)",
                lambda m: {"cover": cover(m.next_obs), "effort": -4 * moves(m)},
            ),
            "collisions x300, spread": d(
                SPREAD,
                "reward_term_dominates",
                "punishment too high (Multiagent-RL #28: flees)",
                lambda m: {"cover": 0.003 * cover(m.next_obs), "touch": m.reward * 2 - cover(m.next_obs)},
            ),
            "noise, spread": d(
                SPREAD,
                "reward_uncontrollable",
                "a term that is noise",
                lambda m: {"cover": cover(m.next_obs), "weather": 2 * noise(m)},
            ),
            "tiny, spread": d(SPREAD, "reward_scale_too_small", "x 1e-5", lambda m: {"task": 1e-5 * m.reward}),
            "huge, listener": d(LISTEN, "reward_scale_too_large", "x 1e4", lambda m: {"task": 1e4 * m.reward}),
            "offset, spread": d(SPREAD, "reward_offset", "+ 500", lambda m: {"task": m.reward + 500}),
            "pole, spread": d(
                SPREAD,
                "reward_outliers",
                "1 / d^2 near a landmark",
                lambda m: {"cover": cover(m.next_obs), "near": 5e-2 / landmarks(m.next_obs).amin(-1).square()},
            ),
            "logarithm, spread": d(
                SPREAD,
                "reward_non_finite",
                "log(d - 0.05)",
                lambda m: {"cover": cover(m.next_obs), "close": -(landmarks(m.next_obs).amin(-1) - 0.05).log()},
            ),
            "progress, spread": d(
                SPREAD,
                "shaping_changes_task",
                "pays for approaching, never charges for leaving",
                lambda m: {
                    "touch": m.reward * 2 - cover(m.next_obs),
                    "progress": 10 * (landmarks(m.obs)[..., 0] - landmarks(m.next_obs)[..., 0]).clamp_min(0),
                },
            ),
            "near and far, spread": d(
                SPREAD,
                "reward_terms_conflict",
                "one term draws to the landmarks, another away",
                lambda m: {
                    "near": cover(m.next_obs),
                    "free": landmarks(m.next_obs).amin(1).sum(-1, keepdim=True) * 0.8 + 0.05 * m.reward,
                },
            ),
            "hunters, spread": d(
                SPREAD,
                "no_reward_signal",
                "zero-sum within a team (ml-agents #2061: mean 0, they avoid each other)",
                lambda m: {"prey": (x := -landmarks(m.next_obs).amin(-1)) - x.mean(1, keepdim=True)},
            ),
            "never, listener": d(
                LISTEN,
                "no_reward_signal",
                "pays within 1e-6 of the goal",
                lambda m: {"goal": (m.reward > -1e-12).float()},
            ),
            "ignored, spread": d(
                SPREAD,
                "lazy_agent",
                "shares what two of three agents cover",
                lambda m: {"cover": -landmarks(m.next_obs)[:, :2].amin(1).sum(-1, keepdim=True).expand(m.reward.shape)},
            ),
            "heavy, balance": d(BALANCE, "reward_scale_too_large", "x 1e4", lambda m: {"task": 1e4 * m.reward}),
            "collide and be free, spread": d(
                "mpe2/simple_spread_v3",
                "episode_length_incentive",
                "steps cost, a collision ends the episode for nothing",
                lambda m: {"cover": cover(m.next_obs)},
                single=True,
                ends=lambda m: (m.next_obs[..., 10:14].unflatten(-1, (2, 2)).norm(dim=-1) < 0.3).any(-1).any(-1),
            ),
            "alive, walkers": d(
                WALK,
                "episode_length_incentive",
                "a bonus for being there beside which walking is nothing",
                lambda m: {"alive": torch.full_like(m.reward, 20.0), "walk": 0.1 * m.reward},
                single=True,
            ),
            "full power, walkers": d(
                WALK,
                "constant_action_is_optimal",
                "rescaled actions leak into the reward (qiongwu86 #7: actions at their bounds)",
                lambda m: {"task": m.reward.clamp(-1, 1) + (m.action / 3 * 100).mean(-1)},
                single=True,
            ),
            "speed, spread": d(
                "mpe2/simple_spread_v3",
                "reward_hacking",
                "pays for speed, and means landmarks",
                lambda m: {"speed": speed(m)},
                single=True,
                metric=lambda m: cover(m.next_obs),
                expert="spread_expert",
            ),
        }
    return {
        "scenery, reference": d(
            REFERENCE,
            "reward_uncontrollable",
            "a term of where landmarks lie",
            lambda m: {"task": m.reward, "scene": 2 * (m.next_obs[..., 2:4] - m.next_obs[..., 4:6]).norm(dim=-1) - 1},
        ),
        "effort, dispersion": d(
            DISPERSION,
            "constant_action_is_optimal",
            "effort costs more than food is worth (reaver #7)",
            lambda m: {"food": m.reward, "effort": -0.5 * moves(m)},
        ),
        "punished, navigation": d(
            NAVIGATION,
            "reward_term_dominates",
            "punishment for nearness too high (Multiagent-RL #28)",
            lambda m: {"goal": m.terms["pos_rew"], "near": -20 * m.next_obs[..., 6:].clamp_min(0).sum(-1)},
        ),
        "huge, adversary": d(ADVERSARY, "reward_scale_too_large", "x 1e5", lambda m: {"task": 1e5 * m.reward}),
        "offset, adversary": d(ADVERSARY, "reward_offset", "- 300", lambda m: {"task": m.reward - 300}),
        "parcel, transport": d(
            TRANSPORT,
            "no_reward_signal",
            "pays only for the delivered package (BenchMARL #251: too hard to come upon)",
            lambda m: {"delivered": (m.next_obs[..., 10] > 0.5).float()},
        ),
        "lingering, simple": d(
            SIMPLE,
            "episode_length_incentive",
            "near the goal pays more than the goal",
            lambda m: {
                "near": 1 / (1 + goal(m.next_obs, 2)),
                "goal": 0.5 * m.over.float().unsqueeze(1).expand(m.reward.shape),
            },
            single=True,
            ends=lambda m: goal(m.next_obs, 2)[:, 0] < 0.4,
        ),
        "way out, simple": d(
            SIMPLE,
            "episode_length_incentive",
            "steps cost, leaving the field ends it",
            lambda m: {"goal": -goal(m.next_obs, 2) - 0.2},
            single=True,
            ends=lambda m: goal(m.next_obs, 2)[:, 0] > 1.3,
        ),
        "progress, adversary": d(
            ADVERSARY,
            "shaping_changes_task",
            "pays for approaching a landmark, never charges",
            lambda m: {
                "task": 0.1 * m.reward,
                "nearer": 10
                * (goal(m.obs, m.obs.shape[-1] - 4 - 0) - goal(m.next_obs, m.obs.shape[-1] - 4)).clamp_min(0),
            },
        ),
        "stay and go, navigation": d(
            NAVIGATION,
            "reward_terms_conflict",
            "a second term takes back what the first pays",
            lambda m: {"goal": m.terms["pos_rew"], "home": -0.8 * m.terms["pos_rew"] - 0.002 * moves(m)},
        ),
        "root, dispersion": d(
            DISPERSION,
            "reward_non_finite",
            "a root of what can be negative",
            lambda m: {"food": m.reward, "close": (m.next_obs[..., 4:6].norm(dim=-1) - 0.2).sqrt()},
        ),
        "glitch, tag": d(
            TAG,
            "reward_outliers",
            "one step in 500 is paid a random thousandfold",
            lambda m: {"task": m.reward, "glitch": 3e3 * rare(m, 0.002) * noise(m)},
        ),
        "full throttle, transport": d(
            TRANSPORT,
            "constant_action_is_optimal",
            "pays for pushing, wherever to (qiongwu86 #7)",
            lambda m: {"package": 0.01 * m.reward, "push": m.action.abs().mean(-1)},
        ),
        "tiny, wheel": d(WHEEL, "reward_scale_too_small", "x 1e-5", lambda m: {"task": 1e-5 * m.reward}),
        "ignored, navigation": d(
            NAVIGATION,
            "lazy_agent",
            "shares what three of four agents earn",
            lambda m: {"goals": m.terms["pos_rew"][:, :3].mean(1, keepdim=True).expand(m.reward.shape)},
            kwargs={"collisions": False, "shared_rew": False},
        ),
        "speed, simple": d(
            SIMPLE,
            "reward_hacking",
            "pays for speed, and means the landmark",
            lambda m: {"speed": speed(m)},
            single=True,
            metric=lambda m: -goal(m.next_obs, 2),
            expert="simple_expert",
        ),
    }


def _sound(built_on: bool) -> dict[str, Design]:
    def d(task: str, says: str, pay: Pay | None = None, **more: Any) -> Design:
        return Design(task, None, pay, says, built_on or task in PLAYED_SINCE, **more)

    if built_on:
        return {
            "as it is, spread": d("mpe2/simple_spread_v3", "the task's own"),
            "as it is, listener": d("mpe2/simple_speaker_listener_v4", "the task's own"),
            "as it is, balance": d(BALANCE, "the task's own"),
            "as it is, walkers": d(WALK, "the task's own"),
            "terms, spread": d(
                SPREAD,
                "the task's own in two terms",
                lambda m: {"cover": 0.5 * cover(m.next_obs), "touch": m.reward - 0.5 * cover(m.next_obs)},
            ),
            "potential, spread": d(
                SPREAD,
                "shaping by the difference of a potential",
                lambda m: {
                    "task": m.reward,
                    "shaping": 5 * (landmarks(m.obs)[..., 0] - 0.99 * landmarks(m.next_obs)[..., 0]),
                },
            ),
            "little effort, spread": d(
                SPREAD, "effort costs a little", lambda m: {"cover": cover(m.next_obs), "effort": -0.2 * moves(m)}
            ),
        }
    return {
        "as it is, navigation": d(NAVIGATION, "the task's own"),
        "as it is, dispersion": d(DISPERSION, "the task's own"),
        "as it is, wheel": d(WHEEL, "the task's own"),
        "as it is, reference": d(REFERENCE, "the task's own"),
        "as it is, tag": d(TAG, "the task's own"),
        "as it is, adversary": d(ADVERSARY, "the task's own"),
        "potential, navigation": d(
            NAVIGATION,
            "shaping by the difference of a potential",
            lambda m: {"task": -0.1 * goal(m.next_obs, 4), "shaping": goal(m.obs, 4) - 0.99 * goal(m.next_obs, 4)},
        ),
        "arrival, simple": d(
            SIMPLE,
            "steps cost a little, arriving pays and ends",
            lambda m: {
                "time": torch.full_like(m.reward, -0.1) - 0.1 * goal(m.next_obs, 2),
                "goal": 10 * m.over.float().unsqueeze(1).expand(m.reward.shape),
            },
            single=True,
            ends=lambda m: goal(m.next_obs, 2)[:, 0] < 0.3,
        ),
    }


def _later() -> dict[str, Design]:
    """On tasks that were new when those in `TAUGHT` had shown what was wrong with the verdicts."""
    back, way, flock, formation = "vmas/reverse_transport", "vmas/give_way", "vmas/flocking", "mpe2/simple_formation_v1"
    return {
        "progress, reverse transport": Design(
            back,
            "shaping_changes_task",
            lambda m: {
                "task": 0.1 * m.reward,
                "nearer": 10 * (goal(m.obs, 6) - goal(m.next_obs, 6)).clamp_min(0),
            },
            "pays for approaching the package, never charges",
            built_on=False,
        ),
        "glitch, give way": Design(
            way,
            "reward_outliers",
            lambda m: {"task": m.reward, "glitch": 3e3 * rare(m, 0.002) * noise(m)},
            "one step in 500 is paid a random thousandfold",
            built_on=False,
        ),
        "ignored, flocking": Design(
            flock,
            "lazy_agent",
            lambda m: {"middle": -m.next_obs[:, 1:, :2].norm(dim=-1).mean(1, keepdim=True).expand(m.reward.shape)},
            "shares how near all but the first are to the middle",
            built_on=False,
        ),
        "speed, formation": Design(
            formation,
            "reward_hacking",
            lambda m: {"speed": speed(m)},
            "pays for speed, and means the landmark",
            built_on=False,
            single=True,
            metric=lambda m: -goal(m.next_obs, 4),
            expert="formation_expert",
        ),
        "potential, reverse transport": Design(
            back,
            None,
            lambda m: {"task": m.reward, "shaping": 5 * (goal(m.obs, 6) - 0.99 * goal(m.next_obs, 6))},
            "shaping by the difference of a potential",
            built_on=False,
        ),
        "as it is, give way": Design(way, None, None, "the task's own", built_on=False),
    }


TAUGHT = ("progress, adversary", "glitch, tag", "ignored, navigation", "speed, simple", "potential, navigation")
"""New tasks where the first verdict was wrong: what was changed because of them makes them part of the building."""
FIRST = _flawed(True) | _flawed(False) | _sound(True) | _sound(False)
DESIGNS = {name: replace(d, built_on=d.built_on or name in TAUGHT) for name, d in FIRST.items()} | _later()


def spread_expert(observations: dict[str, Any]) -> dict[str, Any]:
    """The scripted policy of simple_spread."""
    found: dict[str, Any] = importlib.import_module("benchmarks.scripted").spread_actions(observations, False)
    return found


def simple_expert(observations: dict[str, Any]) -> dict[str, int]:
    """Straight to the landmark."""
    return _straight(observations, 2)


def formation_expert(observations: dict[str, Any]) -> dict[str, int]:
    """Straight to the landmark, whose place is seen behind one's own."""
    return _straight(observations, 4)


def _straight(observations: dict[str, Any], at: int) -> dict[str, int]:
    actions = {}
    for agent, obs in observations.items():
        to = 16 * (obs[at : at + 2] - 0.25 * obs[:2])
        axis = int(np.argmax(np.abs(to)))
        actions[agent] = 0 if abs(to[axis]) < 0.5 else 1 + 2 * axis + int(to[axis] > 0)
    return actions
