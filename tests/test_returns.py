"""Returns and advantages against loops that one can check by eye."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from marl_stable.returns import explained_variance, finished, gae, gae_by_turns

T, E, A = 40, 4, 3
GAMMA, LAMBDA = 0.9, 0.8


class Flow(NamedTuple):
    reward: Tensor
    value: Tensor
    next_value: Tensor
    terminated: Tensor
    ended: Tensor


def random_flow(seed: int = 0) -> Flow:
    """Random everything; agents end one by one, by either kind of end, and go on with garbage as dead agents do."""
    draw = torch.Generator().manual_seed(seed)
    reward, value, next_value = (torch.randn(T, E, A, generator=draw, dtype=torch.float64) for _ in range(3))
    terminated = torch.rand(T, E, A, generator=draw) < 0.1
    truncated = torch.rand(T, E, A, generator=draw) < 0.1
    return Flow(reward, value, next_value, terminated, terminated | truncated)


def by_hand(flow: Flow, gamma: float, gae_lambda: float, t: int, e: int, a: int) -> float:
    """Schulman et al. 2016, eq. 16: the discounted sum of errors up to the end of the episode or of the batch."""
    total, weight = 0.0, 1.0
    for k in range(t, T):
        follows = 0.0 if flow.terminated[k, e, a] else float(flow.next_value[k, e, a])
        total += weight * (float(flow.reward[k, e, a]) + gamma * follows - float(flow.value[k, e, a]))
        if flow.ended[k, e, a]:
            break
        weight *= gamma * gae_lambda
    return total


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(GAMMA, LAMBDA), (1.0, 1.0), (0.99, 0.0), (0.0, 0.95)])
def test_gae_equals_the_sum_of_its_definition(gamma: float, gae_lambda: float):
    flow = random_flow()
    advantage = gae(*flow, gamma, gae_lambda)
    for t in range(T):
        for e in range(E):
            for a in range(A):
                assert float(advantage[t, e, a]) == pytest.approx(by_hand(flow, gamma, gae_lambda, t, e, a), abs=1e-9)


@pytest.mark.parametrize("terminated", [True, False])
def test_nothing_of_the_next_episode_comes_back_across_an_end(terminated: bool):
    flow = random_flow(1)
    end = 17
    flow.ended[end], flow.terminated[end] = True, terminated
    before = gae(*flow, GAMMA, LAMBDA)[: end + 1]
    for garbage in (1e6, float("inf"), float("nan")):
        for tensor in (flow.reward, flow.value, flow.next_value):
            tensor[end + 1 :] = garbage
        assert torch.equal(gae(*flow, GAMMA, LAMBDA)[: end + 1], before)


def test_an_end_of_one_agent_or_copy_leaves_the_others_sums_alone():
    flow = random_flow(2)
    flow.ended[:], flow.terminated[:] = False, False
    before = gae(*flow, GAMMA, LAMBDA)
    flow.ended[10, 1, 2] = flow.terminated[10, 1, 2] = True
    changed = gae(*flow, GAMMA, LAMBDA) != before
    assert changed[:11, 1, 2].all()
    assert changed.sum() == 11


def test_a_truncation_is_worth_what_would_have_followed_and_a_termination_nothing():
    one = torch.ones(1, 1, 1)
    yes, no = one.bool(), ~one.bool()
    assert gae(one, 3 * one, 7 * one, no, yes, GAMMA, LAMBDA).item() == pytest.approx(1 + GAMMA * 7 - 3)
    assert gae(one, 3 * one, 7 * one, yes, yes, GAMMA, LAMBDA) == 1 - 3
    assert gae(one, 3 * one, torch.nan * one, yes, yes, GAMMA, LAMBDA) == 1 - 3


def test_with_lambda_one_the_advantage_is_the_discounted_return_minus_the_value():
    reward = torch.arange(5.0).reshape(5, 1, 1)
    value = torch.full_like(reward, 0.5)
    last = torch.tensor([0, 0, 0, 0, 1]).bool().reshape(5, 1, 1)
    returns = [sum(GAMMA ** (k - t) * k for k in range(t, 5)) for t in range(5)]
    advantage = gae(reward, value, value, last, last, GAMMA, 1.0)
    torch.testing.assert_close(advantage.flatten() + 0.5, torch.tensor(returns))


def test_a_step_that_is_excluded_brings_what_the_critic_expected():
    flow = random_flow(3)
    acted = torch.rand(T, E, A, generator=torch.Generator().manual_seed(3)) < 0.8
    expected = flow.value - GAMMA * flow.next_value.masked_fill(flow.terminated, 0.0)
    wanted = gae(*flow._replace(reward=torch.where(acted, flow.reward, expected)), GAMMA, LAMBDA)
    for garbage in (0.0, 1e6, float("nan")):
        reward = torch.where(acted, flow.reward, garbage)
        found = gae(*flow._replace(reward=reward), GAMMA, LAMBDA, acted)
        torch.testing.assert_close(found, wanted)
    assert torch.equal(gae(*flow, GAMMA, LAMBDA, torch.ones_like(acted)), gae(*flow, GAMMA, LAMBDA))


# ---- turn by turn


def turns_by_hand(flow: Flow, acted: Tensor, missing: Tensor, e: int, a: int) -> dict[int, float]:
    """Agent a's turns with an advantage: rewards summed from turn to turn, then the definition over turns.

    Left out is a turn after which the batch ends before the agent moves again or its episode is over, and one with
    something missing, which the turns before take for what the critic expected.
    """
    moves: list[tuple[int, int, float, float, bool]] = []  # first and last step, reward, what follows, if over
    for t in range(T):
        if not acted[t, e, a]:
            continue
        gained = 0.0
        for k in range(t, T):
            gained += float(flow.reward[k, e, a])
            if flow.ended[k, e, a]:
                moves.append((t, k, gained, 0.0 if flow.terminated[k, e, a] else float(flow.next_value[k, e, a]), True))
                break
            if k + 1 < T and acted[k + 1, e, a]:
                moves.append((t, k, gained, float(flow.value[k + 1, e, a]), False))
                break
    spoilt = [bool(missing[t : last + 1, e, a].any()) for t, last, *_ in moves]
    advantages = {}
    for i, (t, *_) in enumerate(moves):
        total, weight = 0.0, 1.0
        for k in range(i, len(moves)):
            now, _, gained, follows, over = moves[k]
            if not spoilt[k]:
                total += weight * (gained + GAMMA * follows - float(flow.value[now, e, a]))
            if over:
                break
            weight *= GAMMA * LAMBDA
        if not spoilt[i]:
            advantages[t] = total
    return advantages


@pytest.mark.parametrize("share_of_turns", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_advantages_by_turns_equal_a_loop_over_each_agents_own_turns(seed: int, share_of_turns: float):
    """Ends come at any time, in an agent's turn and in others', before its first turn and after its last."""
    flow = random_flow(seed)
    acted = torch.rand(T, E, A, generator=torch.Generator().manual_seed(seed + 9)) < share_of_turns
    advantage, known = gae_by_turns(*flow, acted, GAMMA, LAMBDA)
    left_open = 0
    for e in range(E):
        for a in range(A):
            expected = turns_by_hand(flow, acted, torch.zeros_like(acted), e, a)
            assert known[:, e, a].nonzero().flatten().tolist() == list(expected)
            for t in range(T):
                assert float(advantage[t, e, a]) == pytest.approx(expected.get(t, 0.0), abs=1e-9)
            left_open += int(acted[:, e, a].sum()) - len(expected)
    assert left_open > 0 or share_of_turns < 0.1
    assert known.any()


@pytest.mark.parametrize("garbage", [0.0, 1e6, float("nan")])
def test_a_turn_that_something_is_missing_of_is_no_lesson_for_those_before(garbage: float):
    """What is missing may belong to the agent's own turn, to another's, or to the one that ended the episode."""
    draw = torch.Generator().manual_seed(3)
    acted, missing = torch.rand(T, E, A, generator=draw) < 0.4, torch.rand(T, E, A, generator=draw) < 0.1
    flow = random_flow(4)
    paid = flow._replace(reward=torch.where(missing, garbage, flow.reward))
    advantage, known = gae_by_turns(*paid, acted, GAMMA, LAMBDA, missing)
    for e in range(E):
        for a in range(A):
            expected = turns_by_hand(flow, acted, missing, e, a)
            assert known[:, e, a].nonzero().flatten().tolist() == list(expected)
            for t, wanted in expected.items():
                assert float(advantage[t, e, a]) == pytest.approx(wanted, abs=1e-9)
    whole = gae_by_turns(*flow, acted, GAMMA, LAMBDA)[1]
    assert 0 < known.sum() < 0.9 * whole.sum()


def test_where_everybody_always_acts_turns_are_steps():
    """Up to the last transition of those whose episode goes on: its next value is not that of a turn in the batch."""
    flow = random_flow(5)
    flow.next_value[:-1] = torch.where(flow.ended[:-1], flow.next_value[:-1], flow.value[1:])
    everyone = torch.ones(T, E, A, dtype=torch.bool)
    advantage, known = gae_by_turns(*flow, everyone, GAMMA, LAMBDA)
    assert torch.equal(known, torch.cat([everyone[1:], flow.ended[-1:]]))
    shorter = Flow(*(x[:-1] for x in flow))
    torch.testing.assert_close(advantage[:-1, ~flow.ended[-1]], gae(*shorter, GAMMA, LAMBDA)[:, ~flow.ended[-1]])
    torch.testing.assert_close(advantage[:, flow.ended[-1]], gae(*flow, GAMMA, LAMBDA)[:, flow.ended[-1]])
    assert flow.ended[-1].any()
    assert not flow.ended[-1].all()


@pytest.mark.parametrize("garbage", [1e6, float("inf"), float("nan")])
def test_turns_know_nothing_of_the_next_episode_nor_of_values_in_others_turns(garbage: float):
    flow = random_flow(6)
    acted = torch.rand(T, E, A, generator=torch.Generator().manual_seed(2)) < 0.4
    end = 17
    flow.ended[end] = True
    before = [x[: end + 1].clone() for x in gae_by_turns(*flow, acted, GAMMA, LAMBDA)]
    for tensor in (flow.reward, flow.value, flow.next_value):
        tensor[end + 1 :] = garbage
    flow.value[~acted] = garbage
    flow.next_value[flow.terminated | ~flow.ended] = garbage
    after = gae_by_turns(*flow, acted, GAMMA, LAMBDA)
    assert torch.equal(after[0][: end + 1], before[0])
    assert torch.equal(after[1][: end + 1], before[1])


def test_finished_steps_are_those_with_an_end_at_or_after_them():
    flow = random_flow(3)
    flow.ended[30:] = False
    known = finished(flow.ended)
    for t in range(T):
        assert torch.equal(known[t], flow.ended[t:].any(0))
    assert not known[30:].any()
    assert not finished(torch.zeros(5, 1, 1, dtype=torch.bool)).any()


def test_explained_variance_is_one_minus_the_share_left_over_agent_by_agent():
    draw = torch.Generator().manual_seed(4)
    target, value = torch.randn(100, A, generator=draw), torch.randn(100, A, generator=draw)
    value[:, 0] = target[:, 0] + 3  # a constant offset explains all variance
    weight = (torch.rand(100, A, generator=draw) < 0.6).float()
    explained = explained_variance(target, value, weight)
    for a in range(A):
        kept = weight[:, a] > 0
        g, v = target[kept, a].double(), value[kept, a].double()
        assert float(explained[a]) == pytest.approx(1 - float((g - v).var() / g.var()), abs=1e-5)
    assert float(explained[0]) == pytest.approx(1, abs=1e-6)


def test_explained_variance_ignores_entries_without_weight():
    target, value = torch.randn(50, 1), torch.randn(50, 1)
    weight = (torch.arange(50) % 2).reshape(50, 1).float()
    before = explained_variance(target, value, weight)
    target[::2], value[::2] = 1e6, -1e6
    assert torch.equal(explained_variance(target, value, weight), before)


def test_explained_variance_is_nan_where_nothing_varies_or_nothing_is_known():
    weight = torch.ones(10, 3)
    weight[:, 2] = 0
    target = torch.ones(10, 3)
    target[:, 1:] = torch.randn(10, 2)
    assert explained_variance(target, target, weight).isnan().tolist() == [True, False, True]
