"""Every verdict on a tiny game that has the flaw, and none on those that have not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from marl_stable.investigate.reward import candidates, statistics, verdicts
from marl_stable.investigate.reward.debugging import described, gather
from marl_stable.investigate.reward.verdicts import size
from marl_stable.investigate.reward.verdicts.endings import bonus_unclaimed
from marl_stable.monitor.case import CAUSES
from marl_stable.monitor.diagnosis import diagnose  # noqa: F401  (registers every cause)
from tests.investigate.reward import games
from tests.investigate.reward.games import arena


def causes(game: type[games.Line], **players: Any) -> list[str]:
    return [finding.cause for finding in verdicts.judge(gather(arena(game), players))]


@pytest.mark.parametrize("game", [games.Line, games.Whole, games.Sparse, games.Potential, games.Shared])
def test_nothing_is_found_where_nothing_is_wrong(game: type[games.Line]) -> None:
    assert causes(game) == []


@pytest.mark.parametrize("game", [games.Penalty, games.Arriving])
def test_nor_where_ends_are_paid_as_they_should_be(game: type[games.Line]) -> None:
    assert causes(game) == []


@pytest.mark.parametrize(
    ("game", "cause"),
    [
        (games.Noise, "reward_uncontrollable"),
        (games.Unseeded, "reward_uncontrollable"),
        (games.Loops, "shaping_changes_task"),
        (games.Swift, "shaping_changes_task"),
        (games.Dominated, "reward_term_dominates"),
        (games.Fight, "reward_terms_conflict"),
        (games.Constant, "constant_action_is_optimal"),
        (games.Silent, "no_reward_signal"),
        (games.Hunters, "no_reward_signal"),
        (games.Lazy, "lazy_agent"),
        (games.Tiny, "reward_scale_too_small"),
        (games.Huge, "reward_scale_too_large"),
        (games.Offset, "reward_offset"),
        (games.Glitch, "reward_outliers"),
        (games.Logarithm, "reward_non_finite"),
        (games.Suicide, "episode_length_incentive"),
        (games.Alive, "episode_length_incentive"),
        (games.Lingering, "episode_length_incentive"),
    ],
)
def test_each_flaw_is_named_first(game: type[games.Line], cause: str) -> None:
    assert causes(game)[:1] == [cause]


def test_what_an_end_pays_is_not_won_by_who_never_comes_to_it() -> None:
    place = arena(games.Prize)
    random, idle = candidates.chance(place), candidates.no_op(place)
    assert not idle.play.terminated.any()
    paid = random.play.reward[random.play.terminated]
    assert bonus_unclaimed(idle, [random]) == pytest.approx(paid.mean(), rel=0.2)
    assert bonus_unclaimed(random, [random, idle]) == 0
    assert "constant_action_is_optimal" not in causes(games.Prize)


def test_a_distance_that_chance_does_not_change_is_no_offset() -> None:
    evidence = gather(arena(games.Distant))
    paid = evidence.random.play.reward[evidence.random.play.live]
    level, scale = statistics.middle(paid[:, 0])
    assert abs(level) > 500 * scale  # in random play it stands still
    assert size.reward_offset(evidence) == []


@pytest.mark.parametrize(("longest", "told"), [(40, False), (10, True)])
def test_a_reward_that_never_comes_is_known_as_far_as_was_played(longest: int, told: bool) -> None:
    place = arena(games.Silent)
    place.longest = longest
    (finding, *_) = verdicts.judge(gather(place))
    assert finding.cause == "no_reward_signal"
    assert finding.explanation.endswith("Episodes were left off after 10 steps.") is told


def test_verdicts_are_causes_of_the_diagnosis_where_it_knows_them() -> None:
    later = {"reward_uncontrollable", "reward_hacking", "episode_length_incentive", "shaping_changes_task"}
    later |= {"reward_terms_conflict", "reward_term_dominates"}
    assert set(verdicts.CHECKED) - later <= set(CAUSES)


def test_a_policy_worse_than_a_constant_is_the_training_and_not_the_reward() -> None:
    def away(obs: dict[str, torch.Tensor], _: int) -> dict[str, torch.Tensor]:
        return {"agent": -torch.sign(obs["agent"][..., 1:] - obs["agent"][..., :1])}

    found = verdicts.judge(gather(arena(games.Line), {"policy": away}))
    assert [finding.cause for finding in found] == ["unknown"]
    assert "training, and not this reward" in found[0].explanation


def test_an_expert_that_is_paid_less_than_chance_shows_that_the_reward_means_something_else() -> None:
    def to_the_mark(obs: dict[str, torch.Tensor], _: int) -> dict[str, torch.Tensor]:
        return {"agent": torch.sign(obs["agent"][..., 1:] - obs["agent"][..., :1])}

    class Away(games.Line):
        names = ("far", "effort")

        def paid(self, before: Any, after: Any, push: Any) -> list[torch.Tensor]:
            return [games.distance(after), -0.1 * push.square()]

    assert causes(Away, expert=to_the_mark)[:1] == ["reward_hacking"]
    assert causes(games.Line, expert=to_the_mark) == []


def test_what_is_printed_has_the_keys_that_were_promised() -> None:
    found = described(gather(arena(games.Line)), "line")
    assert list(found)[:4] == ["env", "terms", "baselines", "findings"]
    assert list(found["baselines"]) == ["random", "no_op", "best_constant", "policy"]
    assert found["baselines"]["policy"] is None
    assert {"return", "ci95"} <= set(found["baselines"]["random"])
    assert set(found["baselines"]["best_constant"]["action"]) == {"agent_0", "agent_1"}
    assert [(entry["name"], entry["agent"]) for entry in found["terms"]] == [
        (name, agent) for agent in ("agent_0", "agent_1") for name in ("near", "effort")
    ]
    assert all({"name", "agent", "mean", "std", "share"} <= set(entry) for entry in found["terms"])
    for agent in ("agent_0", "agent_1"):
        assert sum(e["share"] for e in found["terms"] if e["agent"] == agent) == pytest.approx(1, abs=1e-9)


def test_only_what_could_be_judged_is_said_to_be_checked() -> None:
    def nothing(obs: dict[str, torch.Tensor], _: int) -> dict[str, torch.Tensor]:
        return {"agent": 0 * obs["agent"][..., :1]}

    alone = described(gather(arena(games.Line)), "line")["checked"]
    assert set(verdicts.CHECKED) - set(alone) == {"reward_hacking"}
    assert described(gather(arena(games.Line), {"expert": nothing}), "line")["checked"] == list(verdicts.CHECKED)
    stray = described(gather(arena(games.Unseeded)), "line")["checked"]
    assert set(verdicts.CHECKED) - set(stray) == {"reward_hacking", "lazy_agent"}


def test_findings_are_as_in_the_diagnosis() -> None:
    (finding, *_) = described(gather(arena(games.Constant)), "line")["findings"]
    keys = ["cause", "confidence", "onset_steps", "where", "evidence", "explanation", "remedy", "config"]
    assert list(finding) == keys
    assert finding["evidence"]["best_constant"] > finding["evidence"]["random"]
