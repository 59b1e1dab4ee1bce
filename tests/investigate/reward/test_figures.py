"""The figures themselves, against slow plain loops and games whose answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from marl_stable.investigate.reward import candidates, control, credit, shaping, statistics
from marl_stable.investigate.reward.fitting import to_come
from marl_stable.investigate.reward.play import Played, Roster, again, at_random, joined, roster, watch
from marl_stable.types import PerGroup
from tests.investigate.reward import games
from tests.investigate.reward.games import Line, arena

RNG = np.random.default_rng()


@pytest.fixture(autouse=True)
def drawn_anew() -> None:
    """Every test draws the same, whichever ran before it."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def random_play(game: type[Line], copies: int = 32, seed: int = 1, longest: int = 40) -> Played:
    env = game(copies)
    return watch(env, at_random(env.spec, torch.Generator().manual_seed(seed)), seed, longest)


def made(terms: Any, reward: Any = None, live: Any = None) -> Played:
    """A play of one group with the `terms (T, E, N, K)`."""
    terms = np.asarray(terms, np.float64)
    steps, copies, n, _ = terms.shape
    reward = terms.sum(-1) if reward is None else reward
    live = np.ones((steps, copies), bool) if live is None else live
    flags = np.ones((steps, copies, n), bool)
    obs = {"agent": RNG.normal(size=(steps, copies, n, 2)).astype(np.float32)}
    action = {"agent": torch.zeros(steps, copies, n, 1)}
    return Played(obs, action, terms, reward, flags, ~flags, live, np.zeros(copies, bool))


def test_a_play_is_what_the_environment_said_step_by_step() -> None:
    env, other = Line(4), Line(4)
    generator = torch.Generator().manual_seed(9)
    played = watch(env, at_random(env.spec, generator), 3, 40)
    obs = other.reset(3)
    total = torch.zeros(4, 2)
    for t in range(20):
        assert np.array_equal(played.obs["agent"][t], obs["agent"].numpy())
        step = other.step({"agent": played.action["agent"][t]})
        total += step.reward["agent"]
        obs = step.obs
    assert played.live.all()
    assert len(played.live) == 20
    assert played.over.all()
    np.testing.assert_allclose(played.returns(), total.numpy(), rtol=1e-5)
    np.testing.assert_allclose(played.sums().sum(-1), played.returns(), rtol=1e-5)


def test_only_the_first_episode_of_a_copy_counts() -> None:
    played = random_play(games.Suicide)
    for copy in range(32):
        alive = played.live[:, copy]
        length = int(alive.sum())
        assert alive[:length].all()
        assert not alive[length:].any()
        ended = played.terminated[length - 1, copy].all()
        assert ended or length == 20


def test_an_episode_that_is_left_off_is_not_over() -> None:
    played = random_play(Line, longest=7)
    assert len(played.live) == 7
    assert not played.over.any()


def test_plays_of_different_length_join() -> None:
    one, other = random_play(Line, longest=5), random_play(Line, longest=9)
    both = joined([one, other])
    assert both.live.shape == (9, 64)
    assert np.array_equal(both.returns(), np.concatenate([one.returns(), other.returns()]))
    assert not both.live[5:, :32].any()


def test_agents_without_terms_have_one() -> None:
    assert roster(games.Whole(1).spec).terms == ("reward",)
    assert roster(Line(1).spec).terms == ("near", "effort")


def test_the_same_actions_again_are_the_same_play() -> None:
    env = Line(8)
    first = watch(env, at_random(env.spec, torch.Generator().manual_seed(1)), 2, 40)
    nobody = np.zeros((20, 8, 2), bool)
    twin = watch(env, again(env.spec, first.action, nobody, torch.Generator().manual_seed(5)), 2, 40)
    assert np.array_equal(first.terms, twin.terms)
    one = nobody.copy()
    one[..., 1] = True
    other = watch(env, again(env.spec, first.action, one, torch.Generator().manual_seed(5)), 2, 40)
    assert np.array_equal(first.terms[:, :, 0], other.terms[:, :, 0])
    assert not np.array_equal(first.terms[:, :, 1], other.terms[:, :, 1])


