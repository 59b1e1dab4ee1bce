"""The limit of gradient norms that follows a run, and which norms are spikes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from marl_stable.clipping import LOWEST, AdaptiveClip, Spikes

CPU = torch.device("cpu")

# ---- the limit


def fed(norms: list[float], clip: AdaptiveClip | None = None) -> tuple[AdaptiveClip, list[float]]:
    """A clip after these norms of its only row, and the limits it gave."""
    clip = clip or AdaptiveClip(1, CPU)
    return clip, [float(ask(clip, norm)) for norm in norms]


def ask(clip: AdaptiveClip, *norms: float) -> Tensor:
    """The limits `(R,)` when the rows' gradients have these norms."""
    limit = clip.limit.clone()
    clip.add(torch.tensor(norms))
    return limit


def noisy(count: int, seed: int = 0, sigma: float = 0.5) -> list[float]:
    """Log-normal norms with median 1, as gradient norms are."""
    noise: list[float] = (sigma * torch.randn(count, generator=torch.Generator().manual_seed(seed))).exp().tolist()
    return noise


def test_the_limit_is_ten_until_sixty_four_norms_are_in():
    _, limits = fed(noisy(70))
    assert limits[:64] == [10.0] * 64
    assert limits[64] != 10.0


def test_the_limit_is_the_median_and_four_robust_deviations_of_log_norms():
    clip, _ = fed(noisy(512))
    logs = torch.tensor(noisy(512)).log()
    sigma = 1.4826 * float((logs - logs.median()).abs().median())
    assert float(clip.limit) == pytest.approx(math.exp(float(logs.median()) + 4 * sigma), rel=1e-3)
    clip, _ = fed([0.3] * 512)
    assert float(clip.limit) == pytest.approx(0.3 * math.exp(4 * 0.05), rel=1e-3)
    clip, _ = fed(noisy(512, sigma=5.0))
    median = torch.tensor(noisy(512, sigma=5.0)).clamp_max(10).median()
    assert float(clip.limit) <= 10.01 * float(median)


def test_usual_norms_are_hardly_ever_clipped():
    norms = noisy(3000)
    _, limits = fed(norms)
    assert sum(norm > limit for norm, limit in zip(norms, limits, strict=True)) < 15


@pytest.mark.parametrize("spike", [1e6, math.nan, math.inf])
def test_spikes_leave_the_limit_unmoved(spike: float):
    norms = noisy(600)
    spiked = [spike if t % 50 == 49 else norm for t, norm in enumerate(norms)]
    _, plain = fed(norms)
    _, hit = fed(spiked)
    assert max(hit) <= 10.0
    for one, other in zip(hit[64:], plain[64:], strict=True):
        assert one == pytest.approx(other, rel=0.15)
    clip, _ = fed(norms)
    before = float(clip.limit)
    fed([spike, *norms[:15]], clip)
    assert float(clip.limit) == pytest.approx(before, rel=0.03)


def test_a_burst_longer_than_half_the_window_does_not_lift_the_limit_to_its_height():
    clip, _ = fed(noisy(512))
    fed([1e6] * 300, clip)
    assert float(clip.limit) < 1e3


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_norms_that_are_not_finite_have_no_part_in_the_limit(value: float):
    clip, _ = fed(noisy(112))
    before = clip.limit.clone()
    fed([value] * 160, clip)
    assert torch.equal(clip.limit, before)


@pytest.mark.parametrize(("growth", "steps"), [(1.001, 3000), (1.003, 3000), (1.005, 1500)])
def test_slow_growth_is_followed_over_three_orders_of_magnitude(growth: float, steps: int):
    norms = [norm * growth**t for t, norm in enumerate(noisy(steps, sigma=0.3))]
    clip, limits = fed(norms)
    assert sum(norm > limit for norm, limit in zip(norms, limits, strict=True)) < 0.01 * steps
    assert 1 < float(clip.limit) / growth**steps < 10


def test_a_scale_far_above_the_first_limit_is_reached():
    clip, limits = fed([1e4 * norm for norm in noisy(3000)])
    assert limits[0] == 10.0
    assert float(clip.limit) > 1e4


def test_the_limit_is_never_below_the_median():
    for sigma in (0.0, 0.01, 1.0, 3.0):
        clip = AdaptiveClip(1, CPU)
        for t, norm in enumerate(noisy(700, sigma=sigma)):
            ask(clip, norm)
            if t > 64 and t % 16 == 15:
                assert float(clip.limit) > math.exp(float(clip.ring.nanmedian()))


