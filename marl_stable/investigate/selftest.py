"""`marl-stable selftest`: is the machinery sound on this machine? Seconds, for every algorithm.

Each plays the probe games, whose answers are known, and takes an update apart: on a fixed batch the critic's loss must
fall and the actor's objective rise, and one update must move every tensor. What fails says what it probably means.

Shapes: T steps, E copies, A agents, S features of the joint observation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from marl_stable.acting import by_agent
from marl_stable.agents import algorithm as algorithm_class
from marl_stable.agents.config import MAPPOConfig, default_config
from marl_stable.agents.ddpg_learner import DDPGLearner, Joint
from marl_stable.agents.ppo_learner import PPOLearner
from marl_stable.config import NetworkConfig
from marl_stable.envs.probe import GAMES, Probe
from marl_stable.evaluation import play as play_episodes
from marl_stable.report.files import to_json
from marl_stable.types import PerGroup

GAMMA = 0.8  # short enough to settle in a second, long enough to tell an end from a time limit by a third
COPIES, CPU = 64, torch.device("cpu")
SEEDS = (1, 2, 3)  # learning hangs on chance: one answer in a hundred fails with one seed, what is broken with all
FIT_STEPS, FIT_ROWS = 50, 16
EPISODES_SEED = 99

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


class Skipped(NamedTuple):
    """A question that an algorithm is not asked."""

    name: str
    algorithm: str
    reason: str


class Question(NamedTuple):
    """What is asked after a game, how far off the answer may be, and what is probably wrong beyond that."""

    game: str
    measure: Literal["return", "value", "forbidden", "non_finite"]
    tolerance: float
    meaning: str
    cause: str | None = None


FLAGS, UNTRAINED = "time_limit_as_termination", "untrained_parameters"
OTHER_POLICY = "the policy that learns is not the one that acted (its memory, masks or normaliser differ)"
QUESTIONS = (
    Question("Match", "return", 0.02, "actions do not follow what is seen, or go unrewarded", "observation_ignored"),
    Question("Match", "value", 0.1, "values of one step are wrong: its reward, or their units", "value_normalisation"),
    Question("Recall", "return", 0.02, "credit does not go back to the action of the step before"),
    Question("Recall", "value", 0.13, "rewards are credited a step too early or too late"),
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


def run(algorithms: Sequence[str], tell: Callable[[Check], None] | None = None) -> list[Check]:
    """Every check of the algorithms so called; `tell` hears of each as soon as it is made.

    What raises is a failed check. Raises UsageError for an unknown algorithm, before anything is played.
    """
    names = [default_config(name).name for name in algorithms]
    checks = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks are tiny, and threads that wait for one another many times slower
    try:
        for check in (check for name in names for check in _checks(name)):
            checks.append(check)
            if tell:
                tell(check)
    finally:
        torch.set_num_threads(threads)
    return checks


def skipped(algorithms: Sequence[str]) -> list[Skipped]:
    """What `run` does not ask, and why."""
    reason = "it has no recurrent networks"
    return [Skipped("remember", name, reason) for name in algorithms if not _remembers(name)]


def _checks(algorithm: str) -> Iterator[Check]:
    games = [game for game in ITERATIONS if game != "Remember" or _remembers(algorithm)]
    for game in games:
        yield from _guarded(game, algorithm, play)
    yield from _guarded("Aim", algorithm, overfit)
    for game in ["Aim", *(["Remember"] if "Remember" in games else [])]:
        yield from _guarded(game, algorithm, update)


def _guarded(game: str, algorithm: str, ask: Callable[[str, str], list[Check]]) -> list[Check]:
    """What `ask` finds; where it raises, a failed check that says so."""
    began = time.perf_counter()
    try:
        return ask(game, algorithm)
    except Exception as error:
        meaning = " ".join(f"it raised {type(error).__name__}: {error}".split())
        seconds = time.perf_counter() - began
        return [_check(game, ask.__name__, algorithm, (math.nan, math.nan, 0.0), seconds, meaning)]


def _check(
    game: str,
    asked: str,
    algorithm: str,
    figures: tuple[float, float, float],
    seconds: float,
    meaning: str,
    cause: str | None = None,
) -> Check:
    """`figures`: expected, found and tolerance. What is not a number is not within any tolerance."""
    expected, found, tolerance = figures
    ok = abs(found - expected) <= tolerance
    why = ("", None) if ok else (meaning, cause)
    return Check(f"{game.lower()}/{asked}", algorithm, expected, found, tolerance, ok, seconds, *why)


# ---- games with known answers


class Trained(NamedTuple):
    """An agent that has learned a game."""

    agent: Any
    env: Probe
    lowest: float  # reward paid in any step
    non_finite: float  # largest share of an update's optimiser steps whose gradient was not finite


def play(game: str, algorithm: str) -> list[Check]:
    """Learn the probe game called `game`, with another seed where the first fails, and answer its questions."""
    began = time.perf_counter()
    checks: list[Check] = []
    for seed in SEEDS:
        trained = train(game, algorithm, seed)
        checks = [_answer(algorithm, trained, question) for question in QUESTIONS if question.game == game]
        if all(check.ok for check in checks):
            break
    each = (time.perf_counter() - began) / len(checks)
    return [check._replace(seconds=each) for check in checks]


def train(game: str, algorithm: str, seed: int) -> Trained:
    """An agent after the game's iterations of 320 steps in 64 copies."""
    agent, env, obs = _begin(game, algorithm, seed)
    lowest, non_finite = math.inf, 0.0
    for _ in range(ITERATIONS[game][not _on_policy(algorithm)]):
        obs, low = _collect(agent, env, obs)
        stats = agent.update(0.0, lambda: False)
        shares = [float(x["agent"].max()) for tag, x in stats.items() if tag.startswith("non_finite/")]
        lowest, non_finite = min(lowest, low), max([non_finite, *shares])
    return Trained(agent, env, lowest, non_finite)


