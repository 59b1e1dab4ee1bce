"""The loop: what is told when and in which order, and whether the figures are those of what really happened."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from marl_stable import loop
from marl_stable import observer as observer_module
from marl_stable.cli import main
from marl_stable.evaluation import Episodes
from marl_stable.loop import EVAL_SEED
from marl_stable.monitor.table import SIGNALS, signal_of
from marl_stable.report.metrics import read_metrics
from marl_stable.training import is_due
from tests.runs import checkpoint, metadata, train

# Writes down what every copy was given and gave back, step by step; episodes of three to five steps.
DIARY = """
from tests.envs.fakes import Walk

class Diary(Walk):
    copies = []

    def __init__(self):
        super().__init__(agents=2)
        self.episodes = []  # the rewards of each episode's steps, (T, A)
        Diary.copies.append(self)

    def reset(self, seed=None, options=None):
        self.length = 3 + seed % 3
        self.episodes.append([])
        return super().reset(seed)

    def step(self, actions):
        result = super().step(actions)
        self.episodes[-1].append([result[1][agent] for agent in self.possible_agents])
        return result
"""


@pytest.fixture(autouse=True)
def in_tmp_path(quick_measurements: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("diary.py").write_text(DIARY)


@pytest.mark.parametrize(
    ("every", "before", "now", "due"),
    [
        (100, 0, 99, False),
        (100, 0, 100, True),
        (100, 100, 150, False),
        (100, 99, 301, True),
        (100, 100, 200, True),
        (1, 5, 6, True),
        (0, 0, 1_000, False),
    ],
)
def test_something_is_due_where_a_multiple_was_passed(every: int, before: int, now: int, due: bool) -> None:
    assert is_due(every, before, now) == due


def test_observers_are_told_in_the_order_in_which_things_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Spy(observer_module.RunObserver):
        def logged(self, steps: int, row: Any, found: Any, counts: Any) -> None:
            told.append(f"logged {steps}")
            super().logged(steps, row, found, counts)

        def evaluated(self, training: Any, episodes: Any) -> None:
            told.append(f"evaluated {training.steps}, {len(episodes.lengths)} episodes")
            super().evaluated(training, episodes)

        def save(self, training: Any) -> None:
            told.append(f"saved {training.steps}")
            super().save(training)

    monkeypatch.setattr("marl_stable.run.conducting.RunObserver", Spy)
    more = ["--eval-every", "96", "--eval-episodes", "5", "--checkpoint-every", "144", "--total-steps", "192"]
    assert train(Path("run"), *more, "--quiet") == 0
    assert told == [
        "saved 0",
        "logged 48",
        *("logged 96", "evaluated 96, 5 episodes"),
        *("logged 144", "saved 144"),
        *("logged 192", "evaluated 192, 5 episodes"),
        "saved 192",
    ]


def test_figures_are_those_of_the_episodes_that_ended_in_the_iteration() -> None:
    more = ["--env", "diary.py:Diary", "--env.kwargs", "{}", "--env.num-envs", "4", "--eval-every", "0", "--quiet"]
    assert train(Path("run"), *more) == 0
    (module,) = [m for name, m in sys.modules.items() if name.startswith("marl_stable_env_") and hasattr(m, "Diary")]
    copies = [copy.episodes for copy in module.Diary.copies[:4]]  # the training copies are made first
    searched = next(i for i, episode in enumerate(copies[0]) if episode)
    assert len(copies[0].pop(searched)) == 1  # played before training, to look for reward terms
    read = read_metrics(Path("run/metrics.csv"))
    steps = [0, *(int(s) // 4 for s in read["steps"])]  # of each copy
    for i, (begin, end) in enumerate(pairwise(steps)):
        returns: list[float] = []
        lengths: list[int] = []
        rewards: list[float] = []
        for episodes in copies:
            t = 0
            for episode in episodes:
                for step in episode:
                    t += 1
                    rewards += step if begin < t <= end else []
                whole = len(episode) > 0 and (episode is not episodes[-1])
                if begin < t <= end and whole:
                    returns.append(np.sum(episode, axis=0).mean())
                    lengths.append(len(episode))
        assert read["charts/return"][i] == pytest.approx(np.mean(returns), rel=1e-5)
        assert read["charts/episode_length"][i] == pytest.approx(np.mean(lengths))
        assert read["rewards/mean"][i] == pytest.approx(np.mean(rewards), rel=1e-5)
        assert read["rewards/std"][i] == pytest.approx(np.std(rewards), rel=1e-4)


def test_an_evaluation_in_training_is_the_one_that_eval_repeats(capsys: pytest.CaptureFixture[str]) -> None:
    for env in ("particle/simple_spread_v3", "mpe2/simple_spread_v3"):
        run = Path(env.partition("/")[0])
        assert train(run, "--env", env, "--quiet", "--seed", "5") == 0
        capsys.readouterr()
        same = ["--checkpoint", "last", "--episodes", "8", "--seed", str(5 + EVAL_SEED), "--json"]
        assert main(["eval", str(run), *same]) == 0
        assert json.loads(capsys.readouterr().out)["return"]["mean"] == metadata(run)["returns"][-1][1]
        read = read_metrics(run / "metrics.csv")
        assert read["eval/return"][-1] == metadata(run)["returns"][-1][1]


def test_with_several_groups_there_are_figures_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(Path("run"), "--env", "particle/simple_speaker_listener_v4", "--quiet") == 0
    read = read_metrics(Path("run/metrics.csv"))
    parts = [tag.removesuffix("/speaker") for tag in read if tag.endswith("/speaker")]
    assert {"losses/critic", "losses/actor", "grad_norm/actor", "charts/return", "eval/return"} <= set(parts)
    largest = [tag for tag in parts if SIGNALS.get(signal_of(tag)[0], SIGNALS["alive"]).told_as == "max"]
    for tag in parts:  # one agent in each
        both = (np.max if tag in largest else np.mean)([read[f"{tag}/speaker"], read[f"{tag}/listener"]], axis=0)
        assert np.allclose(read[tag], both, equal_nan=True), tag
    assert read["losses/entropy/speaker"] != read["losses/entropy/listener"]


@pytest.mark.parametrize(("teams", "kept"), [("none", 96), ('{"a": ["agent_0"], "b": ["agent_1", "agent_2"]}', 240)])
def test_where_teams_compete_the_latest_policy_is_kept_and_else_the_best(
    teams: str, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = iter(range(0, -9, -1))  # every evaluation is worse than the one before
    found = Episodes(np.zeros((8, 3)), np.ones(8, np.int64))
    monkeypatch.setattr(loop, "play_unless", lambda *ignored: found._replace(returns=found.returns + next(worse)))
    assert train(Path("run"), "--env.teams", teams, "--quiet") == 0
    assert metadata(Path("run"))["returns"] == [[96, 0.0], [192, -1.0], [240, -2.0]]
    assert checkpoint(Path("run"), "best")["steps"] == kept
    tags = set(read_metrics(Path("run/metrics.csv")))
    assert {"eval/return/agent_0", "eval/return/agent_1", "charts/return/agent_1"} <= tags or teams == "none"


def test_going_on_never_gives_up_a_better_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The evaluation at a run's end is later than its last checkpoint, which does not know of it."""
    values = iter([1.0, 2.0, 9.0, 5.0, 6.0, 10.0, 3.0, 4.0])
    found = Episodes(np.zeros((8, 3)), np.ones(8, np.int64))
    monkeypatch.setattr(loop, "play_unless", lambda *ignored: found._replace(returns=found.returns + next(values)))

    def go_on(to: int) -> int:
        assert main(["train", "--resume", "run", "--total-steps", str(to), "--quiet"]) == 0
        return int(checkpoint(Path("run"), "best")["steps"])

    assert train(Path("run"), "--quiet") == 0
    assert checkpoint(Path("run"), "best")["steps"] == 240
    assert go_on(384) == 240  # 5 and 6
    assert go_on(480) == 480
    Path("run/checkpoints/best.pt").unlink()
    assert go_on(576) == 576  # a worse one than none


