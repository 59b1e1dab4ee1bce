"""Signals against plain loops over observations, copies and agents."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from marl_stable.monitor.signals.actions import (
    action_counts,
    attenuation,
    bound_clipped,
    continuous_sameness,
    continuous_saturation,
    deterministic_responsiveness,
    discrete_entropy,
    discrete_responsiveness,
    discrete_sameness,
    discrete_saturation,
    feature_importance,
    legal_choices,
    logit_gap,
    preactivation,
    repeat_ratio,
    stochastic_responsiveness,
)
from marl_stable.networks.heads import Categorical
from tests.agents.test_waiting import waits_in

T, E, A, D, P, N_ACTIONS = 12, 3, 2, 2, 40, 4


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def discrete(seed: int = 0) -> Tensor:
    """`(T, E, A)` with repetitions."""
    return torch.randint(N_ACTIONS, (T, E, A), generator=draw(seed)) // 2 * 2


def continuous(seed: int = 0) -> Tensor:
    """`(T, E, A, D)` in [-1, 1], where half of the dimensions repeat the step before."""
    action = 2 * torch.rand(T, E, A, D, generator=draw(seed)) - 1
    for t in range(1, T):
        action[t] = torch.where(torch.rand(E, A, D, generator=draw(100 + t)) < 0.5, action[t - 1], action[t])
    return action


def entropy(p: list[float]) -> float:
    return -sum(x * math.log(x) for x in p if x > 0)


# ---- responsiveness


def test_discrete_responsiveness_is_the_mutual_information_of_observation_and_action():
    probs = torch.softmax(3 * torch.randn(P, A, N_ACTIONS, generator=draw()), -1)
    responds = discrete_responsiveness(probs)
    for a in range(A):
        mean = [sum(float(probs[p, a, n]) for p in range(P)) / P for n in range(N_ACTIONS)]
        noise = sum(entropy(probs[p, a].tolist()) for p in range(P)) / P
        assert float(responds[a]) == pytest.approx((entropy(mean) - noise) / math.log(N_ACTIONS), abs=1e-5)


def test_discrete_responsiveness_runs_from_none_to_one():
    chosen = torch.arange(P) % N_ACTIONS
    sees_all = torch.eye(N_ACTIONS)[chosen]
    sees_nothing = torch.softmax(torch.randn(N_ACTIONS, generator=draw()), 0).expand(P, N_ACTIONS)
    always_one = torch.eye(N_ACTIONS)[:1].expand(P, N_ACTIONS)
    found = discrete_responsiveness(torch.stack([sees_all, sees_nothing, always_one], 1))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, 0.0]), atol=1e-5, rtol=0)
    assert discrete_responsiveness(torch.ones(P, 1, 1)).isnan().all()  # a choice of one is none


def some_legal(seed: int = 11) -> Tensor:
    """`(P, A, N_ACTIONS)`, at least one in each row, and in some rows just one."""
    legal = torch.rand(P, A, N_ACTIONS, generator=draw(seed)) < 0.6
    legal[..., 1] |= ~legal.any(-1)
    assert {1, 2, 3} <= set(legal.sum(-1).flatten().tolist())
    return legal


def test_a_policy_that_only_obeys_masks_is_deaf():
    """Masks alone make its probabilities differ from observation to observation."""
    legal = some_legal()
    deaf = Categorical(torch.tensor([0.3, -1.0, 2.0, 0.5]).expand(P, A, N_ACTIONS), legal).log_probs.exp()
    assert discrete_responsiveness(deaf).gt(0.2).all()
    assert discrete_responsiveness(deaf, legal).abs().max() < 1e-3
    hears = Categorical(6 * torch.randn(P, A, N_ACTIONS, generator=draw()), legal).log_probs.exp()
    assert discrete_responsiveness(hears, legal).gt(0.3).all()


def test_responsiveness_under_masks_is_the_information_beyond_the_best_deaf_policy():
    legal = some_legal()
    probs = Categorical(2 * torch.randn(P, A, N_ACTIONS, generator=draw(2)), legal).log_probs.exp()
    found = discrete_responsiveness(probs, legal)
    for a in range(A):
        rows = [p for p in range(P) if legal[p, a].sum() > 1]
        preferences = torch.zeros(N_ACTIONS, dtype=torch.float64, requires_grad=True)
        search = torch.optim.LBFGS([preferences], max_iter=200, line_search_fn="strong_wolfe")
        pi, may = probs[rows, a].double(), legal[rows, a]

        def apart(pi: Tensor = pi, may: Tensor = may, x: Tensor = preferences) -> Tensor:
            log_deaf = torch.log_softmax(x.expand_as(pi).masked_fill(~may, -1e9), -1)
            return torch.xlogy(pi, pi).sum(-1).mean() - (pi * log_deaf).sum(-1).mean()

        def closure(apart: Callable[[], Tensor] = apart, search: torch.optim.LBFGS = search) -> Tensor:
            search.zero_grad()
            loss = apart()
            loss.backward()
            return loss

        search.step(closure)
        best = float(apart().detach())
        most = sum(math.log(int(legal[p, a].sum())) for p in rows) / len(rows)
        assert float(found[a]) == pytest.approx(best / most, abs=2e-4)


def test_one_legal_action_is_no_choice():
    only = torch.eye(N_ACTIONS, dtype=torch.bool)[torch.arange(P) % N_ACTIONS].unsqueeze(1).expand(P, A, N_ACTIONS)
    forced = Categorical(torch.zeros(P, A, N_ACTIONS), only)
    probs = forced.log_probs.exp()
    assert discrete_responsiveness(probs, only).isnan().all()
    assert discrete_entropy(probs, only).isnan().all()
    assert logit_gap(forced.logits, only).isnan().all()
    assert legal_choices(only).tolist() == [1, 1]


def test_deterministic_responsiveness_is_the_deviation_of_the_greedy_action():
    mode = 2 * torch.rand(P, A, D, generator=draw()) - 1
    mode[:, 1, 0] = 0.7
    responds = deterministic_responsiveness(mode)
    for a in range(A):
        for d in range(D):
            values = mode[:, a, d].tolist()
            mean = sum(values) / P
            deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / P)
            assert float(responds[a, d]) == pytest.approx(deviation, abs=1e-5)


def test_stochastic_responsiveness_is_the_share_that_observations_explain():
    mean = torch.tensor([1.0, -1.0]).repeat(P // 2).reshape(P, 1, 1)
    assert stochastic_responsiveness(mean, torch.full((P, 1, 1), 3.0)).item() == pytest.approx(0.25, abs=1e-3)
    assert stochastic_responsiveness(mean, torch.zeros(P, 1, 1)).item() == pytest.approx(1.0, abs=1e-3)
    assert stochastic_responsiveness(1e-3 * mean, torch.zeros(P, 1, 1)).item() < 0.01  # rounding is no response
    assert stochastic_responsiveness(torch.ones(P, 1, 1), torch.zeros(P, 1, 1)).item() == 0


# ---- saturation


def test_saturation_counts_answers_at_their_limit():
    probs = torch.tensor([[[0.999, 0.001], [0.5, 0.5]], [[0.98, 0.02], [0.995, 0.005]]])
    assert discrete_saturation(probs).tolist() == [0.5, 0.5]
    mode = torch.tensor([[[0.995, -1.0], [0.5, 0.98]], [[-0.999, 0.0], [0.2, -0.995]]])
    assert continuous_saturation(mode).tolist() == [[1.0, 0.5], [0.0, 0.5]]


def test_attenuation_is_the_mean_slope_of_the_tanh_even_where_it_rounds_to_one():
    u = torch.tensor([0.0, 0.5, -2.0, 3.0]).reshape(4, 1, 1)
    expected = sum(1 - math.tanh(x) ** 2 for x in (0.0, 0.5, -2.0, 3.0)) / 4
    assert attenuation(u).item() == pytest.approx(expected, rel=1e-5)
    assert attenuation(torch.full((4, 1, 1), -12.0)).item() == pytest.approx(4 * math.exp(-24), rel=1e-4)
    assert attenuation(torch.full((4, 1, 1), 500.0)).item() == 0


def test_preactivation_is_a_percentile_of_the_magnitude():
    u = (torch.arange(100.0) - 80)[torch.randperm(100, generator=draw())].reshape(100, 1, 1)
    ordered = sorted(abs(float(x) - 80) for x in range(100))
    assert preactivation(u).item() == ordered[94]
    assert preactivation(torch.tensor([3.0, torch.inf]).reshape(2, 1, 1)).item() == math.inf


# ---- distributions over discrete actions


@pytest.mark.parametrize("masked", [False, True])
def test_entropy_and_logit_gap_are_over_legal_actions(masked: bool):
    legal = some_legal() if masked else None
    policy = Categorical(2 * torch.randn(P, A, N_ACTIONS, generator=draw(3)), legal)
    share, gap = discrete_entropy(policy.log_probs.exp(), legal), logit_gap(policy.logits, legal)
    for a in range(A):
        shares, gaps = [], []
        for p in range(P):
            may = [n for n in range(N_ACTIONS) if legal is None or legal[p, a, n]]
            if len(may) > 1:
                pi = torch.softmax(policy.free[p, a, may], 0).tolist()
                shares.append(entropy(pi) / math.log(len(may)))
                best = sorted(policy.free[p, a, may].tolist())
                gaps.append(best[-1] - best[-2])
        assert float(share[a]) == pytest.approx(sum(shares) / len(shares), abs=1e-5)
        assert float(gap[a]) == pytest.approx(sorted(gaps)[math.ceil(0.95 * len(gaps)) - 1], abs=1e-5)


def test_uniform_choice_has_all_entropy_whatever_is_legal():
    legal = some_legal()
    uniform = Categorical(torch.zeros(P, A, N_ACTIONS), legal).log_probs.exp()
    torch.testing.assert_close(discrete_entropy(uniform, legal), torch.ones(A))


def test_legal_choices_are_counted():
    legal = some_legal()
    expected = [sum(int(legal[p, a].sum()) for p in range(P)) / P for a in range(A)]
    assert legal_choices(legal).tolist() == pytest.approx(expected)


# ---- what a policy looks at


def test_feature_importance_is_slope_times_deviation_as_shares():
    slope, seen = torch.randn(P, A, 3, generator=draw(1)), torch.randn(P, A, 3, generator=draw(2))
    seen[:, 0, 1] = 0.7  # constant: nothing that it could tell
    share = feature_importance(slope, seen)
    for a in range(A):
        reach = [float(slope[:, a, o].abs().mean() * seen[:, a, o].std(correction=0)) for o in range(3)]
        assert share[a].tolist() == pytest.approx([x / sum(reach) for x in reach], rel=1e-4, abs=1e-6)
    assert feature_importance(torch.zeros(P, A, 3), seen).isnan().all()


# ---- repetition


def test_repeats_are_counted_within_episodes_only():
    ended = torch.rand(T, E, A, generator=draw(7)) < 0.2
    whole, fine = discrete(), continuous()
    for action, alike in (
        (whole, lambda x, y: bool(x == y)),
        (fine, lambda x, y: bool(((x - y).abs() < 0.02).all())),
    ):
        ratio = repeat_ratio(action, ended)
        for a in range(A):
            steps = [(t, e) for t in range(1, T) for e in range(E) if not ended[t - 1, e, a]]
            repeats = sum(alike(action[t, e, a], action[t - 1, e, a]) for t, e in steps)
            assert 0 < repeats < len(steps)
            assert float(ratio[a]) == pytest.approx(repeats / len(steps))


def test_repeat_ratio_of_nothing_is_zero():
    assert repeat_ratio(discrete(), torch.ones(T, E, A, dtype=torch.bool)).tolist() == [0, 0]
    assert repeat_ratio(discrete()[:1], torch.zeros(1, E, A, dtype=torch.bool)).tolist() == [0, 0]


def test_the_last_own_action_counts_where_agents_take_turns():
    """Agent 0 moves in even steps, agent 1 in odd ones; what waiting agents are said to have done is nothing."""
    action = torch.tensor([[0, 9], [5, 1], [0, 8], [5, 2], [3, 7], [5, 2], [3, 9], [0, 2]]).reshape(8, 1, 2)
    alive = torch.arange(8).reshape(8, 1, 1) % 2 == torch.arange(2)
    ended = torch.zeros(8, 1, 2, dtype=torch.bool)
    assert repeat_ratio(action, ended, alive).tolist() == pytest.approx([2 / 3, 2 / 3])  # 0 0 3 3, and 1 2 2 2
    ended[3] = True  # an episode's end: 0 0 | 3 3, and 1 2 | 2 2
    assert repeat_ratio(action, ended, alive).tolist() == [1.0, 0.5]
    ended[3], ended[2, 0, 0] = False, True  # after agent 0's second move, and it alone
    assert repeat_ratio(action, ended, alive).tolist() == pytest.approx([1.0, 2 / 3])


def test_repeats_under_masks_against_a_loop():
    ended = torch.rand(T, E, A, generator=draw(7)) < 0.2
    alive = torch.rand(T, E, A, generator=draw(8)) < 0.6
    action = discrete()
    found = repeat_ratio(action, ended, alive)
    for a in range(A):
        moves = repeats = 0
        for e in range(E):
            last: int | None = None
            for t in range(T):
                if alive[t, e, a]:
                    moves += last is not None
                    repeats += last is not None and last == int(action[t, e, a])
                    last = int(action[t, e, a])
                last = None if ended[t, e, a] else last
        assert 0 < repeats < moves
        assert float(found[a]) == pytest.approx(repeats / moves)


def test_discrete_sameness_is_the_share_of_the_most_frequent_action():
    action = discrete(3)
    same = discrete_sameness(action, N_ACTIONS)
    for a in range(A):
        counts = Counter(action[:, :, a].flatten().tolist())
        assert float(same[a]) == pytest.approx(max(counts.values()) / (T * E))
    assert discrete_sameness(torch.full((T, E, A), 3), N_ACTIONS).tolist() == [1, 1]


def test_continuous_sameness_is_the_share_of_dimensions_that_no_longer_vary():
    action = continuous(4)
    action[:, :, 0, 0] = -1 + 0.02 * torch.rand(T, E, generator=draw())
    assert continuous_sameness(action).tolist() == [0.5, 0.0]
    action[:, :, 0, 1] = 0.3
    assert continuous_sameness(action).tolist() == [1.0, 0.0]


def test_bang_bang_actions_are_saturated_and_yet_neither_alike_nor_deaf():
    action = (2 * torch.rand(200, E, A, D, generator=draw()) - 1).sign()
    assert (continuous_saturation(action.flatten(0, 1)) == 1).all()
    assert continuous_sameness(action).tolist() == [0, 0]
    assert deterministic_responsiveness(action.flatten(0, 1)).gt(0.9).all()
    assert stochastic_responsiveness(action.flatten(0, 1), torch.full((200 * E, A, D), 1e-3)).gt(0.9).all()


# ---- histograms


def test_counts_of_discrete_actions():
    action = discrete(5)
    counts = action_counts(action, N_ACTIONS)
    assert counts.shape == (A, N_ACTIONS)
    for a in range(A):
        assert counts[a].tolist() == [(action[:, :, a] == n).sum().item() for n in range(N_ACTIONS)]


def test_counts_of_continuous_actions_fill_bins_from_bound_to_bound():
    action = continuous(6)
    action[0, 0, 0, 0], action[0, 0, 0, 1] = 1.0, -1.0
    counts = action_counts(action, None, bins=8)
    assert counts.shape == (A, D, 8)
    for a in range(A):
        for d in range(D):
            expected = [0] * 8
            for value in action[:, :, a, d].flatten().tolist():
                expected[min(7, int((value + 1) / 2 * 8))] += 1
            assert counts[a, d].tolist() == expected


# ---- rows that do not count


def test_only_rows_with_a_living_agent_count():
    """Rows where the agent is not there may say anything."""
    alive = torch.rand(P, A, generator=draw(21)) < 0.6
    acted = torch.rand(T, E, A, generator=draw(22)) < 0.6
    legal = some_legal()
    logits = torch.randn(P, A, N_ACTIONS, generator=draw(1))
    mode = 2 * torch.rand(P, A, D, generator=draw(2)) - 1
    whole, fine = discrete(), continuous()
    clipped = fine.clamp(-0.8, 0.8)

    def everything(junk: float) -> list[Tensor]:
        policy = Categorical(torch.where(alive.unsqueeze(-1), logits, junk * logits.flip(0)), legal)
        probs, answer = policy.log_probs.exp(), torch.where(alive.unsqueeze(-1), mode, junk)
        done = torch.where(acted, whole, int(junk) % N_ACTIONS)
        moved = torch.where(acted.unsqueeze(-1), fine, junk)
        return [
            discrete_responsiveness(probs, legal, alive),
            discrete_responsiveness(probs, None, alive),
            discrete_entropy(probs, legal, alive),
            discrete_saturation(probs, alive),
            logit_gap(policy.logits, legal, alive),
            legal_choices(torch.where(alive.unsqueeze(-1), legal, junk > 2), alive),
            deterministic_responsiveness(answer, alive),
            stochastic_responsiveness(answer, answer.abs(), alive),
            continuous_saturation(answer, alive),
            preactivation(answer, alive),
            attenuation(answer, alive),
            feature_importance(answer, answer, alive),
            discrete_sameness(done, N_ACTIONS, acted),
            continuous_sameness(moved, acted),
            bound_clipped(moved, clipped, acted),
            action_counts(done, N_ACTIONS, alive=acted),
            action_counts(moved, None, alive=acted),
        ]

    for one, other in zip(everything(1.0), everything(7.0), strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_bounds_that_changed_actions_are_counted():
    raw = torch.tensor([0.5, -3.0, 1.0, 1.5]).reshape(2, 2, 1, 1)
    assert bound_clipped(raw, raw.clamp(-1, 1)).tolist() == [[0.5]]


def test_without_a_living_row_nothing_is_read():
    nobody = torch.zeros(P, A, dtype=torch.bool)
    mode, probs = torch.zeros(P, A, D), torch.full((P, A, N_ACTIONS), 0.25)
    for found in (
        deterministic_responsiveness(mode, nobody),
        continuous_saturation(mode, nobody),
        preactivation(mode, nobody),
        attenuation(mode, nobody),
        discrete_responsiveness(probs, None, nobody),
        discrete_entropy(probs, None, nobody),
        logit_gap(probs, None, nobody),
    ):
        assert found.isnan().all()


# ---- waiting


def test_nothing_makes_the_host_wait():
    alive, acted, legal = torch.ones(P, A) > 0, torch.ones(T, E, A) > 0, some_legal()
    policy = Categorical(torch.randn(P, A, N_ACTIONS, generator=draw()), legal)
    probs, mode = policy.log_probs.exp(), torch.zeros(P, A, D)
    whole, fine = discrete(), continuous()

    def everything() -> None:
        discrete_responsiveness(probs, legal, alive)
        discrete_entropy(probs, legal, alive)
        discrete_saturation(probs, alive)
        logit_gap(policy.logits, legal, alive)
        legal_choices(legal, alive)
        deterministic_responsiveness(mode, alive)
        stochastic_responsiveness(mode, mode, alive)
        continuous_saturation(mode, alive)
        preactivation(mode, alive)
        attenuation(mode, alive)
        feature_importance(mode, mode, alive)
        repeat_ratio(fine, ~acted, acted)
        discrete_sameness(whole, N_ACTIONS, acted)
        continuous_sameness(fine, acted)
        bound_clipped(fine, fine, acted)
        action_counts(fine, None, alive=acted)

    assert waits_in(everything) == {}
