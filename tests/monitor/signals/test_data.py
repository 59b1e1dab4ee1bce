"""What the environment hands over, against plain loops over steps, copies and agents."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from marl_stable.monitor.signals.data import History, Recent, by_turns, data_signals, ends, observations, rewards
from marl_stable.normalize import ObservationNorm
from marl_stable.rows import spread

T, E, A, FEATURES = 12, 5, 3, 4


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def window(seed: int = 0, steps: int = T, living: float = 0.7) -> Recent:
    """Random steps with ends of both kinds, dead agents, and outliers."""
    shape, g = (steps, E, A), draw(seed)
    reward = torch.randn(shape, generator=g).round(decimals=1) + 50 * (torch.rand(shape, generator=g) < 0.02)
    terminated, truncated = torch.rand(shape, generator=g) < 0.15, torch.rand(shape, generator=g) < 0.1
    truncated = truncated & ~terminated
    alive = torch.rand(shape, generator=g) < living
    obs = torch.randn(*shape, FEATURES, generator=g) * torch.tensor([1.0, 10.0, 0.1, 3.0]) + 2.0
    return Recent(obs, torch.zeros(shape), reward, terminated, truncated, terminated | truncated, alive)


def lives(recent: Recent) -> Iterator[tuple[int, int, int]]:
    steps, copies, agents = recent.alive.shape
    yield from ((t, e, a) for t in range(steps) for e in range(copies) for a in range(agents))


def part(recent: Recent, steps: slice) -> Recent:
    return Recent._make(x[steps] for x in recent)


def always(terminated: Tensor, alive: Tensor) -> Recent:
    """Steps that are all alike but for who lives and where episodes terminate."""
    same = torch.ones(alive.shape)
    return Recent(same.unsqueeze(-1), same, same, terminated, torch.zeros_like(alive), terminated, alive)


def norm_of(recent: Recent, mask: int = 0, share: bool = False, clip: float = 1.0) -> ObservationNorm:
    norm = ObservationNorm(A, recent.obs.shape[-1], mask, share, clip)
    norm.take_in(recent.obs.flatten(0, 1), None)
    return norm


# ---- observations


@pytest.mark.parametrize("share", [True, False])
def test_observations_of_the_living_feature_by_feature(share: bool):
    recent = window()
    norm = norm_of(recent, share=share)
    found = observations(recent.obs.flatten(0, 1), recent.alive.flatten(0, 1), norm)
    seen = norm(recent.obs)
    for a in range(A):
        rows = [(t, e) for t, e, agent in lives(recent) if agent == a and recent.alive[t, e, a]]
        for o in range(FEATURES):
            values = [float(recent.obs[t, e, a, o]) for t, e in rows]
            clipped = sum(abs(float(seen[t, e, a, o])) >= 1.0 for t, e in rows) / len(rows)
            expected = statistics.fmean(values), statistics.pstdev(values), max(map(abs, values)), clipped
            for name, value in zip(("mean", "std", "peak", "clipped"), expected, strict=True):
                assert float(found[f"stability/obs_{name}"][a, o]) == pytest.approx(value, rel=1e-4), name
            assert 0 < clipped < 1


def test_features_that_say_what_is_legal_are_never_clipped():
    recent = window()
    norm = norm_of(recent, mask=2, clip=0.1)
    clipped = observations(recent.obs.flatten(0, 1), recent.alive.flatten(0, 1), norm)["stability/obs_clipped"]
    assert clipped.shape == (A, FEATURES)
    assert clipped[:, :2].gt(0.5).all()
    assert clipped[:, 2:].eq(0).all()


def test_without_a_normaliser_nothing_is_said_of_its_clip():
    recent = window()
    assert "stability/obs_clipped" not in observations(recent.obs.flatten(0, 1), recent.alive.flatten(0, 1), None)


def test_padding_is_counted_where_agents_live():
    obs, alive = torch.ones(4, 2, 3), torch.ones(4, 2, dtype=torch.bool)
    obs[:3, 0] = 0.0
    obs[0, 1] = 0.0
    obs[1, 1, :2] = 0.0
    alive[0] = False
    assert observations(obs, alive, None)["stability/obs_padded"].tolist() == pytest.approx([2 / 3, 0])


def test_what_is_not_finite_is_left_out():
    obs, alive = torch.tensor([1.0, math.nan, math.inf, -3.0]).reshape(4, 1, 1), torch.ones(4, 1, dtype=torch.bool)
    found = observations(obs, alive, None)
    assert [float(found[f"stability/obs_{name}"]) for name in ("mean", "std", "peak")] == [-1, 2, 3]


def test_nobody_saw_anything():
    found = observations(torch.ones(4, 2, 3), torch.zeros(4, 2, dtype=torch.bool), None)
    assert all(value.isnan().all() for value in found.values())


def test_of_many_rows_some_are_looked_at():
    obs = torch.arange(5_000.0).reshape(5_000, 1, 1)
    found = observations(obs, torch.ones(5_000, 1, dtype=torch.bool), None)
    assert float(found["stability/obs_mean"]) == pytest.approx(2_500, rel=0.01)


def test_many_features_are_told_by_the_worst_agent():
    obs = torch.randn(50, 3, 1_000, generator=draw())
    obs[:, 1, 7] = -1e4
    norm = ObservationNorm(3, 1_000, 0, True, 5.0)
    found = observations(obs, torch.ones(50, 3, dtype=torch.bool), norm)
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    assert shapes.pop("stability/obs_padded") == (3,)
    assert set(shapes.values()) == {(1_000,)}
    assert float(found["stability/obs_mean"][7]) == -1e4
    assert float(found["stability/obs_peak"][7]) == 1e4
    assert float(found["stability/obs_clipped"][7]) == 1
    plain = observations(obs[:, :1], torch.ones(50, 1, dtype=torch.bool), norm)  # few enough: nothing is merged
    assert plain["stability/obs_mean"].shape == (1, 1_000)


def test_of_very_many_features_only_the_peak_and_the_share_beyond_the_clip():
    obs = torch.zeros(10, 2, 3_000)
    obs[3, 1, 5] = -40.0
    found = observations(obs, torch.ones(10, 2, dtype=torch.bool), ObservationNorm(2, 3_000, 0, True, 5.0))
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "stability/obs_peak": (),
        "stability/obs_clipped": (),
        "stability/obs_padded": (2,),
    }
    assert float(found["stability/obs_peak"]) == 40
    assert float(found["stability/obs_clipped"]) == pytest.approx(1 / (10 * 2 * 3_000))


# ---- rewards


def rank(values: list[float], share: float) -> float:
    return sorted(values)[max(math.ceil(round(share * len(values), 6)), 1) - 1]


def test_rewards_of_the_living():
    recent = window(3, 100)
    found = rewards(recent.reward.flatten(0, 1), recent.alive.flatten(0, 1))
    for a in range(A):
        values = [
            float(recent.reward[t, e, a]) for t, e, agent in lives(recent) if agent == a and recent.alive[t, e, a]
        ]
        median = rank(values, 0.5)
        off = [abs(v - median) for v in values]
        expected = {
            "mean": statistics.fmean(values),
            "std": statistics.pstdev(values),
            "median": median,
            "mad": rank(off, 0.5),
            "p999": rank(off, 0.999),
            "peak": max(off),
            "zero": values.count(0.0) / len(values),
        }
        assert {name: float(found[f"stability/reward_{name}"][a]) for name in expected} == pytest.approx(
            expected, rel=1e-4, abs=1e-6
        )
        assert 0 < expected["p999"] <= expected["peak"]


@pytest.mark.parametrize(("count", "place"), [(999, 999), (1_000, 999), (1_001, 1_000), (2_000, 1_998)])
def test_the_tail_is_counted_exactly(count: int, place: int):
    reward = torch.arange(1.0, 3 * count + 1).reshape(-1, 1) / 3  # 1 to count in every third row, whose agents live
    alive = torch.arange(1, 3 * count + 1).reshape(-1, 1) % 3 == 0
    reward = torch.where(reward > 0.6 * count, reward, 0.0) + 1e6 * ~alive  # the median is 0
    assert float(rewards(reward, alive)["stability/reward_p999"]) == place


def test_tiny_rewards_are_told_from_none():
    reward = torch.tensor([[0.0], [1e-9], [2e-9], [3e-9], [5e-9]])
    found = rewards(reward, torch.ones_like(reward, dtype=torch.bool))
    assert float(found["stability/reward_mad"]) == pytest.approx(1e-9, rel=1e-3)
    assert float(found["stability/reward_peak"]) == pytest.approx(3e-9, rel=1e-3)


def test_medians_of_many_rewards_are_those_of_some():
    reward = torch.randn(10_000, 1, generator=draw())
    found = rewards(reward, torch.ones_like(reward, dtype=torch.bool))
    assert float(found["stability/reward_median"]) == pytest.approx(0.0, abs=0.15)
    assert float(found["stability/reward_mad"]) == pytest.approx(0.67, abs=0.1)


@pytest.mark.parametrize("period", [2, 3, 5, 64, 128])
def test_who_acts_every_so_often_is_seen(period: int):
    reward = torch.ones(6_400, 1)
    for first in range(0, period, 7):
        acts = (torch.arange(6_400) % period == first).unsqueeze(1)
        assert float(rewards(reward, acts)["stability/reward_median"]) == 1
        assert float(observations(reward.unsqueeze(-1), acts, None)["stability/obs_mean"]) == 1


def test_spread_rows_are_all_over_the_place():
    for count, most in ((10, 20), (20, 20), (21, 20), (39, 20), (40, 20), (100_003, 512)):
        some = spread(count, most, torch.device("cpu")).tolist()
        assert len(some) == min(count, most)
        assert some == sorted(some)
        assert len(set(some)) > 0.7 * len(some)
        assert 0 <= some[0] <= some[-1] < count


def test_one_outlier_among_many_rewards_is_seen():
    reward = torch.zeros(50_000, 2)
    reward[31_337, 1] = -1e6
    found = rewards(reward, torch.ones_like(reward, dtype=torch.bool))
    assert found["stability/reward_peak"].tolist() == [0, 1e6]
    assert found["stability/reward_p999"].tolist() == [0, 0]


def test_rewards_that_are_not_finite_are_left_out():
    reward = torch.tensor([[1.0], [math.nan], [math.inf], [3.0], [5.0]])
    found = rewards(reward, torch.ones_like(reward, dtype=torch.bool))
    assert float(found["stability/reward_mean"]) == 3
    assert float(found["stability/reward_median"]) == 3
    assert float(found["stability/reward_peak"]) == 2


def test_rewards_of_nobody_are_not_read():
    found = rewards(torch.ones(3, 2), torch.tensor([[False, True]] * 3))
    assert all(math.isnan(float(value[0])) for value in found.values())
    assert all(math.isfinite(float(value[1])) for value in found.values())


def test_rewards_belong_to_the_turn_before_them():
    recent = window(5, 30, living=0.3)
    found = by_turns(recent.reward, recent.alive)
    for e in range(E):
        for a in range(A):
            expected, turn = [0.0] * 30, None
            for t in range(30):
                turn = t if recent.alive[t, e, a] else turn
                if turn is not None:
                    expected[turn] += float(recent.reward[t, e, a])
            assert found[:, e, a].tolist() == pytest.approx(expected, abs=1e-4)


# ---- ends


def plain_ends(recents: list[Recent]) -> tuple[list[int], int]:
    """Lengths of terminated episodes that ended in the last of windows that follow one another, and how many ended."""
    lengths, ended = [], 0
    for e in range(E):
        for a in range(A):
            lived = 0
            for recent in recents:
                for t in range(len(recent.alive)):
                    lived += int(recent.alive[t, e, a])
                    if not recent.ended[t, e, a]:
                        continue
                    if lived and recent is recents[-1]:
                        ended += 1
                        lengths += [lived] if recent.terminated[t, e, a] else []
                    lived = 0
    return lengths, ended


def test_ends_are_told_apart_and_episodes_measured_across_windows():
    history, recents = History(E, A, torch.device("cpu")), []
    for seed in range(4):
        recents.append(window(seed, 6))
        history.take_in(recents[-1])
        lengths, ended = plain_ends(recents)
        found = history.ends
        assert float(found["stability/ends_terminated"]) == pytest.approx(len(lengths) / ended)
        assert float(found["stability/ends_length_std"]) == pytest.approx(statistics.pstdev(lengths), rel=1e-4)


def test_a_time_limit_called_termination_ends_all_episodes_alike():
    ended = torch.zeros(30, E, 1, dtype=torch.bool)
    ended[9::10] = True
    recent = always(ended, torch.ones_like(ended))
    found = ends(recent, torch.zeros(E, 1, dtype=torch.int64))[0]
    assert (float(found["stability/ends_terminated"]), float(found["stability/ends_length_std"])) == (1, 0)


def test_turns_are_what_agents_live():
    """Two agents in turn; the episode of eight steps ends for both when one has moved."""
    alive, ended = torch.zeros(24, E, 2, dtype=torch.bool), torch.zeros(24, E, 2, dtype=torch.bool)
    alive[::2, :, 0] = alive[1::2, :, 1] = True
    ended[7::8] = True
    recent, history = always(ended, alive), History(E, 2, torch.device("cpu"))
    history.take_in(recent)
    found = data_signals(recent, None, history)
    assert float(found["stability/ends_terminated"]) == 1
    assert float(found["stability/ends_length_std"]) == 0
    assert found["stability/alive"].tolist() == [0.5, 0.5]


def test_without_ends_nothing_is_read():
    recent = window()
    quiet = recent._replace(ended=torch.zeros_like(recent.ended))
    assert all(value.isnan() for value in ends(quiet, torch.zeros(E, A, dtype=torch.int64))[0].values())


# ---- what is remembered


def test_bounds_of_rewards_are_those_of_the_living():
    history, low, high = History(E, A, torch.device("cpu")), [math.inf] * A, [-math.inf] * A
    for seed in range(3):
        recent = window(seed)
        recent.reward[0, 0, 0], recent.reward[1, 0, 0] = math.nan, math.inf
        recent.reward[2, 0, 1] = 1e9
        recent.alive[2, 0, 1] = False
        history.take_in(recent)
        for t, e, a in lives(recent):
            value = float(recent.reward[t, e, a])
            if recent.alive[t, e, a] and math.isfinite(value):
                low[a], high[a] = min(low[a], value), max(high[a], value)
    assert history.low.tolist() == low
    assert history.high.tolist() == high


def test_history_goes_on_from_its_state():
    one, other = History(E, A, torch.device("cpu")), History(E, A, torch.device("cpu"))
    one.take_in(window(0))
    other.load_state_dict(one.state_dict())
    for history in (one, other):
        history.take_in(window(1))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_a_long_window_is_as_good_as_two():
    whole = window(7, 20)
    one, two = History(E, A, torch.device("cpu")), History(E, A, torch.device("cpu"))
    one.take_in(whole)
    two.take_in(part(whole, slice(8)))
    two.take_in(part(whole, slice(8, None)))
    assert torch.equal(one.age, two.age)


def test_all_signals_stand_beside_one_another():
    recent: Recent = window()
    history = History(E, A, torch.device("cpu"))
    history.take_in(recent)
    found: dict[str, Tensor] = data_signals(recent, norm_of(recent), history)
    agents = {name for name, value in found.items() if value.shape == (A,)}
    features = {name for name, value in found.items() if value.shape == (A, FEATURES)}
    names = ("mean", "std", "median", "mad", "p999", "peak", "zero")
    assert agents == {"stability/alive", "stability/obs_padded", *(f"stability/reward_{name}" for name in names)}
    assert features == {f"stability/obs_{name}" for name in ("mean", "std", "peak", "clipped")}
    assert found.keys() - agents - features == {"stability/ends_terminated", "stability/ends_length_std"}
