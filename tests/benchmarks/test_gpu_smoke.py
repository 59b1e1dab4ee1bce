"""What compares the devices must tell arithmetic that is wrong from arithmetic that is rounded."""

from __future__ import annotations

import pytest

from benchmarks.gpu_smoke import ALGORITHMS, CLOSE, CPU, ONE_UPDATE, apart, losses
from marl_stable.agents.config import MADDPGConfig, default_config

ROUNDING = 1e-7  # of float32, relative


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_rounding_stays_far_below_what_is_called_close(algo: str):
    assert max(apart(losses(algo, CPU), losses(algo, CPU, nudge=ROUNDING)).values()) < CLOSE / 4


def test_rounding_grows_through_the_many_updates_of_a_usual_iteration():
    many = {name: getattr(MADDPGConfig, name) for name in ONE_UPDATE}
    assert max(apart(losses("maddpg", CPU, **many), losses("maddpg", CPU, nudge=ROUNDING, **many)).values()) > CLOSE


@pytest.mark.parametrize("algo", ["ippo", "maddpg", "matd3"])
def test_steps_a_little_too_large_are_not_close(algo: str):
    lr = 1.03 * default_config(algo).lr
    assert max(apart(losses(algo, CPU), losses(algo, CPU, lr=lr)).values()) > CLOSE


def test_a_loss_that_comes_in_some_iterations_alone_is_compared():
    rows = [{"losses/critic": 1.0}, {"losses/critic": 1.0, "losses/actor": 2.0}]
    assert apart(rows, [rows[0], {"losses/critic": 1.1, "losses/actor": 1.0}]) == pytest.approx(
        {"losses/critic": 0.1, "losses/actor": 0.5}
    )