def _answer(algorithm: str, trained: Trained, question: Question) -> Check:
    agent, env, lowest, non_finite = trained
    if question.measure == "return":
        played = play_episodes(env, by_agent(agent), COPIES, EPISODES_SEED)
        expected, found = env.best_return, float(played.mean_returns().mean())
    elif question.measure == "value":
        expected, found = env.value(GAMMA), _first_value(agent, env)
    else:  # in the game of masks only what is forbidden costs
        expected, found = 0.0, float(lowest < 0) if question.measure == "forbidden" else non_finite
    figures = (expected, found, question.tolerance)
    return _check(question.game, question.measure, algorithm, figures, 0.0, question.meaning, question.cause)


@torch.no_grad()
def _first_value(agent: Any, env: Probe) -> float:
    """What the critic says of first observations and greedy actions, in units of reward, of those who move first."""
    learner, obs = agent.learners["agent"], env.reset(EPISODES_SEED)
    seen = learner.normalized(obs["agent"])
    if isinstance(learner, PPOLearner):
        value = learner.critic(seen.flatten(1) if learner.central else seen)
        value = learner.value_norm.inverse(value) if learner.config.normalize_value else value  # (E, A)
    else:
        action = learner.actor.encoded(agent.policy(obs)["agent"].mode())
        parts = [seen.flatten(1), action.flatten(1)] if learner.central else [seen, action]
        value = learner.critic(torch.cat(parts, dim=-1)).amin(0)  # (E, A)
    return float((value[:, 0] if env.turn_based else value).mean())


# ---- an update, taken apart


def overfit(game: str, algorithm: str) -> list[Check]:
    """50 steps on one fixed batch: the critic's loss must halve, and the actor's objective end nearer its best."""
    began = time.perf_counter()
    agent, env, obs = _begin(game, algorithm, SEEDS[0])
    _collect(agent, env, obs)
    learner = agent.learners["agent"]
    fit = _fit_ppo if isinstance(learner, PPOLearner) else _fit_ddpg
    loss, objective = fit(learner, agent.generator)
    fallen = loss[-1] / loss[0]
    reach = max(objective) - min(objective)
    risen = (objective[-1] - objective[0]) / reach if reach else 0.0  # -1 where it fell, 0 where it never moved
    each = (time.perf_counter() - began) / 2
    meanings = ("the critic does not fit a fixed batch", "the actor does not climb its own objective")
    return [
        _check(game, "critic_overfit", algorithm, (0.0, fallen, 0.5), each, meanings[0], UNTRAINED),
        _check(game, "actor_overfit", algorithm, (1.0, risen, 0.5), each, meanings[1], UNTRAINED),
    ]


def _fit_ppo(learner: PPOLearner, _: torch.Generator) -> tuple[list[float], list[float]]:
    """The critic's loss and the actor's objective (without its entropy bonus) before each step."""
    seen = learner.normalized(learner.rollout.all_obs())  # (T + 1 + K, E, A, O)
    batch, _found = learner.batch(seen, seen.flatten(2) if learner.central else seen)
    part = learner.part(batch, torch.arange(FIT_ROWS))
    steps = [learner.learn(part, 1.0, 0.0) for _ in range(FIT_STEPS)]
    return [float(step["losses/critic"]) for step in steps], [-float(step["losses/actor"]) for step in steps]


def _fit_ddpg(learner: DDPGLearner, generator: torch.Generator) -> tuple[list[float], list[float]]:
    """The same: first the critic with targets that stay, then the actor along the critic that has been fitted."""
    drawn = learner.draw(torch.arange(FIT_ROWS))
    with torch.no_grad():
        following = learner.target_actor(drawn.next_obs).mode()  # Box actions are encoded as they are
    now = Joint(drawn.obs.flatten(1), drawn.action.flatten(1))
    then = Joint(drawn.next_obs.flatten(1), following.flatten(1))
    lr = learner.config.lr
    fitted = [learner.fit_critic(drawn, following, now, then, lr) for _ in range(FIT_STEPS)]
    moved = [learner.improve_actor(drawn, now, lr, generator) for _ in range(FIT_STEPS)]
    return [float(step["losses/critic"]) for step in fitted], [-float(step["losses/actor"]) for step in moved]