def test_what_is_to_come_is_the_discounted_sum_to_the_episodes_end() -> None:
    rewards, live = RNG.normal(size=(6, 3, 2)), np.ones((6, 3), bool)
    live[4:, 1] = False
    found = to_come(rewards, live, 0.9)
    for copy in range(3):
        length = int(live[:, copy].sum())
        for t in range(length):
            slow = sum(0.9 ** (s - t) * rewards[s, copy] for s in range(t, length))
            np.testing.assert_allclose(found[t, copy], slow)


def test_advantages_are_those_of_a_slow_loop() -> None:
    terms, value = RNG.normal(size=(5, 2, 1, 2)), RNG.normal(size=(5, 2, 1, 2))
    live = np.ones((5, 2), bool)
    live[3:, 1] = False
    play = made(terms, live=live)
    play.terminated[2, 1] = True
    found = credit.gae(np.where(live[..., None, None], terms, 0.0), value, play)
    for copy, length in ((0, 5), (1, 3)):
        for t in range(length):
            slow, factor = 0.0, 1.0
            for s in range(t, length):
                last = s == length - 1
                after = value[s + 1, copy, 0] if not last else (0.0 if copy == 1 else value[s, copy, 0])
                slow = slow + factor * (terms[s, copy, 0] + credit.GAMMA * after - value[s, copy, 0])
                factor *= credit.GAMMA * credit.GAE_LAMBDA
            np.testing.assert_allclose(found[t, copy, 0], slow)


@pytest.mark.parametrize("game", [Line, games.Loops, games.Penalty, games.Noise])
def test_shares_of_the_advantage_sum_to_one_and_are_covariances(game: type[Line]) -> None:
    env, played = game(32), random_play(game)
    advantage = credit.advantages(env.spec, played)
    shares = credit.shares(advantage, played)
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-9)
    rows = advantage[:, :, 0][played.live]
    whole = rows.sum(1)
    for k in range(rows.shape[1]):
        slow = sum((a - rows[:, k].mean()) * (w - whole.mean()) for a, w in zip(rows[:, k], whole, strict=True))
        assert shares[0, k] == pytest.approx(slow / len(rows) / whole.var())


def test_advantages_of_terms_sum_to_those_of_the_whole() -> None:
    env, played = Line(32), random_play(Line)
    whole = played._replace(terms=played.terms.sum(-1, keepdims=True))
    parts = credit.advantages(env.spec, played).sum(-1)
    np.testing.assert_allclose(parts, credit.advantages(env.spec, whole)[..., 0], atol=1e-9)


def test_a_constant_has_no_share_and_a_silent_reward_has_none() -> None:
    assert np.array_equal(credit.shares(np.zeros((4, 3, 2, 2)), made(np.zeros((4, 3, 2, 2)))), np.zeros((2, 2)))


def test_figures_of_steps_are_those_of_numpy() -> None:
    values = RNG.normal(size=500) + 3
    found = statistics.of_steps(np.append(values, [np.nan, np.inf]))
    assert found["mean"] == pytest.approx(values.mean())
    assert found["std"] == pytest.approx(values.std())
    assert found["median"] == pytest.approx(np.sort(values)[249])  # the lower middle one
    assert found["non_finite"] == 2
    off = np.abs(values - float(found["median"] or 0))
    assert found["scale"] == pytest.approx(1.4826 * np.sort(off)[249], rel=1e-6)
    assert found["largest_over_scale"] == pytest.approx(off.max() / found["scale"])
    assert statistics.of_steps(np.array([np.nan]))["mean"] is None