def test_rows_have_limits_of_their_own():
    clip = AdaptiveClip(2, CPU)
    for norm in noisy(512):
        ask(clip, norm, 0.1 * norm)
    assert float(clip.limit[0] / clip.limit[1]) == pytest.approx(10, rel=1e-3)
    before = clip.limit.clone()
    for norm in noisy(160, seed=1):
        ask(clip, norm, math.nan)
    alone, _ = fed(noisy(512) + noisy(160, seed=1))
    assert clip.limit[0] == alone.limit[0] != before[0]


def test_after_a_long_silence_the_limit_is_what_first_lessons_may_weigh():
    clip, _ = fed([1e-9] * 1000)
    assert float(clip.limit) == pytest.approx(LOWEST)


# ---- spikes


def offered(spikes: Spikes, *norms: float) -> tuple[list[bool], list[bool]]:
    """Whether the rows' norms of one step are spikes, and whether they move."""
    norm = torch.tensor(norms)
    seen, moves = norm > spikes.limit, spikes.admit(norm)
    spikes.settle(moves.float())
    spikes.add(norm)
    return seen.tolist(), moves.tolist()


def after(norms: list[float]) -> Spikes:
    spikes = Spikes(1, CPU)
    for norm in norms:
        offered(spikes, norm)
    return spikes


def outcomes(spikes: Spikes, norms: list[float]) -> str:
    """A letter a step: m moved, s moved though a spike, x not moved."""
    told = [offered(spikes, norm) for norm in norms]
    return "".join("x" if not moves[0] else "s" if seen[0] else "m" for seen, moves in told)


