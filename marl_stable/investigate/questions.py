"""What the self-test asks after each game, when an answer is right, and settings that find it in seconds."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from marl_stable.agents.config import MAPPOConfig, default_config
from marl_stable.config import NetworkConfig

GAMMA = 0.8  # short enough to settle in a second, long enough to tell an end from a time limit by a third
SEEDS = (1, 2, 3)  # learning hangs on chance: one answer in a hundred fails with one seed, what is broken with all

# Everything that an answer hangs on, so that new defaults do not change what is proven.
COMMON: dict[str, Any] = {"gamma": GAMMA, "lr_schedule": "constant", "max_grad_norm": "adaptive"}
ON_POLICY: dict[str, Any] = COMMON | {
    "lr": 5e-3,
    "critic_lr": 2e-2,
    "gae_lambda": 0.95,
    "batch_size": 320,
    "num_minibatches": 2,
    "update_epochs": 4,
    "entropy_coef": 0.01,
    "target_kl": None,
    "network": NetworkConfig(hidden=(32,)),
}
OFF_POLICY: dict[str, Any] = COMMON | {
    "lr": 1e-2,
    "batch_size": 256,
    "buffer_size": 20_000,
    "steps_per_update": 32,
    "train_every": 320,
    "warm_up": 640,
    "tau": 0.4,
    "exploration_noise": 0.3,
    "final_noise": 0.05,
    "huber": 1.0,
    "normalize_reward": False,
    "action_penalty": 1e-3,
    "network": NetworkConfig(hidden=(32,), norm="none", activation="relu"),
}


class Check(NamedTuple):
    """One question and its answer; `ok` where `found` is within `tolerance` of `expected`."""

    name: str  # game/what was asked
    algorithm: str
    expected: float
    found: float
    tolerance: float
    ok: bool
    seconds: float
    meaning: str = ""  # of a failure: what is probably wrong
    cause: str | None = None  # of a failure: the cause's name in a diagnosis, where it has one


class Question(NamedTuple):
    """What is asked after a game, how far off the answer may be, and what is probably wrong beyond that."""

    game: str
    measure: Literal["return", "value", "forbidden", "non_finite"]
    tolerance: float
    meaning: str
    cause: str | None = None


FLAGS, UNTRAINED = "time_limit_as_termination", "untrained_parameters"
QUESTIONS = (
    Question("Match", "return", 0.02, "actions do not follow what is seen, or go unrewarded", "observation_ignored"),
    Question("Match", "value", 0.1, "values of one step are wrong: its reward, or their units", "value_normalisation"),
    Question("Recall", "return", 0.02, "credit does not go back to the action of the step before"),
    Question("Recall", "value", 0.11, "rewards are credited a step too early or too late"),
    Question("Endless", "value", 0.5, "truncation is treated as termination", FLAGS),
    Question("Ending", "value", 0.3, "termination is treated as truncation", FLAGS),
    Question("Roles", "return", 0.02, "agents who share a network are not told apart", "identical_policies"),
    Question("Aim", "return", 0.04, "actions are not scaled to each dimension's range", "action_range_mismatch"),
    Question("Remember", "return", 0.02, "memory is lost between steps, or while learning", "recurrent_gradients"),
    Question("Allowed", "return", 0.02, "action masks are not seen", "masking_error"),
    Question("Allowed", "forbidden", 0.0, "action masks are not obeyed", "masking_error"),
    Question("Relay", "return", 0.02, "an agent's turn does not get what is paid after it"),
    Question("Relay", "value", 0.15, "what is paid in the turns of others is counted wrongly"),
    Question("Silence", "value", 0.1, "values appear where nothing is paid", "value_normalisation"),
    Question("Silence", "non_finite", 0.0, "where all rewards are alike something is divided by zero"),
)
ITERATIONS = {  # of 320 steps: on-policy, and off-policy, of which the first two are at random
    "Match": (6, 8),
    "Recall": (14, 18),
    "Endless": (8, 9),
    "Ending": (8, 9),
    "Roles": (8, 14),
    "Aim": (8, 10),
    "Remember": (8, 0),
    "Allowed": (6, 10),
    "Relay": (12, 10),
    "Silence": (3, 4),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "Recall": {"normalize_obs": False},  # the outcome is seen as 2 or 3, and statistics would squeeze the sign
    "Remember": {"network": NetworkConfig(hidden=(32,), recurrent="gru")},
    "Silence": {"normalize_reward": True},  # by a deviation that is zero
}


def answered(
    game: str,
    asked: str,
    algorithm: str,
    figures: tuple[float, float, float],
    seconds: float,
    meaning: str,
    cause: str | None = None,
) -> Check:
    """The check of an answer; `figures`: expected, found and tolerance. No tolerance covers what is not a number."""
    expected, found, tolerance = figures
    ok = abs(found - expected) <= tolerance
    why = ("", None) if ok else (meaning, cause)
    return Check(f"{game.lower()}/{asked}", algorithm, expected, found, tolerance, ok, seconds, *why)


def settings_of(game: str, algorithm: str) -> dict[str, Any]:
    """Settings with which the algorithm learns the game."""
    return (ON_POLICY if on_policy(algorithm) else OFF_POLICY) | SETTINGS.get(game, {})


def on_policy(algorithm: str) -> bool:
    """Whether the algorithm learns from what its present policy did."""
    return isinstance(default_config(algorithm), MAPPOConfig)


def remembers(algorithm: str) -> bool:
    """Whether the algorithm has recurrent networks."""
    return hasattr(default_config(algorithm), "recurrent")
