"""Games with known answers name what is broken: credit, ends, actions, masks, memory, turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from marl_stable import returns
from marl_stable.agents import ppo_learner
from marl_stable.agents.group_learner import GroupLearner
from marl_stable.buffers import Replay, Rollout
from marl_stable.investigate import probing
from marl_stable.investigate.probing import Trained
from marl_stable.investigate.questions import ITERATIONS
from marl_stable.networks.actors import PolicyBody
from marl_stable.networks.heads import Categorical
from marl_stable.networks.per_agent import PerAgent
from marl_stable.turns import Turns
from marl_stable.types import PerGroup, Step
from tests.investigate.failing import by_name, failed

Patch = pytest.MonkeyPatch


@pytest.fixture
def one_seed(monkeypatch: Patch) -> None:
    """What is broken fails with every seed, so that one is enough to see it."""
    monkeypatch.setattr(probing, "SEEDS", (1,))


def test_another_seed_is_tried_where_chance_may_have_failed(monkeypatch: Patch) -> None:
    real, seeds = probing.train, []

    def unlucky(game: str, algorithm: str, seed: int) -> Trained:
        seeds.append(seed)
        monkeypatch.setitem(ITERATIONS, "Match", (0, 0) if seed == 1 else (6, 8))
        return real(game, algorithm, seed)

    monkeypatch.setattr(probing, "train", unlucky)
    assert all(check.ok for check in probing.play("Match", "ippo"))
    assert seeds == [1, 2]


def test_gae_that_cuts_the_bootstrap_at_a_time_limit(monkeypatch: Patch, one_seed: None) -> None:
    def cut(reward: Tensor, value: Tensor, after: Tensor, _: Tensor, ended: Tensor, *rest: Any) -> Tensor:
        return returns.gae(reward, value, after, ended, ended, *rest)

    monkeypatch.setattr(ppo_learner, "gae", cut)
    (check,) = probing.play("Endless", "mappo")
    assert failed(check, "truncation is treated as termination", "time_limit_as_termination")
    assert check.found < 0.7 * check.expected == pytest.approx(3.5)
    assert all(check.ok for check in probing.play("Ending", "mappo"))


@pytest.mark.parametrize("algorithm", ["ippo", "iddpg"])
def test_swapped_flags(algorithm: str, monkeypatch: Patch, one_seed: None) -> None:
    def swapped(write: Callable[..., None]) -> Callable[..., None]:
        def store(*arguments: Any) -> None:
            step: Step = arguments[-1]
            write(*arguments[:-1], step._replace(terminated=step.truncated, truncated=step.terminated))

        return store

    monkeypatch.setattr(Rollout, "write_outcome", swapped(Rollout.write_outcome))
    monkeypatch.setattr(Replay, "write", swapped(Replay.write))
    (limit,) = probing.play("Endless", algorithm)
    (end,) = probing.play("Ending", algorithm)
    assert failed(limit, "truncation is treated as termination", "time_limit_as_termination")
    assert failed(end, "termination is treated as truncation", "time_limit_as_termination")


@pytest.mark.parametrize("algorithm", ["mappo", "maddpg"])
def test_rewards_stored_a_step_late(algorithm: str, monkeypatch: Patch, one_seed: None) -> None:
    def late(write: Callable[..., None]) -> Callable[..., None]:
        before: list[Any] = []

        def store(*arguments: Any) -> None:
            step: Step = arguments[-1]
            before.append(step.reward)
            write(*arguments[:-1], step._replace(reward=before[-2] if before[1:] else step.reward))

        return store

    monkeypatch.setattr(Rollout, "write_outcome", late(Rollout.write_outcome))
    monkeypatch.setattr(Replay, "write", late(Replay.write))
    checks = by_name(probing.play("Recall", algorithm))
    assert failed(checks["recall/return"], "credit does not go back to the action of the step before", None)


def test_rewards_credited_a_step_early(monkeypatch: Patch, one_seed: None) -> None:
    def early(reward: Tensor, *rest: Any) -> Tensor:
        return returns.gae(reward.roll(-1, 0), *rest)

    monkeypatch.setattr(ppo_learner, "gae", early)
    checks = by_name(probing.play("Recall", "mappo"))
    assert checks["recall/return"].ok  # paid at once, it is the easier for it
    assert failed(checks["recall/value"], "rewards are credited a step too early or too late", None)


def blind(monkeypatch: Patch) -> None:
    monkeypatch.setattr(GroupLearner, "normalized", lambda self, obs: torch.zeros_like(obs))


def nameless(monkeypatch: Patch) -> None:
    def introduced(self: PerAgent, x: Tensor) -> Tensor:
        return torch.cat([x, torch.zeros_like(self.identity).expand(*x.shape[:-1], x.shape[-2])], dim=-1)

    monkeypatch.setattr(PerAgent, "_introduced", introduced)


def unscaled(monkeypatch: Patch) -> None:
    monkeypatch.setattr(PolicyBody, "_scaled", lambda self, canonical: canonical.clamp(self.low, self.high))


def unmasked(monkeypatch: Patch) -> None:
    monkeypatch.setattr(PolicyBody, "_choices", lambda self, out, obs: Categorical(out, None))


def own_turns_only(monkeypatch: Patch) -> None:
    """What is paid in the turns of others is lost."""
    gae, write = returns.gae_by_turns, Turns.write

    def own_gae(reward: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        return gae(reward * rest[4], *rest)

    def own_write(self: Turns, t: int, obs: PerGroup, action: PerGroup, step: Step) -> None:
        own = {name: reward * step.alive[name] for name, reward in step.reward.items()}
        write(self, t, obs, action, step._replace(reward=own))

    monkeypatch.setattr(ppo_learner, "gae_by_turns", own_gae)
    monkeypatch.setattr(Turns, "write", own_write)


def forgetful(monkeypatch: Patch) -> None:
    real = PerAgent.sequence

    def sequence(self: PerAgent, x: Tensor, memory: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
        return real(self, x, torch.zeros_like(memory), torch.ones_like(begins))

    monkeypatch.setattr(PerAgent, "sequence", sequence)


BLIND = ("actions do not follow what is seen", "observation_ignored")
NAMELESS = ("agents who share a network are not told apart", "identical_policies")
BROKEN = [
    (blind, "Match/return", "ippo", *BLIND),
    (blind, "Match/return", "iddpg", *BLIND),
    (nameless, "Roles/return", "mappo", *NAMELESS),
    (nameless, "Roles/return", "matd3", *NAMELESS),
    (unscaled, "Aim/return", "ippo", "actions are not scaled to each dimension's range", "action_range_mismatch"),
    (unmasked, "Allowed/forbidden", "mappo", "action masks are not obeyed", "masking_error"),
    (own_turns_only, "Relay/value", "mappo", "what is paid in the turns of others is counted wrongly", None),
    (own_turns_only, "Relay/return", "maddpg", "an agent's turn does not get what is paid after it", None),
    (forgetful, "Remember/return", "ippo", "memory is lost", "recurrent_gradients"),
]


@pytest.mark.parametrize(
    ("breaks", "name", "algorithm", "meaning", "cause"), BROKEN, ids=[f"{x[0].__name__}-{x[2]}" for x in BROKEN]
)
def test_a_game_that_fails_says_what_it_means(
    breaks: Callable[[Patch], None],
    name: str,
    algorithm: str,
    meaning: str,
    cause: str | None,
    monkeypatch: Patch,
    one_seed: None,
) -> None:
    breaks(monkeypatch)
    check = by_name(probing.play(name.partition("/")[0], algorithm))[name.lower()]
    assert failed(check, meaning, cause)


def test_a_division_by_a_deviation_of_zero(monkeypatch: Patch, one_seed: None) -> None:
    monkeypatch.setattr(ppo_learner, "normalized_advantage", lambda x, alive: (x - x.mean()) / (0 * x).std())
    checks = by_name(probing.play("Silence", "mappo"))
    assert failed(checks["silence/non_finite"], "something is divided by zero", None)
    assert checks["silence/non_finite"].found == 1
