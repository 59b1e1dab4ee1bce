"""The rollout and the replay keep what happened, and let a truncation see its own final observation."""

from __future__ import annotations

import pytest
import torch

from marl_stable import buffers
from marl_stable.buffers import Replay, Rollout, require_room
from marl_stable.types import ActionSpec, Box, Discrete, EnvSpec, Group, MultiDiscrete, Step, UsageError

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
    [
        (Discrete(5), (T, E, A), torch.int64),
        (MultiDiscrete((2, 3, 4), (0, 0, 0)), (T, E, A, 3), torch.int64),
        (Box((0.0, 0.0), (1.0, 1.0)), (T, E, A, 2), torch.float32),
    ],
)
def test_actions_are_stored_as_their_space_has_them(action: ActionSpec, shape: tuple[int, ...], dtype: torch.dtype):
    for stored in (Rollout(T, E, group(action), CPU).action, Replay(T, E, group(action), CPU).action):
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


# ---- a replay

SLOTS = 4


def replayed(steps: int, ends: tuple[int, ...] = (2, 5)) -> Replay:
    """A ring of four slots after `steps` steps whose every number says when it was."""
    replay = Replay(SLOTS, E, group(Discrete(50)), CPU)
    for t in range(steps):
        replay.write(t, "g", torch.full((E, A, O), float(t)), torch.full((E, A), t), step_at(t, t in ends))
    return replay


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 7, 13])
def test_the_ring_holds_the_last_steps_each_in_its_slot(steps: int):
    replay = replayed(steps)
    for t in range(max(0, steps - SLOTS), steps):
        at, step = t % SLOTS, step_at(t, t in (2, 5))
        assert replay.obs[at].eq(t).all()
        assert replay.action[at].eq(t).all()
        for name in ("next_obs", "reward", "terminated", "alive"):
            assert torch.equal(getattr(replay, name)[at], getattr(step, name)["g"]), name
        assert torch.equal(replay.ended[at], step.terminated["g"] | step.truncated["g"])


@pytest.mark.parametrize(("t", "steps"), [(3, 2), (4, 4), (5, 2), (5, 4), (6, 3), (8, 4), (11, 1), (13, 3)])
def test_the_last_steps_are_found_oldest_first_across_the_wrap(t: int, steps: int):
    replay = replayed(t)
    assert replay.action[replay.last(t, steps)][:, 0, 0].tolist() == list(range(t - steps, t))
    assert replay.obs[replay.last(t, steps)].shape == (steps, E, A, O)


def test_what_is_drawn_is_whole_transitions_slot_by_slot_and_copy_by_copy():
    replay = replayed(6)
    replay.reward += torch.arange(E).reshape(1, E, 1)  # to tell copies apart
    rows = torch.tensor([3, 0, 7, 3, 2])
    drawn = replay.draw(rows)
    for i, row in enumerate(rows.tolist()):
        slot, copy = divmod(row, E)
        for name, value in drawn._asdict().items():
            assert torch.equal(value[i], getattr(replay, name)[slot, copy]), name
    drawn.obs.fill_(-1)
    assert replay.obs.ge(0).all()


def test_everything_kept_is_among_the_tensors_of_the_ring():
    replay = replayed(3)
    assert {len(ring) for ring in replay.tensors().values()} == {SLOTS}
    assert replay.tensors()["obs"] is replay.obs
    assert replay.slots == SLOTS


def test_a_replay_that_does_not_fit_is_refused_with_one_that_does(monkeypatch: pytest.MonkeyPatch):
    groups = (group(Discrete(5)), group(Box((0.0,) * 7, (1.0,) * 7))._replace(name="h"))
    spec = EnvSpec("x", (), groups)
    kept = [Replay(10, 2, g, CPU) for g in groups]
    size = sum(ring.nbytes for replay in kept for ring in replay.tensors().values())
    monkeypatch.setattr(buffers, "_free_memory", lambda: 2 * size)
    require_room(10, 2, spec, CPU)
    with pytest.raises(
        UsageError, match=r"^algo.buffer_size is 200000, which needs .* GB of memory; .* or less\.$"
    ) as no:
        require_room(100_000, 2, spec, CPU)
    fits = int(str(no.value).split()[-3])
    assert 20 < fits < 40
    require_room(fits // 2, 2, spec, CPU)
    monkeypatch.setattr(buffers, "_free_memory", lambda: size - 1)
    with pytest.raises(UsageError):
        require_room(10, 2, spec, CPU)


def test_free_memory_is_asked_of_the_machine():
    assert 1e6 < buffers._free_memory() < 1e14
