"""What each reward term brings while a run trains, and how much of what the policy is told comes from it.

The advantage is linear in rewards, so that it can be taken apart exactly, without another critic: for each term k

    A_k,t = d_k,t + gamma lambda (1 - ended_t) A_k,t+1   with   d_k,t = r_k,t + gamma (1 - terminated_t) V_k - V_k

is GAE (`returns.gae`) with a critic that knows of each agent only what the term usually pays, V_k = m_k / (1 - gamma)
with m_k its mean in the window. A constant that is paid at every step so counts for nothing, but for the end of an
episode, where it is lost (or got rid of). The A_k add up to the A of the whole reward, and

    share_k = Cov(A_k, A) / Var(A)

adds up to 1. A term that works against the rest has a share below 0.

Shapes: T steps, E copies, A agents of a group, K reward terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from marl_stable.envs.terms import TOLERANCE
from marl_stable.returns import gae
from marl_stable.rewards import shared_terms
from marl_stable.types import EnvironmentFailure, EnvSpec, PerGroup, Step

LONGEST = 0.999  # gamma; beyond it a window says nothing of what is lost at an end
ROUNDING = 1e-6  # of the terms' own variances: less is left of terms that cancel out exactly


class Window(NamedTuple):
    """One group's steps since the last logged iteration, or a single one without the first axis."""

    terms: Tensor  # (T, E, A, K)
    alive: Tensor  # (T, E, A) bool
    terminated: Tensor  # (T, E, A) bool
    ended: Tensor  # (T, E, A) bool
    incomplete: Tensor  # (T, E, A) bool: the reward is not the sum of its terms