@pytest.mark.parametrize(("continuous", "dimensions"), [(False, 1), (True, 5)], ids=["discrete", "continuous"])
def test_tensorboard_counts_every_agents_actions_now_and_then(continuous: bool, dimensions: int) -> None:
    kwargs = json.dumps({"max_cycles": 5, "continuous_actions": continuous})
    assert train(Path("run"), "--env.kwargs", kwargs, "--total-steps", "528", "--eval-every", "0", "--quiet") == 0
    log = EventAccumulator("run", {"histograms": 0})
    log.Reload()
    names = {f"actions/agent_{a}/{d}" for a in range(3) for d in range(dimensions)}
    assert set(log.Tags()["histograms"]) == names
    for name in names:
        events = log.Histograms(name)
        assert [event.step for event in events] == [48, 528]  # every tenth iteration
        assert [event.histogram_value.num for event in events] == [48, 48]
        limits = events[0].histogram_value.bucket_limit
        assert (min(limits), max(limits)) == (pytest.approx(-15 / 16), 1) if continuous else (0.5, 4.5)


def test_speed_is_that_of_collecting_and_learning(monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(Path("run"), "--quiet") == 0
    read = read_metrics(Path("run/metrics.csv"))
    assert all(speed > 0 for speed in read["charts/steps_per_second"])
    between = np.diff([0.0, *read["seconds"]])
    assert (48 / np.array(read["charts/steps_per_second"]) <= between + 1e-6).all()
