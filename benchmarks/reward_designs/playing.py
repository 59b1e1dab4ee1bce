"""Environments whose agents are paid by a design: batched ones, and PettingZoo's, which tell the terms in `infos`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.reward_designs.design import Design, Moment
from marl_stable.types import Discrete, PerGroup, Step


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


def own(m: Moment) -> dict[str, Tensor]:
    """The task's own reward as one term."""
    return {"task": m.reward}