def update(game: str, algorithm: str) -> list[Check]:
    """One update must change every tensor of every network, those of targets too.

    And where it weighs actions by how likely they have become, its first step must find them as likely as they were.
    """
    began, on_policy = time.perf_counter(), _on_policy(algorithm)
    at_once = {"update_epochs": 1, "num_minibatches": 1} if on_policy else {"warm_up": 0}
    network = replace(_settings(game, algorithm)["network"], final_init=None)  # answers must differ from the start
    agent, env, obs = _begin(game, algorithm, SEEDS[0], network=network, **at_once)
    _collect(agent, env, obs)
    before = {name: tensor.detach().clone() for name, tensor in _tensors(agent).items()}
    stats = agent.update(0.0, lambda: False)
    same = [name for name, tensor in _tensors(agent).items() if torch.equal(tensor, before[name])]
    meaning = f"an update does not change {', '.join(same)}"
    figures = (0.0, float(len(same)), 0.0)
    checks = [_check(game, "unchanged", algorithm, figures, 0.0, meaning, UNTRAINED)]
    if on_policy:
        figures = (0.0, float(stats["losses/approx_kl"]["agent"]), 1e-5)
        checks.append(_check(game, "first_kl", algorithm, figures, 0.0, OTHER_POLICY, "ratio_explosion"))
    each = (time.perf_counter() - began) / len(checks)
    return [check._replace(seconds=each) for check in checks]


def _tensors(agent: Any) -> dict[str, Tensor]:
    """Every parameter of every network and of its target, by name."""
    learner = agent.learners["agent"]
    networks = {part: getattr(learner, part) for part in learner.PARTS}
    found = [(part, x.named_parameters()) for part, x in networks.items() if isinstance(x, nn.Module)]
    return {f"{part}.{name}": tensor for part, named in found for name, tensor in named}


# ---- what both begin with


def _begin(game: str, algorithm: str, seed: int, **settings: Any) -> tuple[Any, Probe, PerGroup]:
    """An agent, its copies of the game, and what it sees first."""
    env = GAMES[game](COPIES, CPU)
    config = replace(default_config(algorithm), **_settings(game, algorithm) | settings)
    agent = algorithm_class(algorithm)(env.spec, config, COPIES, CPU, seed)
    obs = env.reset(seed)
    agent.initialize_statistics(obs)
    return agent, env, obs


def _settings(game: str, algorithm: str) -> dict[str, Any]:
    return (ON_POLICY if _on_policy(algorithm) else OFF_POLICY) | SETTINGS.get(game, {})


def _collect(agent: Any, env: Probe, obs: PerGroup) -> tuple[PerGroup, float]:
    """Act until it is time to learn; what to act on next, and the lowest reward."""
    lowest = math.inf
    while not agent.ready():
        step = env.step(agent.act(obs))
        agent.observe(step)
        obs, lowest = step.obs, min(lowest, float(step.reward["agent"].min()))
    return obs, lowest


def _on_policy(algorithm: str) -> bool:
    return isinstance(default_config(algorithm), MAPPOConfig)


def _remembers(algorithm: str) -> bool:
    return hasattr(default_config(algorithm), "recurrent")


# ---- in words


def report(algorithms: Sequence[str], as_json: bool, say: Callable[[str], None]) -> bool:
    """Run every check and `say` what is found: a line each as it is made, or one JSON object. Whether all passed."""
    began, skips = time.perf_counter(), skipped(algorithms)
    if as_json:
        checks = run(algorithms)
        found = {"checks": [check._asdict() for check in checks], "skipped": [skip._asdict() for skip in skips]}
        say(to_json({"passed": all(check.ok for check in checks), **found}))
    else:
        for skip in skips:
            say(f"skip  {skip.name:19}  {skip.algorithm:7}  {skip.reason}")
        checks = run(algorithms, lambda check: say(in_words(check)))
        say(f"{sum(check.ok for check in checks)} of {len(checks)} passed in {time.perf_counter() - began:.1f} s")
    return all(check.ok for check in checks)


def in_words(check: Check) -> str:
    """One line, aligned with all others; after a failure with what it probably means."""
    line = f"{'ok' if check.ok else 'FAIL':4}  {check.name:19}  {check.algorithm:7}  found {check.found:7.3f}"
    line += f"  expected {check.expected:6.3f} +- {check.tolerance:.2f}  {check.seconds:5.2f} s"
    meaning = check.meaning + (f": cause {check.cause}" if check.cause else "")
    return f"{line}  {meaning}" if meaning else line