def test_correlations_are_those_of_numpy_and_unknown_where_nothing_varies() -> None:
    x, y = RNG.normal(size=(2, 100))
    assert statistics.correlation(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert statistics.correlation(x, np.ones(100)) is None
    play = made(np.stack([x, y, -x], axis=-1).reshape(100, 1, 1, 3))
    who = Roster(("agent_0",), ("a", "b", "c"), np.ones((1, 3), bool))
    found = statistics.between_terms(play, who)
    with pytest.raises(KeyError):
        found[1, 0, 1]
    assert found[0, 0, 2] == pytest.approx(-1)
    assert found[0, 0, 1] == pytest.approx(np.corrcoef(x, y)[0, 1])


@pytest.mark.parametrize(
    ("game", "kind"), [(games.Shared, "shared"), (games.Hunters, "zero-sum"), (Line, "own"), (games.Silent, "own")]
)
def test_shared_and_zero_sum_rewards_are_recognised(game: type[Line], kind: str) -> None:
    played = random_play(game)
    assert statistics.sharing(played.reward, played.live) == kind


def test_bounds_of_a_chance() -> None:
    assert statistics.upper_bound(0, 3_000) == pytest.approx(0.001)
    assert statistics.upper_bound(0, 0) == 1
    assert statistics.upper_bound(50, 100) == pytest.approx(0.5965, abs=1e-3)  # Wilson's


def test_accidents_are_found_where_they_are_and_goals_are_none() -> None:
    reward = RNG.normal(size=(100, 20, 1, 1))
    play, who = made(reward), roster(games.Constant(1).spec)._replace(agents=("a",), has=np.ones((1, 1), bool))
    other = made(RNG.normal(size=reward.shape))
    assert statistics.outlier(play, who, other) is None
    reward[30:35, 7] = 200.0  # a goal that is always paid alike
    assert statistics.outlier(made(reward), who, other) is None
    reward[62, 3] = -9e5
    found = statistics.outlier(made(reward), who, other)
    assert found is not None
    assert (found.copy, found.step, found.value) == (3, 62, -9e5)
    fall = made(reward)
    fall.terminated[62, 3] = True
    assert statistics.outlier(fall, who, other) is None


def test_events_that_are_alike_are_accidents_where_they_come_whatever_is_done() -> None:
    reward, other = RNG.normal(size=(2, 100, 20, 1, 1))
    who = roster(games.Constant(1).spec)._replace(agents=("a",), has=np.ones((1, 1), bool))
    moments = np.arange(5, 85, 10), RNG.integers(20, size=8)  # five of them before step 50
    reward[moments] = -5_000.0
    assert statistics.outlier(made(reward), who, made(other)) is None  # somebody's doing
    other[moments] = -5_000.0
    found = statistics.outlier(made(reward), who, made(other))
    assert found is not None
    assert found.value == -5_000.0
    assert statistics.outlier(made(reward), who, made(other[:50])) is not None  # which ended sooner


@pytest.mark.parametrize("moments", [(-1, slice(None)), ([0, 1, 2, 0, 1], [3, 3, 3, 7, 7])], ids=["end", "beginning"])
def test_what_is_paid_at_about_one_time_is_no_accident(moments: Any) -> None:
    reward, other = RNG.normal(size=(2, 100, 20, 1, 1))
    who = roster(games.Constant(1).spec)._replace(agents=("a",), has=np.ones((1, 1), bool))
    reward[moments] = other[moments] = 5_000.0
    assert statistics.outlier(made(reward), who, made(other)) is None


def test_the_share_of_actions_is_known_where_half_of_the_variance_is_theirs() -> None:
    rows = 40_000
    luck, mine, other = RNG.normal(size=(3, rows))
    one, twin, redrawn = (made((luck + part).reshape(1, rows, 1, 1)) for part in (mine, mine, other))
    share, p, snr = control.shares(one, twin, redrawn)
    assert share[0, 0] == pytest.approx(0.5, abs=0.02)
    assert p[0, 0] <= 0.002
    assert snr[0, 0] == pytest.approx(1, abs=0.1)


def test_luck_that_does_not_repeat_is_no_control() -> None:
    rows = 4_000
    plays = [made(values.reshape(1, rows, 1, 1)) for values in RNG.normal(size=(3, rows))]
    share, p, _ = control.shares(*plays)
    assert share[0, 0] < 0.08
    assert p[0, 0] > control.CHANCE


def test_who_moves_what_on_the_line() -> None:
    moved = control.control(arena(games.Noise))
    assert moved.repeats
    assert (moved.share[:, 0] > 0.2).all()
    assert (moved.share[:, 1] < control.LEAST).all()
    assert not control.control(arena(games.Unseeded)).repeats


def test_an_action_is_felt_when_it_is() -> None:
    class Later(Line):
        names = ("now", "later")

        def reset(self, seed: int) -> PerGroup:
            self.past = [torch.zeros(self.num_envs, 2)] * 3
            return super().reset(seed)

        def paid(self, before: Any, after: Any, push: Any) -> list[torch.Tensor]:
            self.past = [*self.past[1:], push]
            return [push, self.past[0]]

    lags = control.control(arena(Later)).lag
    assert lags == [[0, 2], [0, 2]]


def test_an_agents_influence_is_its_own() -> None:
    influence = control.control(arena(games.Lazy)).influence
    assert influence is not None
    assert influence.paid[2] == 0
    assert (influence.paid[:2] > 0).all()
    assert not influence.seen.any()


def test_the_best_constant_action_is_found_and_no_deviation_from_it_gains() -> None:
    theatre = arena(games.Constant)
    best, hold, idle = candidates.best_constant(theatre)
    assert best.action == {"agent_0": [1.0], "agent_1": [1.0]}
    assert best.values == pytest.approx(20)
    assert idle.values == pytest.approx(0)
    assert (control.deviations(theatre, hold, 2) <= 1e-6).all()


def test_deviations_from_a_constant_gain_where_looking_pays() -> None:
    theatre = arena(Line)
    _, hold, _ = candidates.best_constant(theatre)
    assert (control.deviations(theatre, hold, 4) > 0).mean() > 0.1


def test_all_candidates_play_the_same_episodes() -> None:
    theatre = arena(Line)
    random, idle = candidates.chance(theatre), candidates.no_op(theatre)
    assert np.array_equal(random.play.obs["agent"][0], idle.play.obs["agent"][0])
    gap, error = candidates.difference(idle, random)
    values = idle.values - random.values
    assert gap == pytest.approx(values.mean())
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(len(values)))


