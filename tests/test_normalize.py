"""Running statistics: the plain ones where data are plain, and not to be moved by outliers, holes or rounding."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from marl_stable.normalize import MEMORY, SHIFTED_UPDATES, RunningNorm, robust, sampled


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fed(*batches: Tensor, clip: float = 5.0) -> RunningNorm:
    norm = RunningNorm(tuple(batches[0].shape[1:]), clip)
    for batch in batches:
        norm.update(batch)
    return norm


def sparse(rows: int, share: float, value: float, seed: int = 0) -> Tensor:
    """`(rows, 1)`: zeros, and `value` in exactly that share of places."""
    x = torch.zeros(rows, 1)
    x[: round(rows * share)] = value
    return x[torch.randperm(rows, generator=torch.Generator().manual_seed(seed))]


# ---- plain data


def test_before_any_data_nothing_changes():
    x = normal(10, 3)
    assert torch.equal(RunningNorm((3,), 5.0)(x), x)


def test_what_is_expected_holds_until_the_first_rows_come():
    norm = RunningNorm((2,), 5.0)
    norm.expect(torch.tensor([100.0, -1.0]), torch.tensor([4.0, 0.5]))
    torch.testing.assert_close(norm.inverse(torch.ones(1, 2)), torch.tensor([[104.0, -0.5]]))
    rows = normal(1000, 2)
    norm.update(rows)
    torch.testing.assert_close(norm.mean, rows.double().mean(0))
    norm.expect(torch.zeros(2), torch.ones(2))
    torch.testing.assert_close(norm.mean, rows.double().mean(0))


def test_statistics_are_those_of_all_data_however_they_come():
    data = normal(3000, 2, 4) * torch.tensor([0.1, 1.0, 10.0, 100.0]) + torch.tensor([5.0, -50.0, 0.0, 1e3])
    norm = fed(*data.split([1000, 37, 1, 962, 1000]))
    everything = data.double()
    torch.testing.assert_close(norm.mean, everything.mean(0), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(norm.var, everything.var(0, correction=0), rtol=1e-9, atol=0)
    torch.testing.assert_close(norm.divisor, everything.std(0, correction=0).float())
    assert norm.count.eq(3000).all()


def test_normalised_data_have_mean_zero_and_deviation_one():
    data = 30 * normal(5000, 3) + 7
    out = fed(data)(data)
    torch.testing.assert_close(out.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std(0, correction=0), torch.ones(3), atol=1e-3, rtol=0)


def test_statistics_are_exact_far_from_zero():
    data = normal(4000, 1) + 1e5
    norm = fed(*data.split(500))  # sums and squares in float32 would lose a deviation of 1 beside 1e5
    assert float(norm.mean) == pytest.approx(float(data.double().mean()), abs=1e-8)
    assert float(norm.var) == pytest.approx(float(data.double().var(correction=0)), rel=1e-9)


def test_memory_is_bounded_so_that_late_drift_still_counts():
    norm = fed(normal(1000, 1))
    norm.count.fill_(MEMORY)
    before, late = float(norm.mean), normal(1000, 1, seed=1) + 2
    norm.update(late)
    assert norm.count == MEMORY
    assert float(norm.mean) == pytest.approx((MEMORY * before + float(late.double().sum())) / (MEMORY + 1000), rel=1e-9)


# ---- outliers, holes, weights


@pytest.mark.parametrize("spike", [1e6, -1e6, 1e30])
@pytest.mark.parametrize("first", [True, False], ids=["in the first batch", "later"])
def test_one_outlier_among_ten_thousand_moves_statistics_by_less_than_a_hundredth(spike: float, first: bool):
    data, later = normal(10_000, 2), normal(10_000, 2, seed=1)
    plain = fed(data, later)
    (data if first else later)[4321, 0] = spike
    hit = fed(data, later)
    assert float((hit.mean - plain.mean).abs().max()) < 0.01
    assert float((hit.divisor / plain.divisor - 1).abs().max()) < 0.01
    assert hit(torch.tensor([[spike, 0.0]])).abs().max() == 5.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_values_are_left_out(value: float):
    data = normal(200, 3)
    holes = data.clone()
    holes[50:100, 1] = value
    without = fed(torch.cat([data[:50], data[100:]]))
    holed, plain = fed(holes), fed(data)
    assert holed.count.tolist() == [200, 150, 200]
    for column, like in ((0, plain), (1, without), (2, plain)):
        assert torch.equal(holed.mean[column], like.mean[column])
        torch.testing.assert_close(holed.var[column], like.var[column])


def test_rows_of_weight_zero_are_left_out_agent_by_agent():
    data = normal(300, 3)
    weight = torch.ones(300, 3)
    weight[::3, 1] = 0
    weight[:, 2] = 0
    garbage = torch.where(weight > 0, data, 1e9)
    norm = RunningNorm((3,), 5.0)
    norm.update(garbage, weight)
    kept = data[weight[:, 1] > 0, 1].double()
    assert norm.count.tolist() == [300, 200, 0]
    assert float(norm.mean[1]) == pytest.approx(float(kept.mean()), rel=1e-9)
    assert float(norm.var[1]) == pytest.approx(float(kept.var(correction=0)), rel=1e-9)
    assert (float(norm.mean[2]), float(norm.var[2])) == (0.0, 1.0)


def test_a_weight_of_one_column_holds_for_all_features():
    data, weight = normal(100, 4), (torch.arange(100) % 2).unsqueeze(1)
    norm = RunningNorm((4,), 5.0)
    norm.update(data, weight)
    torch.testing.assert_close(norm.mean, data[1::2].double().mean(0))


def test_an_update_without_a_single_value_changes_nothing():
    norm = fed(normal(100, 2))
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    norm.update(torch.full((10, 2), math.nan))
    norm.update(normal(10, 2), torch.zeros(10, 2))
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())


# ---- constants and rounding


@pytest.mark.parametrize("value", [0.0, 1.0, -273.15, 1e5, 0.1])
def test_a_constant_feature_gives_exact_zeros(value: float):
    norm = fed(torch.full((1000, 1), value), torch.full((17, 1), value))
    assert norm(torch.full((5, 1), value)).eq(0).all()
    assert norm.divisor == 1


def test_rounding_on_a_constant_is_not_blown_up_beside_true_features():
    data = normal(2000, 3)
    data[:, 2] = 1000 + 1e-4 * data[:, 2]
    assert fed(data)(data)[:, 2].abs().max() < 0.1
    assert fed(data)(data)[:, :2].std() > 0.9


def test_a_feature_that_only_begins_to_vary_later_is_scaled_all_the_same():
    norm = fed(*[torch.zeros(1000, 1)] * 5)
    for seed in range(20):
        norm.update(200 * normal(1000, 1, seed=seed))
    assert 100 < float(norm.divisor) < 250


# ---- sparse data


@pytest.mark.parametrize("rows", [100, 1600, 2000, 6400, 10_000])
@pytest.mark.parametrize("share", [0.01, 0.011, 0.02, 0.3])
@pytest.mark.parametrize("value", [1e-3, 1.0, 500.0])
def test_sparse_data_have_a_usable_scale(rows: int, share: float, value: float):
    data = sparse(rows, share, value)
    norm = fed(data)
    assert float(norm.divisor) == pytest.approx(float(data.std()), rel=0.1)


def test_sparse_data_that_begin_after_a_while_have_a_usable_scale():
    norm = fed(*[torch.zeros(6400, 1)] * 3)
    for seed in range(10):
        norm.update(sparse(6400, 0.01, 1000.0, seed))
    assert 20 < float(norm.divisor) < 200  # the deviation is 99.5
    assert float(norm.scaled(torch.tensor([[1000.0]]))) > 5


def test_an_outlier_among_sparse_data_does_not_hide_them():
    data = sparse(6400, 0.05, 1.0)
    data[data.argmax()] = 1e6
    assert float(fed(data).divisor) == pytest.approx(0.05**0.5, rel=0.2)


# ---- true changes


@pytest.mark.parametrize(("scale", "offset"), [(1000.0, 0.0), (1.0, 500.0), (100.0, -3000.0)])
def test_a_true_change_is_followed_after_three_updates(scale: float, offset: float):
    norm = fed(*(normal(2000, 2, seed=seed) for seed in range(20)))
    for seed in range(SHIFTED_UPDATES):
        changed = normal(2000, 2, seed=100 + seed)
        changed[:, 0] = scale * changed[:, 0] + offset
        norm.update(changed)
    assert float(norm.divisor[0]) == pytest.approx(scale, rel=0.05)
    assert float(norm.mean[0]) == pytest.approx(offset, abs=0.1 * scale)
    assert norm.count.tolist() == [2000, 2000 * 23]  # the feature that did not change keeps its memory


def test_outliers_must_be_many_and_persist_to_count_as_a_change():
    def batch(seed: int, share: float) -> Tensor:
        hit = torch.rand(2000, 1, generator=torch.Generator().manual_seed(seed)) < share
        return torch.where(hit, 1e4, normal(2000, 1, seed=seed))

    norm = fed(*(batch(seed, 0.0) for seed in range(5)))
    for seed in range(10):  # many, but never three times in a row
        norm.update(batch(seed, 0.0 if seed % 3 == 2 else 0.5))
    assert norm.count == 2000 * 15
    for seed in range(10):  # always, but few
        norm.update(batch(seed, 0.1))
    assert norm.count == 2000 * 25


# ---- as it is used


def test_forward_is_clipped_and_inverse_undoes_it_within():
    data = 3 * normal(1000, 2) + 8
    norm = fed(data, clip=2.5)
    out = norm(torch.tensor([[1e9, -1e9], [8.0, 8.0]]))
    assert out[0].tolist() == [2.5, -2.5]
    inside = norm(data).abs() < 2.5
    assert inside.sum() > 1900
    torch.testing.assert_close(norm.inverse(norm(data))[inside], data[inside], rtol=1e-5, atol=1e-4)


def test_scaled_is_divided_but_not_centred_and_winsorised():
    data = 3 * normal(1000, 1) + 30
    norm = fed(data)
    torch.testing.assert_close(norm.scaled(data[:5]), data[:5] / norm.divisor)
    high = (norm.offset + 5 * norm.divisor) / norm.divisor
    torch.testing.assert_close(norm.scaled(torch.tensor([[1e9]])).squeeze(0), high)


def test_scaled_zero_stays_zero():
    norm = fed(sparse(6400, 0.05, 7.0))
    assert float(norm.scaled(torch.zeros(1, 1))) == pytest.approx(0, abs=1e-6)


def test_state_comes_back_exactly_and_goes_on_alike():
    norm = fed(normal(500, 3) * 1e3, normal(100, 3) * 1e5)
    assert norm.shifted_for.gt(0).all()
    fresh = RunningNorm((3,), 5.0)
    fresh.load_state_dict({key: value.clone() for key, value in norm.state_dict().items()})
    x = normal(50, 3, seed=9) * 1e4
    assert torch.equal(fresh(x), norm(x))
    for seed in range(3):
        norm.update(normal(100, 3, seed=seed) * 1e5)
        fresh.update(normal(100, 3, seed=seed) * 1e5)
    assert torch.equal(fresh(x), norm(x))
    for key, value in norm.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[key])


def test_robust_is_median_and_mad_where_data_are_dense():
    data = normal(1001, 1).double() * 4 + 10
    centre, scale = robust(data)
    assert float(centre) == float(data.median())
    assert float(scale) == pytest.approx(1.4826 * float((data - data.median()).abs().median()))
    assert float(scale) == pytest.approx(4, rel=0.1)


def test_robust_of_nothing_is_zero_and_not_nan():
    x = torch.full((10, 2), math.nan)
    assert [part.tolist() for part in robust(sampled(x, torch.isfinite(x)))] == [[0, 0], [0, 0]]


# ---- settled


def test_settled_statistics_stay_as_they_are_until_there_is_a_true_change():
    norm = fed(normal(1000, 2))
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    for seed in range(3):
        norm.update(3 * normal(1000, 2, seed=seed) + 1, settled=True)
    for key, value in norm.state_dict().items():
        assert torch.equal(value, before[key]), key
    far = torch.stack([normal(1000, seed=7), 1e4 + 50 * normal(1000, seed=8)], dim=1)
    for _ in range(SHIFTED_UPDATES + 2):
        norm.update(far, settled=True)
    assert norm.mean[0] == before["mean"][0]
    assert norm.mean[1].item() == pytest.approx(1e4, rel=0.01)
    assert norm.divisor[1].item() == pytest.approx(50, rel=0.1)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_what_was_constant_so_far_settles_at_its_first_variation(scale: float):
    """A reward that is first paid once learning has begun: nothing was known of its scale until then."""
    norm = fed(torch.zeros(500, 1))
    norm.update(torch.zeros(500, 1), settled=True)
    assert norm.divisor == 1
    norm.update(scale * normal(5000, 1), settled=True)
    assert 0.5 * scale < norm.divisor.item() < 2 * scale
    before = norm.divisor.clone()
    norm.update(3 * scale * normal(5000, 1), settled=True)
    assert torch.equal(norm.divisor, before)
