"""The callback with the library itself: what it hands over, and faults that are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

sb3 = pytest.importorskip("stable_baselines3")
from marl_stable.integrations.sb3 import StabilityCallback  # noqa: E402
from marl_stable.types import UsageError  # noqa: E402

SMALL: dict[str, Any] = {"seed": 1, "device": "cpu", "batch_size": 64}
REPLAY: dict[str, Any] = SMALL | {"learning_starts": 64}


class Paid(gym.RewardWrapper[Any, Any]):
    """Rewards changed by a function of themselves and the step."""

    def __init__(self, env: gym.Env[Any, Any], change: Callable[[float, int], float]) -> None:
        super().__init__(env)
        self.change, self.steps = change, 0

    def reward(self, reward: Any) -> float:
        self.steps += 1
        return self.change(float(reward), self.steps)


def ppo(steps: int, change: Callable[[float, int], float] = lambda r, n: r, **settings: Any) -> StabilityCallback:
    env = Paid(gym.make("CartPole-v1"), change)
    watch = StabilityCallback()
    sb3.PPO("MlpPolicy", env, n_steps=128, n_epochs=4, **(SMALL | settings)).learn(steps, callback=watch)
    return watch


def causes(watch: StabilityCallback) -> list[str]:
    return [finding["cause"] for finding in watch.report()["findings"]]


def test_what_a_rollout_hands_over() -> None:
    recording = ppo(512).monitor._journal.recording()
    assert recording.steps.tolist() == [128, 256, 384, 512]
    (std,) = recording.series("actions/responsiveness")
    assert len(std.values) == 4
    for signal in ("explained_variance", "return_mean", "sameness", "obs_std", "reward_mean", "entropy"):
        assert recording.series(signal), signal
    for network in ("actor", "critic"):
        assert recording.series("update_ratio", network=network)
        assert recording.series("dormant", network=network)
    assert recording.series("losses/critic")


def test_small_rewards_are_named() -> None:
    assert causes(ppo(1_280, lambda r, n: r * 1e-4))[0] == "reward_scale_too_small"


def test_a_learning_rate_a_thousand_times_too_high_is_named() -> None:
    assert causes(ppo(1_280, learning_rate=0.3))[0] == "learning_rate_too_high"


@pytest.mark.parametrize(
    ("name", "env"), [("DDPG", "Pendulum-v1"), ("TD3", "Pendulum-v1"), ("SAC", "Pendulum-v1"), ("DQN", "CartPole-v1")]
)
def test_algorithms_with_a_replay(name: str, env: str) -> None:
    watch = StabilityCallback(every=50)
    settings = REPLAY | ({"policy_kwargs": {"net_arch": [32, 32]}} if name != "DQN" else {})
    getattr(sb3, name)("MlpPolicy", env, **settings).learn(200, callback=watch)
    recording = watch.monitor._journal.recording()
    assert recording.steps.tolist() == [50, 100, 150, 200]
    for signal in ("reward_mean", "obs_std", "sameness", "grad_norm", "layer_change"):
        assert recording.series(signal), signal
    if env == "Pendulum-v1":
        (response,) = recording.series("responsiveness")
        assert np.isfinite(response.values).all()


@pytest.mark.parametrize("again", [True, False])
def test_a_model_that_goes_on_is_one_report(again: bool) -> None:
    watch = StabilityCallback(every=64)
    model = sb3.PPO("MlpPolicy", "CartPole-v1", n_steps=64, n_epochs=1, **SMALL)
    for _ in range(3):
        model.learn(128, callback=watch, reset_num_timesteps=again)
    assert watch.monitor._journal.steps == [64, 128, 192, 256, 320, 384]
    assert watch.monitor.total_steps == 384


def test_steps_with_a_replay_are_joined_where_the_library_counts_from_0_again() -> None:
    watch = StabilityCallback(every=40)
    model = sb3.DQN("MlpPolicy", "CartPole-v1", **REPLAY)
    for _ in range(4):
        model.learn(30, callback=watch)
    assert watch.monitor._journal.steps == [40, 80, 120]


def test_another_model_is_watched_anew(tmp_path: Path) -> None:
    watch = StabilityCallback(tmp_path / "seen", every=64)
    first, second = (sb3.PPO("MlpPolicy", "CartPole-v1", n_steps=64, n_epochs=1, **SMALL) for _ in range(2))
    first.learn(192, callback=watch)
    second.learn(128, callback=watch)
    assert watch.monitor._journal.steps == [64, 128]
    assert watch.monitor._journal.recording().series("layer_change", network="actor")
    assert not first.policy.optimizer._optimizer_step_pre_hooks  # the old model is let go of
    assert second.policy.optimizer._optimizer_step_pre_hooks


def test_short_rollouts_are_read_together_and_long_trainings_about_a_thousand_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch = StabilityCallback(every=50)
    model = sb3.A2C("MlpPolicy", "CartPole-v1", seed=1, device="cpu")
    model.learn(150, callback=watch)
    recording = watch.monitor._journal.recording()
    assert recording.steps.tolist() == [50, 100, 150]
    for signal in ("reward_mean", "layer_change", "losses/critic", "actions/responsiveness"):
        assert recording.series(signal), signal
    monkeypatch.setattr("marl_stable.integrations.sb3.READINGS", 2)
    watch = StabilityCallback(every=50)
    ppo = sb3.PPO("MlpPolicy", "CartPole-v1", n_steps=64, n_epochs=1, **SMALL)
    ppo.learn(384, callback=watch)
    assert watch.monitor._journal.steps == [192, 384]


def test_before_training_there_is_nothing_to_report() -> None:
    with pytest.raises(UsageError, match=r"call model\.learn"):
        StabilityCallback().report()