def test_a_potential_is_known_by_its_loops_and_its_fit() -> None:
    def of(game: type[Line]) -> shaping.Shape:
        env = game(64)
        played = random_play(game, 64)
        return shaping.shape(env.spec, played, roster(env.spec), 0, 1)

    fair, unfair = of(games.Potential), of(games.Loops)
    assert fair.changes > shaping.POTENTIAL
    assert abs(fair.gain) < 0.2 * fair.size
    assert shaping.CHANGES < unfair.changes < shaping.POTENTIAL
    assert unfair.gain > 0.5 * unfair.size


@pytest.mark.parametrize(
    ("game", "about_changes"),
    [(games.Loops, True), (games.Swift, True), (games.Potential, True), (Line, False), (games.Noise, False)],
)
def test_changes_without_a_discount_tell_progress_from_what_hangs_on_the_state(
    game: type[Line], about_changes: bool
) -> None:
    env, played = game(64), random_play(game, 64)
    terms = (0, 1) if not about_changes else (1,)
    found = [shaping.shape(env.spec, played, roster(env.spec), 0, k).undiscounted for k in terms]
    assert all((share > shaping.CHANGES) == about_changes for share in found)


def test_loops_are_stretches_that_return() -> None:
    there_and_back = np.array([0.0, 1.0, 2.0, 1.0, 0.0, 1.0, 2.0, 1.0, 0.0])[:, None, None]
    play = made(np.ones((9, 1, 1, 1)))
    paid = np.array([1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0])[:, None]
    assert shaping.loops(there_and_back, paid, play).tolist() == [0.5, 0.5]
    straight = np.arange(9.0)[:, None, None]
    assert len(shaping.loops(straight, paid, play)) == 0
