"""The self-test passes where all is well, and names what is broken where something is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from marl_stable import returns
from marl_stable.agents import ppo, ppo_learner
from marl_stable.agents.config import ALGORITHMS
from marl_stable.agents.ddpg_learner import DDPGLearner
from marl_stable.agents.group_learner import GroupLearner
from marl_stable.agents.ppo_learner import PPOLearner
from marl_stable.buffers import ChunkedRollout, Replay, Rollout
from marl_stable.cli import main
from marl_stable.envs.probe import GAMES
from marl_stable.investigate import selftest
from marl_stable.investigate.selftest import Check, Trained
from marl_stable.networks.actor_critic import PerAgent, PolicyBody
from marl_stable.networks.heads import Categorical
from marl_stable.turns import Turns
from marl_stable.types import PerGroup, Step, UsageError

Patch = pytest.MonkeyPatch


@pytest.fixture
def one_seed(monkeypatch: Patch) -> None:
    """What is broken fails with every seed, so that one is enough to see it."""
    monkeypatch.setattr(selftest, "SEEDS", (1,))


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def failed(check: Check, meaning: str, cause: str | None) -> bool:
    """Whether it failed and says so, with what it means and the cause's name."""
    line = selftest.in_words(check)
    told = line.startswith("FAIL") and meaning in line and (cause is None or line.endswith(f"cause {cause}"))
    return not check.ok and meaning in check.meaning and check.cause == cause and told


# ---- where all is well


def test_a_sound_algorithm_passes_and_each_check_is_an_aligned_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--algo", "matd3"]) == 0
    captured = capsys.readouterr()
    skip, *lines, last = captured.out.splitlines()
    assert captured.err == ""
    assert skip.split(maxsplit=3) == ["skip", "remember", "matd3", "it has no recurrent networks"]
    assert re.fullmatch(r"(\d+) of \1 passed in \d+\.\d s", last)
    assert len(lines) == int(last.split()[0]) == 17
    assert all(line.startswith("ok ") and " matd3 " in line for line in lines)
    assert len({len(line) for line in lines}) == 1
    assert {line.split()[1].partition("/")[0] for line in lines} == {game.lower() for game in GAMES} - {"remember"}