class TermAccount:
    """Collects what agents are told of rewards by term; everything stays on the device, and nobody waits for it."""

    def __init__(self, spec: EnvSpec, shared: bool, gamma: float, gae_lambda: float) -> None:
        """`shared`: agents learn from the mean of their team (`env.reward mean`), which has the terms of all."""
        every = shared_terms(spec) if shared else {group.name: group.terms for group in spec.groups}
        self.names = {name: terms for name, terms in every.items() if terms}
        self._gamma, self._gae_lambda = min(gamma, LONGEST), gae_lambda
        self._turn_based = spec.turn_based
        self._steps: dict[str, list[Window]] = {name: [] for name in self.names}

    def add(self, step: Step) -> None:
        """Take in one step of every copy, as agents learn from it. EnvironmentFailure where terms are missing."""
        for name, steps in self._steps.items():
            if name not in step.terms:
                raise EnvironmentFailure(
                    f"group {name} has reward terms in the spec, but a step has none; give Step.terms"
                )
            terminated = step.terminated[name]
            ended = terminated | step.truncated[name]
            incomplete = left_out(step.reward[name], step.terms[name])
            steps.append(Window(step.terms[name], step.alive[name], terminated, ended, incomplete))

    def begin_anew(self, copies: Tensor) -> None:
        """The running episodes of `copies (E,)` are lost: the last step taken in was cut off."""
        for steps in self._steps.values():
            if steps:
                steps[-1] = steps[-1]._replace(ended=steps[-1].ended | copies.unsqueeze(1))

    def take(self) -> dict[str, PerGroup]:
        """Figures of the steps since the last call: `rewards/terms/<term>` `(A,)`, and signals `(A, K)` and `(A,)`."""
        found: dict[str, PerGroup] = {}
        for name, names in self.names.items():
            window = self._window(name)
            means, signals = figures(window, self._gamma, self._gae_lambda, self._turn_based)
            for column, term in enumerate(names):
                found.setdefault(f"rewards/terms/{term}", {})[name] = means[:, column]
            for signal, values in signals.items():
                found.setdefault(f"stability/term_{signal}", {})[name] = values
            self._steps[name] = []
        return found

    def _window(self, name: str) -> Window:
        return Window(*(torch.stack(part) for part in zip(*self._steps[name], strict=True)))

    def state_dict(self) -> dict[str, Any]:
        """The steps since the last `take`."""
        return {name: list(self._window(name)) for name, steps in self._steps.items() if steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; terms that it does not have begin anew."""
        for name in self._steps:
            parts = state.get(name, [])
            known = len(parts) == len(Window._fields)  # fewer in runs of before
            self._steps[name] = [Window(*step) for step in zip(*parts, strict=True)] if known else []


def left_out(reward: Tensor, terms: Tensor) -> Tensor:
    """`(...)` bool: whether `reward (...)` is not the sum of its `terms (..., K)`, beyond rounding; false for NaN."""
    off = (reward - terms.sum(-1)).abs()
    return off > TOLERANCE * terms.abs().sum(-1).clamp_min(1)


def told_of_left_out(when: str, shares: Mapping[str, float]) -> str:
    """A warning of agents whose rewards are not the sums of their terms, in so large `shares` of their steps."""
    agent = max(shares, key=lambda agent: shares[agent])
    return (
        f"{when} the reward of {agent} is not the sum of its reward_terms in {shares[agent]:.2g} of its steps, and "
        "what is told of terms leaves the rest out; report every term from the first step on, 0 where it pays nothing, "
        "as a plain number (`marl-stable check` looks closer)."
    )


def figures(
    window: Window, gamma: float, gae_lambda: float, turn_based: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """Means `(A, K)` over an agent's own steps, and by name: std, zero, peak, share and conflict, `(A, K)` each, and
    left_out, the share of steps whose terms are incomplete, `(A,)`.

    In turns, where rewards count whoever acts, the recursion runs over everybody's steps; advantages are compared at an
    agent's own. NaN where nothing varies, or nobody acted.
    """
    counted = torch.ones_like(window.alive) if turn_based else window.alive
    weight = counted.unsqueeze(-1).to(window.terms.dtype)
    paid = torch.nan_to_num(window.terms, nan=0.0, posinf=0.0, neginf=0.0) * weight
    count = weight.sum((0, 1))  # (A, 1)
    usual = paid.sum((0, 1)) / count  # (A, K)
    off = (paid - usual) * weight
    found = {
        "std": off.square().sum((0, 1)).div(count).sqrt(),
        "zero": ((paid == 0) * weight).sum((0, 1)) / count,
        "peak": torch.where(count > 0, off.abs().amax((0, 1)), torch.nan),
        "left_out": (window.incomplete & counted).sum((0, 1)) / count.squeeze(-1),
    }
    covariance = _covariance(_advantages(off, usual, window, counted, gamma, gae_lambda), window.alive)
    means = paid.sum((0, 1)) / window.alive.sum((0, 1)).unsqueeze(-1)
    return means, found | _shares(covariance)


def _advantages(off: Tensor, usual: Tensor, window: Window, counted: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """`(T, E, A, K)` as the module has them; written as distances from the mean, which no rounding hides."""
    lost = usual * (gamma / (1 - gamma)) * window.terminated.unsqueeze(-1)
    nothing, wide = torch.zeros_like(off), [flags.unsqueeze(-1) for flags in (window.terminated, window.ended, counted)]
    return gae(off - lost, nothing, nothing, wide[0], wide[1], gamma, gae_lambda, wide[2])


def _covariance(advantage: Tensor, acted: Tensor) -> Tensor:
    """`(A, K, K)` of advantages `(T, E, A, K)` over the steps in which agents `acted`."""
    weight = acted.unsqueeze(-1).to(advantage.dtype)
    count = weight.sum((0, 1))
    off = (advantage - (advantage * weight).sum((0, 1)) / count) * weight
    rows = off.flatten(0, 1).transpose(0, 1)  # (A, T * E, K)
    return rows.transpose(1, 2) @ rows / count.unsqueeze(-1)


def _shares(covariance: Tensor) -> dict[str, Tensor]:
    """Each term's share in the variance of the whole, and how much it is opposed to the sum of the others.

    `conflict` is 1 - Var(A) / (Var(A_k) + Var(A - A_k)): 1 where the others undo all that the term says, 0 where they
    are independent of it, below 0 where they say the same.
    """
    own, with_all = covariance.diagonal(dim1=1, dim2=2), covariance.sum(2)  # (A, K)
    whole = with_all.sum(1, keepdim=True)  # (A, 1)
    rest = whole - 2 * with_all + own  # (A, K) variance of all others together
    small = ROUNDING * own.sum(1, keepdim=True)
    share = torch.where(whole > small, with_all / whole, torch.nan)
    both = torch.where((own > small) & (rest > small), own + rest, torch.nan)
    return {"share": share, "conflict": 1 - whole / both}
