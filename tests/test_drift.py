"""What all episodes begin with is followed, and what agents do to their observations is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from marl_stable.drift import FEWEST, Beginnings
from marl_stable.normalize import ObservationNorm

STEPS, COPIES, AGENTS, FEATURES = 5, 256, 2, 3
BEGIN = torch.zeros(STEPS, COPIES, dtype=torch.bool)
BEGIN[-1] = True  # all episodes are as long as a rollout


class Watched:
    """Rollouts of random observations, each followed and then taken in."""

    def __init__(self, share: bool = True, mask: int = 0) -> None:
        self.random = torch.Generator().manual_seed(0)
        self.norm = ObservationNorm(AGENTS, FEATURES + mask, mask, share, clip=5.0)
        self.beginnings = Beginnings(self.norm.mean.shape)

    def rollout(self, copies: int = COPIES) -> Tensor:
        return torch.randn(STEPS, copies, AGENTS, FEATURES, generator=self.random)

    def see(self, obs: Tensor, begins: Tensor | None = None) -> None:
        begins = BEGIN[:, : obs.shape[1]] if begins is None else begins
        self.beginnings.follow(self.norm, obs, begins)
        self.norm.take_in(obs.flatten(0, 1), None)

    def usual(self, rollouts: int = 20) -> Watched:
        for _ in range(rollouts):
            self.see(self.rollout())
        return self


@pytest.mark.parametrize("share", [True, False])
def test_a_sensor_that_jumps_is_followed_at_once(share: bool) -> None:
    watched = Watched(share).usual()
    moved = torch.tensor([0.0, 2.0, 0.0])
    watched.see(watched.rollout() + moved)
    torch.testing.assert_close(watched.norm.mean, moved.double().expand_as(watched.norm.mean), atol=0.25, rtol=0)
    assert watched.beginnings.drifts.tolist() == ([False, True, False] if share else [[False, True, False]] * AGENTS)
    assert watched.norm.divisor.max() < 1.1  # nothing was taken for noise


def test_slow_drift_is_followed_without_a_lag_once_it_is_known() -> None:
    watched = Watched().usual()
    for i in range(1, 51):
        watched.see(watched.rollout() + 0.1 * i)
    torch.testing.assert_close(watched.norm.mean, torch.full_like(watched.norm.mean, 5.0), atol=0.3, rtol=0)
    assert watched.norm.divisor.max() < 1.1
    alone = ObservationNorm(AGENTS, FEATURES, 0, True, clip=5.0)  # what it would be without
    for i in range(-20, 51):
        alone.take_in((watched.rollout() + 0.1 * max(0, i)).flatten(0, 1), None)
    assert alone.mean.max() < 2.5


def test_what_agents_bring_about_is_left_to_the_running_statistics() -> None:
    watched, alone = Watched().usual(), Watched().usual()
    for i in range(20):
        obs = watched.rollout() + 0.1 * i
        obs[-1] -= 0.1 * i  # episodes begin as ever
        watched.see(obs)
        alone.norm.take_in(obs.flatten(0, 1), None)
    assert torch.equal(watched.norm.mean, alone.norm.mean)


def test_nothing_moves_by_chance() -> None:
    watched, alone = Watched(), Watched()
    for _ in range(300):
        obs = watched.rollout()
        watched.see(obs)
        alone.norm.take_in(obs.flatten(0, 1), None)
    assert torch.equal(watched.norm.mean, alone.norm.mean)
    assert not watched.beginnings.drifts.any()


def test_agents_who_see_the_same_are_no_further_evidence() -> None:
    watched = Watched()
    for _ in range(300):
        obs = watched.rollout()
        obs[..., 1:, :] = obs[..., :1, :]
        watched.see(obs, BEGIN[:, :FEWEST].repeat(1, COPIES // FEWEST))
    assert not watched.beginnings.drifts.any()


@pytest.mark.parametrize("spoilt", [float("nan"), float("inf"), 1e6])
def test_single_readings_move_nothing(spoilt: float) -> None:
    watched = Watched().usual()
    obs = watched.rollout()
    obs[-1, 0, 0, 0] = spoilt
    watched.see(obs)
    assert not watched.beginnings.drifts.any()


def test_a_new_scale_is_no_drift() -> None:
    watched = Watched().usual()
    watched.see(1e3 * watched.rollout() + 1e3)
    assert not watched.beginnings.drifts.any()


def test_few_episodes_tell_nothing_and_none_change_nothing() -> None:
    watched = Watched().usual()
    mean = watched.norm.mean.clone()
    for begins in (BEGIN[:, : FEWEST - 1], torch.zeros(STEPS, FEWEST - 1, dtype=torch.bool)):
        watched.beginnings.follow(watched.norm, watched.rollout(FEWEST - 1) + 3.0, begins)
    assert torch.equal(watched.norm.mean, mean)
    assert not watched.beginnings.drifts.any()


def test_features_that_say_which_actions_are_legal_are_no_measurements() -> None:
    watched = Watched(mask=2)
    for legal in (0.0, 1.0):
        for _ in range(5):
            legality = torch.full((STEPS, COPIES, AGENTS, 2), legal)
            watched.see(torch.cat([watched.rollout(), legality], dim=-1))
    assert watched.beginnings.drifts.shape == (FEATURES,)
    assert not watched.beginnings.drifts.any()


def test_what_is_known_is_part_of_the_state() -> None:
    watched, other = Watched().usual(), Watched()
    watched.see(watched.rollout() + 2.0)
    other.beginnings.load_state_dict(watched.beginnings.state_dict())
    for name, tensor in watched.beginnings.named_buffers():
        assert torch.equal(tensor, other.beginnings.get_buffer(name))