def test_the_same_as_json(monkeypatch: Patch, capsys: pytest.CaptureFixture[str]) -> None:
    few = {game: selftest.ITERATIONS[game] for game in ("Match", "Relay", "Silence")}
    monkeypatch.setattr(selftest, "ITERATIONS", few)
    assert main(["selftest", "--algo", "mappo", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["passed"], found["skipped"]) == (True, [])
    assert len(found["checks"]) == 10
    for check in found["checks"]:
        assert check.keys() >= {"name", "algorithm", "expected", "found", "tolerance", "ok", "seconds"}
        assert abs(check["found"] - check["expected"]) <= check["tolerance"]
        assert (check["ok"], check["meaning"], check["cause"]) == (True, "", None)


def test_every_algorithm_plays_every_game_or_says_why_not(monkeypatch: Patch) -> None:
    def passed(game: str, algorithm: str) -> list[Check]:
        return [Check(f"{game.lower()}/return", algorithm, 0.0, 0.0, 0.0, True, 0.0)]

    for name in ("play", "overfit", "update"):
        monkeypatch.setattr(selftest, name, passed)
    threads = torch.get_num_threads()
    heard: list[Check] = []
    checks = selftest.run(list(ALGORITHMS), heard.append)
    assert heard == checks
    assert torch.get_num_threads() == threads
    asked = {(check.name.partition("/")[0], check.algorithm) for check in checks}
    not_asked = {(skip.name, skip.algorithm) for skip in selftest.skipped(list(ALGORITHMS))}
    assert asked | not_asked == {(game.lower(), algorithm) for game in GAMES for algorithm in ALGORITHMS}
    assert asked & not_asked == set()
    assert {question.game for question in selftest.QUESTIONS} == set(GAMES)


def test_another_seed_is_tried_where_chance_may_have_failed(monkeypatch: Patch) -> None:
    real, seeds = selftest.train, []

    def unlucky(game: str, algorithm: str, seed: int) -> Trained:
        seeds.append(seed)
        monkeypatch.setitem(selftest.ITERATIONS, "Match", (0, 0) if seed == 1 else (6, 8))
        return real(game, algorithm, seed)

    monkeypatch.setattr(selftest, "train", unlucky)
    assert all(check.ok for check in selftest.play("Match", "ippo"))
    assert seeds == [1, 2]


def test_an_unknown_algorithm_is_refused_before_anything_is_played() -> None:
    with pytest.raises(UsageError, match="Did you mean mappo"):
        selftest.run(["ippo", "mapo"], lambda check: pytest.fail("played"))


# ---- where something is broken


def test_gae_that_cuts_the_bootstrap_at_a_time_limit(monkeypatch: Patch, one_seed: None) -> None:
    def cut(reward: Tensor, value: Tensor, after: Tensor, _: Tensor, ended: Tensor, *rest: Any) -> Tensor:
        return returns.gae(reward, value, after, ended, ended, *rest)

    monkeypatch.setattr(ppo_learner, "gae", cut)
    (check,) = selftest.play("Endless", "mappo")
    assert failed(check, "truncation is treated as termination", "time_limit_as_termination")
    assert check.found < 0.7 * check.expected == pytest.approx(3.5)
    assert all(check.ok for check in selftest.play("Ending", "mappo"))


@pytest.mark.parametrize("algorithm", ["ippo", "iddpg"])
def test_swapped_flags(algorithm: str, monkeypatch: Patch, one_seed: None) -> None:
    def swapped(write: Callable[..., None]) -> Callable[..., None]:
        def store(*arguments: Any) -> None:
            step: Step = arguments[-1]
            write(*arguments[:-1], step._replace(terminated=step.truncated, truncated=step.terminated))

        return store

    monkeypatch.setattr(Rollout, "write_outcome", swapped(Rollout.write_outcome))
    monkeypatch.setattr(Replay, "write", swapped(Replay.write))
    (limit,) = selftest.play("Endless", algorithm)
    (end,) = selftest.play("Ending", algorithm)
    assert failed(limit, "truncation is treated as termination", "time_limit_as_termination")
    assert failed(end, "termination is treated as truncation", "time_limit_as_termination")


@pytest.mark.parametrize("algorithm", ["mappo", "maddpg"])
def test_rewards_stored_a_step_late(algorithm: str, monkeypatch: Patch, one_seed: None) -> None:
    def late(write: Callable[..., None]) -> Callable[..., None]:
        before: list[Any] = []

        def store(*arguments: Any) -> None:
            step: Step = arguments[-1]
            before.append(step.reward)
            write(*arguments[:-1], step._replace(reward=before[-2] if before[1:] else step.reward))

        return store

    monkeypatch.setattr(Rollout, "write_outcome", late(Rollout.write_outcome))
    monkeypatch.setattr(Replay, "write", late(Replay.write))
    checks = by_name(selftest.play("Recall", algorithm))
    assert failed(checks["recall/return"], "credit does not go back to the action of the step before", None)


def test_rewards_credited_a_step_early(monkeypatch: Patch, one_seed: None) -> None:
    def early(reward: Tensor, *rest: Any) -> Tensor:
        return returns.gae(reward.roll(-1, 0), *rest)

    monkeypatch.setattr(ppo_learner, "gae", early)
    checks = by_name(selftest.play("Recall", "mappo"))
    assert checks["recall/return"].ok  # paid at once, it is the easier for it
    assert failed(checks["recall/value"], "rewards are credited a step too early or too late", None)


def blind(monkeypatch: Patch) -> None:
    monkeypatch.setattr(GroupLearner, "normalized", lambda self, obs: torch.zeros_like(obs))


def nameless(monkeypatch: Patch) -> None:
    def introduced(self: PerAgent, x: Tensor) -> Tensor:
        return torch.cat([x, torch.zeros_like(self.identity).expand(*x.shape[:-1], x.shape[-2])], dim=-1)

    monkeypatch.setattr(PerAgent, "_introduced", introduced)


def unscaled(monkeypatch: Patch) -> None:
    monkeypatch.setattr(PolicyBody, "_scaled", lambda self, canonical: canonical.clamp(self.low, self.high))


def unmasked(monkeypatch: Patch) -> None:
    monkeypatch.setattr(PolicyBody, "_choices", lambda self, out, obs: Categorical(out, None))


def own_turns_only(monkeypatch: Patch) -> None:
    """What is paid in the turns of others is lost."""
    gae, write = returns.gae_by_turns, Turns.write

    def own_gae(reward: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        return gae(reward * rest[4], *rest)

    def own_write(self: Turns, t: int, obs: PerGroup, action: PerGroup, step: Step) -> None:
        own = {name: reward * step.alive[name] for name, reward in step.reward.items()}
        write(self, t, obs, action, step._replace(reward=own))

    monkeypatch.setattr(ppo_learner, "gae_by_turns", own_gae)
    monkeypatch.setattr(Turns, "write", own_write)


def forgetful(monkeypatch: Patch) -> None:
    real = PerAgent.sequence

    def sequence(self: PerAgent, x: Tensor, memory: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
        return real(self, x, torch.zeros_like(memory), torch.ones_like(begins))

    monkeypatch.setattr(PerAgent, "sequence", sequence)


BLIND = ("actions do not follow what is seen", "observation_ignored")
NAMELESS = ("agents who share a network are not told apart", "identical_policies")
BROKEN = [
    (blind, "Match/return", "ippo", *BLIND),
    (blind, "Match/return", "iddpg", *BLIND),
    (nameless, "Roles/return", "mappo", *NAMELESS),
    (nameless, "Roles/return", "matd3", *NAMELESS),
    (unscaled, "Aim/return", "ippo", "actions are not scaled to each dimension's range", "action_range_mismatch"),
    (unmasked, "Allowed/forbidden", "mappo", "action masks are not obeyed", "masking_error"),
    (own_turns_only, "Relay/value", "mappo", "what is paid in the turns of others is counted wrongly", None),
    (own_turns_only, "Relay/return", "maddpg", "an agent's turn does not get what is paid after it", None),
    (forgetful, "Remember/return", "ippo", "memory is lost", "recurrent_gradients"),
]


@pytest.mark.parametrize(
    ("breaks", "name", "algorithm", "meaning", "cause"), BROKEN, ids=[f"{x[0].__name__}-{x[2]}" for x in BROKEN]
)
def test_a_game_that_fails_says_what_it_means(
    breaks: Callable[[Patch], None],
    name: str,
    algorithm: str,
    meaning: str,
    cause: str | None,
    monkeypatch: Patch,
    one_seed: None,
) -> None:
    breaks(monkeypatch)
    check = by_name(selftest.play(name.partition("/")[0], algorithm))[name.lower()]
    assert failed(check, meaning, cause)


def test_a_division_by_a_deviation_of_zero(monkeypatch: Patch, one_seed: None) -> None:
    monkeypatch.setattr(ppo_learner, "normalized_advantage", lambda x, alive: (x - x.mean()) / (0 * x).std())
    checks = by_name(selftest.play("Silence", "mappo"))
    assert failed(checks["silence/non_finite"], "something is divided by zero", None)
    assert checks["silence/non_finite"].found == 1


def apart(network: str, monkeypatch: Patch, only: str = "") -> None:
    """The optimiser moves copies of the network's parameters (those whose names end so), and not the network's."""
    real = GroupLearner._add_optimizers

    def add(self: Any, *arguments: Any) -> None:
        real(self, *arguments)
        for name, parameter in getattr(self, network).named_parameters():
            if name.endswith(only):
                parameter.data = parameter.data.clone()

    monkeypatch.setattr(GroupLearner, "_add_optimizers", add)


@pytest.mark.parametrize(("network", "algorithm"), [("critic", "mappo"), ("actor", "ippo"), ("actor", "maddpg")])
def test_an_optimiser_that_holds_other_parameters(network: str, algorithm: str, monkeypatch: Patch) -> None:
    apart(network, monkeypatch)
    check = selftest.update("Aim", algorithm)[0]
    assert failed(check, f"an update does not change {network}.", "untrained_parameters")
    other = "actor" if network == "critic" else "critic"
    assert f"{other}." not in check.meaning.replace(f"target_{other}.", "")
    checks = by_name(selftest.overfit("Aim", algorithm))
    meaning = {"critic": "the critic does not fit a fixed batch", "actor": "the actor does not climb"}[network]
    assert failed(checks[f"aim/{network}_overfit"], meaning, "untrained_parameters")
    assert checks[f"aim/{other}_overfit"].ok


def test_a_memory_that_is_not_the_one_acted_on(monkeypatch: Patch) -> None:
    real = ChunkedRollout.write_memory
    monkeypatch.setattr(ChunkedRollout, "write_memory", lambda self, t, x: real(self, t, torch.zeros_like(x)))
    moved, first = selftest.update("Remember", "mappo")
    assert moved.ok
    assert failed(first, "the policy that learns is not the one that acted", "ratio_explosion")


def test_a_single_tensor_left_out_is_named(monkeypatch: Patch) -> None:
    apart("actor", monkeypatch, only="free_log_std")
    check = selftest.update("Aim", "mappo")[0]
    assert failed(check, "an update does not change actor.free_log_std", "untrained_parameters")
    assert check.found == 1


def test_targets_that_never_follow(monkeypatch: Patch) -> None:
    monkeypatch.setattr(DDPGLearner, "follow", lambda self: None)
    (check,) = selftest.update("Aim", "matd3")
    assert failed(check, "target_actor.", "untrained_parameters")
    names = check.meaning.removeprefix("an update does not change ").split(", ")
    assert {name.partition(".")[0] for name in names} == {"target_actor", "target_critic"}


def test_an_actor_that_goes_down(monkeypatch: Patch) -> None:
    real = ppo.policy_loss

    def down(*arguments: Any, **settings: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, stats = real(*arguments, **settings)
        return -loss, stats

    monkeypatch.setattr(ppo_learner, "policy_loss", down)
    checks = by_name(selftest.overfit("Aim", "ippo"))
    assert failed(checks["aim/actor_overfit"], "the actor does not climb its own objective", "untrained_parameters")
    assert checks["aim/actor_overfit"].found < 0
    assert checks["aim/critic_overfit"].ok


def test_what_raises_has_failed_and_the_rest_goes_on(monkeypatch: Patch, capsys: pytest.CaptureFixture[str]) -> None:
    def learn(self: PPOLearner, *arguments: Any) -> None:
        raise RuntimeError("expected two\ntensors")

    monkeypatch.setattr(PPOLearner, "learn", learn)
    assert main(["selftest", "--algo", "ippo"]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert last.startswith("0 of 13 passed in ")
    assert all(
        line.startswith("FAIL") and line.endswith("it raised RuntimeError: expected two tensors") for line in lines
    )
    assert main(["selftest", "--algo", "ippo", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is False
    assert found["checks"][0]["found"] is None
