"""The rollout keeps what happened, and lets a truncation see its own final observation."""

from __future__ import annotations

import pytest
import torch

from marl_stable.buffers import Rollout
from marl_stable.types import ActionSpec, Box, Discrete, Group, Step

T, E, A, O = 6, 2, 3, 4  # noqa: E741 - the letters of the shape legend
CPU = torch.device("cpu")


def group(action: ActionSpec) -> Group:
    return Group("g", tuple(f"a{i}" for i in range(A)), O, action, "team")


def step_at(t: int, over: bool) -> Step:
    """A step whose every number says when it was; `over`: copy 1's agents 0 and 1 end, agent 2 is dead."""
    obs = torch.full((E, A, O), float(t + 1))
    next_obs = obs
    terminated, truncated = torch.zeros(E, A, dtype=torch.bool), torch.zeros(E, A, dtype=torch.bool)
    alive = torch.ones(E, A, dtype=torch.bool)
    if over:
        next_obs, obs = obs.clone(), obs.clone()
        next_obs[1] = 100.0 + t
        terminated[1, 0], truncated[1, 1], alive[1, 2] = True, True, False
    follows = {"g": obs}
    led_to = {"g": next_obs} if over else follows
    reward = torch.full((E, A), 10.0 * t)
    done = terminated.any(1)
    return Step(follows, led_to, {"g": reward}, {"g": terminated}, {"g": truncated}, {"g": alive}, done)


def filled(rollout: Rollout, ends: tuple[int, ...] = (2, 4)) -> Rollout:
    for t in range(T):
        obs = torch.full((E, A, O), float(t))
        rollout.write(t, obs, torch.full_like(rollout.action[0], t), torch.full((E, A), -float(t)))
        rollout.write_outcome(t, "g", step_at(t, t in ends))
    return rollout


def test_every_step_lies_where_it_was_written():
    rollout = filled(Rollout(T, E, group(Discrete(5)), CPU))
    times = torch.arange(T).reshape(T, 1, 1).expand(T, E, A)
    assert torch.equal(rollout.obs[:-1, :, :, 0], times.float())
    assert torch.equal(rollout.obs[-1], torch.full((E, A, O), float(T)))
    assert torch.equal(rollout.action, times)
    assert torch.equal(rollout.log_prob, -times.float())
    assert torch.equal(rollout.reward, 10.0 * times)
    assert rollout.terminated.nonzero().tolist() == [[2, 1, 0], [4, 1, 0]]
    assert rollout.ended.nonzero().tolist() == [[2, 1, 0], [2, 1, 1], [4, 1, 0], [4, 1, 1]]
    assert (~rollout.alive).nonzero().tolist() == [[2, 1, 2], [4, 1, 2]]


@pytest.mark.parametrize(
    ("action", "shape", "dtype"),
    [(Discrete(5), (T, E, A), torch.int64), (Box((0.0, 0.0), (1.0, 1.0)), (T, E, A, 2), torch.float32)],
)
def test_actions_are_stored_as_their_space_has_them(action: ActionSpec, shape: tuple[int, ...], dtype: torch.dtype):
    stored = Rollout(T, E, group(action), CPU).action
    assert (stored.shape, stored.dtype) == (shape, dtype)


def test_a_truncation_is_bootstrapped_from_its_final_observation_and_not_from_the_next_episode():
    rollout = filled(Rollout(T, E, group(Discrete(5)), CPU))
    everything = rollout.all_obs()
    assert everything.shape == (T + 1 + 2, E, A, O)
    value = everything[..., 0]  # a critic that reads the first feature
    next_value = rollout.next_values(value[: T + 1], value[T + 1 :])
    assert next_value[:, 0].tolist() == [[t + 1.0] * A for t in range(T)]
    assert next_value[:, 1, 0].tolist() == [1, 2, 102, 4, 104, 6]


def test_where_nothing_ended_next_values_are_those_of_the_next_steps():
    rollout = filled(Rollout(T, E, group(Discrete(5)), CPU), ends=())
    assert rollout.final_obs == {}
    value = rollout.all_obs()[..., 0]
    assert torch.equal(rollout.next_values(value, value[T + 1 :]), value[1:])


def test_final_observations_are_copies_that_the_environment_cannot_change():
    rollout = Rollout(T, E, group(Discrete(5)), CPU)
    step = step_at(0, over=True)
    rollout.write_outcome(0, "g", step)
    step.next_obs["g"].fill_(-1)
    assert rollout.final_obs[0][1].eq(100).all()


def test_clear_forgets_final_observations_and_the_next_batch_overwrites_the_rest():
    rollout = filled(Rollout(T, E, group(Discrete(5)), CPU))
    rollout.clear()
    filled(rollout, ends=())
    fresh = filled(Rollout(T, E, group(Discrete(5)), CPU), ends=())
    for key, value in fresh.state_dict().items():
        assert key == "final_obs" or torch.equal(value, rollout.state_dict()[key])
    assert rollout.final_obs == {}


def test_state_comes_back_bit_for_bit_and_is_no_view():
    rollout = filled(Rollout(T, E, group(Box((0.0,), (1.0,))), CPU))
    state = rollout.state_dict()
    fresh = Rollout(T, E, group(Box((0.0,), (1.0,))), CPU)
    fresh.load_state_dict(state)
    rollout.obs.fill_(-1)
    rollout.final_obs[2].fill_(-1)
    again = fresh.state_dict()
    assert again.keys() == state.keys()
    for key, value in again.items():
        if key == "final_obs":
            assert list(value) == [2, 4]
            assert value[2][1].eq(102).all()
        else:
            assert torch.equal(value, state[key]), key
            assert not value.eq(-1).all(), key