@pytest.mark.parametrize("sigma", [0.0, 1e-4, 0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("level", [1e-6, 1.0, 1e6])
def test_of_usual_norms_none_is_a_spike_whatever_their_level_and_spread(level: float, sigma: float):
    norms = [level * norm for norm in noisy(1500, sigma=sigma)]
    assert outcomes(Spikes(1, CPU), norms) == "m" * 1500


def test_nor_are_jumps_below_tenfold_where_norms_hardly_vary():
    spikes = after([2.0 + 1e-6 * (t % 2) for t in range(128)])
    assert outcomes(spikes, [19.0] * 5) == "m" * 5
    assert outcomes(spikes, [21.0]) == "x"


def test_nor_are_norms_within_eight_deviations_where_they_vary_much():
    spikes = after(noisy(512, sigma=1.0))
    logs = torch.tensor(noisy(512, sigma=1.0)).log()
    sigma = 1.4826 * float((logs - logs.median()).abs().median()) + 1e-3
    edge = float(logs.median()) + 8 * sigma
    assert math.log(float(spikes.limit)) == pytest.approx(edge, rel=1e-4)
    assert outcomes(spikes, [math.exp(edge - 0.01), math.exp(edge + 0.01)]) == "mx"


def test_two_in_a_row_are_skipped_the_third_is_not():
    assert outcomes(after(noisy(128)), [1e6] * 6) == "xxssss"


def test_one_more_is_skipped_in_128_steps():
    spikes = after(noisy(128))
    calm = noisy(128, seed=1)
    assert outcomes(spikes, [1e6, 1e6, *calm[:64], 1e6]) == "xx" + "m" * 64 + "s"
    assert outcomes(spikes, [*calm[:80], 1e6, 1e6])[80:] == "xs"
    assert outcomes(spikes, [*calm, *calm, *calm, 1e6, 1e6, 1e6])[-3:] == "xxs"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_norms_that_are_not_finite_never_move_and_count_among_what_is_skipped(value: float):
    spikes = after(noisy(128))
    assert outcomes(spikes, [1e6, value, 1e6, value, value]) == "xxsxx"
    assert outcomes(Spikes(1, CPU), [value] * 200) == "x" * 200
    spikes = after([value] * 200 + noisy(48))
    assert outcomes(spikes, [1e6]) == "m"  # 48 norms are not enough to say
    assert outcomes(after([value] * 200 + noisy(300)), [1e6] * 3) == "xxs"


def test_a_norm_below_one_is_never_acted_upon_however_unusual():
    spikes = after([0.02 * norm for norm in noisy(128, sigma=0.1)])
    assert outcomes(spikes, [0.9] * 4) == "ssss"
    assert float(spikes.cut(torch.tensor([0.9]))) == math.inf
    assert outcomes(spikes, [1.1]) == "x"


@pytest.mark.parametrize("silence", [0.0, 1e-9, 1e-3])
def test_after_silence_no_lesson_is_skipped_or_cut(silence: float):
    spikes = after([silence] * 500)
    assert outcomes(spikes, [0.05, 0.5, 50.0, 1e6]) == "msss"
    assert float(spikes.cut(torch.tensor([1e6]))) == math.inf
    lessons = [50.0 if t % 20 == 19 else silence for t in range(500)]  # rare, and all that there is to learn
    assert "x" not in outcomes(spikes, lessons)


def test_what_is_not_skipped_is_cut_to_ten_usual_norms_at_most_and_usual_ones_are_not():
    for most in (math.inf, 1e9, 3.0):
        spikes = Spikes(1, CPU, most)
        for norm in noisy(128):
            offered(spikes, norm)
        median = float(spikes.median.exp())
        assert median < float(spikes.cut(torch.tensor([1e6]))) <= min(10 * median, most)
        assert float(spikes.cut(torch.tensor([5.0]))) == most


def test_a_level_that_lasts_is_the_new_level():
    spikes = after(noisy(512))
    told = outcomes(spikes, [1e6 * norm for norm in noisy(600, seed=1)])
    assert told.count("x") <= 2 + 600 / 128
    assert told[300:] == "m" * 300
    assert outcomes(spikes, [1e12]) == "x"


def test_spikes_leave_what_is_a_spike_unmoved():
    plain, hit = after(noisy(600)), after([1e6 if t % 10 == 9 else norm for t, norm in enumerate(noisy(600))])
    assert float(hit.limit) == pytest.approx(float(plain.limit), rel=1.5)
    assert float(hit.median) == pytest.approx(float(plain.median), abs=0.15)


def test_rows_are_judged_by_themselves():
    spikes, alone = Spikes(2, CPU), Spikes(1, CPU)
    for norm in noisy(200):
        offered(spikes, norm, 1e4 * norm)
        offered(alone, norm)
    for norm in (1e3, 1e3, 1e3, *noisy(100, seed=2)):
        seen, moves = offered(spikes, norm, 1e4)
        assert (seen[:1], moves[:1]) == offered(alone, norm)
        assert (seen[1], moves[1]) == (False, True)


def test_the_heaviest_step_is_known_with_its_age():
    for steps in (70, 600):
        norms = noisy(steps, sigma=0.1)
        norms[steps - 41] = 1e3
        spikes = after(norms)
        expected = 0.01 * 0.99**40 * 1e6
        assert float(spikes.heaviest(0.99, spikes.most)) == pytest.approx(expected, rel=1e-4)
        assert float(spikes.heaviest(0.99, torch.tensor([10.0]))) == pytest.approx(0.01 * 0.99**40 * 100, rel=1e-4)


@pytest.mark.parametrize("steps", [7, 70, 521])
@pytest.mark.parametrize("kind", [AdaptiveClip, Spikes])
def test_windows_come_back_and_go_on_bit_for_bit(kind: type[AdaptiveClip | Spikes], steps: int):
    norms = [1e3 if t % 50 > 47 else norm for t, norm in enumerate(noisy(900))]
    window, other = kind(1, CPU), kind(1, CPU)
    for norm in norms[:steps]:
        given(window, norm)
    other.load_state_dict(window.state_dict())
    for norm in norms[steps:]:
        assert torch.equal(given(window, norm), given(other, norm))


def given(window: AdaptiveClip | Spikes, norm: float) -> Tensor:
    """What the window says to a norm."""
    return ask(window, norm) if isinstance(window, AdaptiveClip) else torch.tensor(offered(window, norm))


def test_a_young_window_judges_as_a_new_one_whatever_was_known_before():
    used, new = after(noisy(200)), Spikes(1, CPU)
    assert used.limit.isfinite().all()
    used.load_state_dict(new.state_dict())
    norm = torch.tensor([1e6])
    assert torch.equal(used.limit, new.limit)
    assert used.admit(norm).tolist() == new.admit(norm).tolist() == [True]
    assert torch.equal(used.cut(norm), new.cut(norm))
