"""Looking at a trained policy: the figures of `eval`, and the pictures of `render`."""

from __future__ import annotations

import json
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from marl_stable import showing
from marl_stable.acting import by_agent
from marl_stable.cli import main
from marl_stable.envs import catalog
from marl_stable.evaluation import play
from marl_stable.types import PerGroup, UsageError
from tests.runs import checkpoint, measure_little, train

MPE2 = ["--env", "mpe2/simple_spread_v3"]
TEAMS = ["--env.teams", '{"red": ["agent_0", "agent_2"], "blue": ["agent_1"]}']
RED_BY_ONE = ("one", "--against", "other", "--team", "red")
BLUE_BY_OTHER = ("other", "--against", "one", "--team", "blue")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("showing") / "run"
    with pytest.MonkeyPatch.context() as patched:
        measure_little(patched)
        assert train(path, "--quiet", "--algo.lr", "0.05") == 0
    return path


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "run")
    return Path("run")


@pytest.fixture(scope="module")
def trained_rivals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rivals")
    with pytest.MonkeyPatch.context() as patched:
        measure_little(patched)
        for seed, name in enumerate(("one", "other")):
            assert train(folder / name, *TEAMS, "--quiet", "--algo.lr", "0.05", "--seed", str(seed)) == 0
    return folder


@pytest.fixture
def rivals(trained_rivals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained_rivals, tmp_path, dirs_exist_ok=True)
    return tmp_path


def evaluate(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["eval", "run", "--json", *more]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    found: dict[str, Any] = json.loads(captured.out)
    return found


def test_json_has_the_keys_of_the_contract_and_nothing_else(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluate(capsys, "--episodes", "16", "--seed", "3")
    assert list(found) == [
        *("env", "episodes", "seed", "checkpoint", "steps", "return"),
        *("per_agent", "per_group", "episode_length", "unit"),
    ]
    assert list(found["return"]) == ["mean", "std", "iqm", "ci95"]
    assert (found["env"], found["episodes"], found["seed"]) == ("particle/simple_spread_v3", 16, 3)
    assert (found["checkpoint"], found["steps"]) == ("best", checkpoint(run, "best")["steps"])
    assert list(found["per_agent"]) == ["agent_0", "agent_1", "agent_2"]
    assert list(found["per_group"]) == ["agent"]
    assert found["return"]["mean"] == pytest.approx(np.mean(list(found["per_agent"].values())))
    assert found["per_group"]["agent"] == pytest.approx(found["return"]["mean"])
    low, high = found["return"]["ci95"]
    assert low < found["return"]["mean"] < high
    assert found["episode_length"] == 5
    assert found["unit"] == "per-agent mean, undiscounted"
    assert evaluate(capsys, "--episodes", "16", "--seed", "3") == found
    assert evaluate(capsys, "--episodes", "16", "--seed", "4")["return"] != found["return"]


def test_evaluation_is_greedy_unless_asked_otherwise_and_of_the_checkpoint_that_was_asked_for(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    greedy = evaluate(capsys, "--episodes", "16")
    drawn = evaluate(capsys, "--episodes", "16", "--stochastic")
    assert drawn["return"] != greedy["return"]
    assert evaluate(capsys, "--episodes", "16", "--stochastic") == drawn
    last = evaluate(capsys, "--checkpoint", "last")
    assert (last["checkpoint"], last["steps"], last["episodes"]) == ("last", 240, 100)
    (run / "checkpoints/best.pt").unlink()
    assert evaluate(capsys, "--episodes", "16")["checkpoint"] == "last"
    assert main(["eval", "run", "--checkpoint", "best"]) == 2
    assert "best.pt does not exist" in capsys.readouterr().err


def test_a_particle_run_is_evaluated_on_its_mpe2_twin(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluate(capsys, *MPE2, "--episodes", "16")
    assert (found["env"], found["episode_length"]) == ("mpe2/simple_spread_v3", 5)  # the run's own arguments
    assert evaluate(capsys, *MPE2, "--env.kwargs", "{}", "--episodes", "2")["episode_length"] == 25
    twin = evaluate(capsys, *MPE2, "--episodes", "150", "--seed", "1")["return"]
    own = evaluate(capsys, "--episodes", "150", "--seed", "1")["return"]
    assert abs(twin["mean"] - own["mean"]) < 4 * np.hypot(twin["std"], own["std"]) / 150**0.5


def test_words_say_what_was_played_and_with_what(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "run", "--episodes", "4", "--checkpoint", "last"]) == 0
    first, second, third, *agents = capsys.readouterr().out.splitlines()
    assert first == "particle/simple_spread_v3: 4 episodes, last checkpoint (240 steps)"
    assert second.startswith("return -")
    assert "per-agent mean, undiscounted" in third
    assert [line.split(":")[0].strip() for line in agents] == ["agent_0", "agent_1", "agent_2"]


def test_episodes_that_would_not_end_are_told_of_and_not_counted(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(showing, "play", partial(play, max_steps=8))  # of episodes of five
    asked = 2 * showing.COPIES
    assert main(["eval", "run", "--json", "--episodes", str(asked)]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["episodes"] == showing.COPIES
    assert captured.err.startswith(f"warning: only {showing.COPIES} of {asked} episodes ended;")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--env", "mpe2/simple_tag_v3"], "mpe2/simple_tag_v3 has the group 'adversary' with 3 agents"),
        (["--env.kwargs", '{"N": 4}'], "with 4 agents"),
        ([*MPE2, "--env.kwargs", '{"continuous_actions": true}'], "Evaluate on an environment with the same spaces."),
        (["--env", "particle/simple_speaker_listener_v4"], "has the group 'speaker'"),
        (["--env", "gymnasium/CartPole-v1", "--env.kwargs", "{}"], "has the group 'agent' with 1 agents, 4 features"),
        (["--env", "mpe2/simple_spred_v3"], "Did you mean mpe2/simple_spread_v3"),
        (["--env.kwargs", '{"M": 4}'], "unknown argument 'M'"),
        (["--episodes", "0"], "episodes is 0; it must be at least 1."),
        (["--seed", "-1"], "seed is -1; it must be a whole number from 0"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    run: Path, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "run", *more]) == 2
    captured = capsys.readouterr()
    (sentence,) = captured.err.splitlines()
    assert said in sentence
    assert captured.out == ""


def test_a_team_acts_by_its_run_and_the_others_by_another(rivals: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def returns(run: str, *more: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["eval", run, "--json", "--episodes", "16", *more]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    alone = returns("one")
    itself = returns("one", "--against", "one", "--team", "red")
    assert {key: value for key, value in itself.items() if key not in ("against", "team")} == alone
    assert (itself["against"], itself["team"]) == ("one", "red")
    assert list(itself["per_group"]) == ["agent_0", "agent_1"]
    mine, theirs = (returns(*words) for words in (RED_BY_ONE, BLUE_BY_OTHER))
    parts = ("return", "per_agent", "per_group", "episode_length")
    assert [mine[part] for part in parts] == [theirs[part] for part in parts]  # one and the same match
    others = [returns("one", "--against", "other", "--team", "blue"), alone, returns("other")]
    assert all(other["per_agent"] != mine["per_agent"] for other in others)


def test_a_team_plays_against_chance(rivals: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def played(*more: str) -> str:
        capsys.readouterr()
        assert main(["eval", "one", "--episodes", "8", "--against", "random", *more]) == 0
        return capsys.readouterr().out

    red = played("--team", "red")
    assert red.splitlines()[1] == "red against random"
    assert played("--team", "red") == red
    assert len({red, played("--team", "blue"), played("--team", "red", "--seed", "1")}) == 3
    drawn = played("--team", "red", "--stochastic")
    assert drawn != red
    assert played("--team", "red", "--stochastic") == drawn
    twin = played("--team", "red", *MPE2)  # with the teams of the run
    assert twin.startswith("mpe2/simple_spread_v3: 8 episodes")


def test_two_equal_policies_do_not_draw_the_same_actions(
    rivals: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, list[PerGroup]] = {"one": [], "other": []}
    sides = iter(drawn.values())

    def recording(agent: Any, generator: Any) -> Any:
        act, side = by_agent(agent, generator), next(sides)

        def recorded(obs: PerGroup) -> PerGroup:
            side.append(act(obs))
            return side[-1]

        return recorded

    monkeypatch.setattr(showing, "by_agent", recording)
    assert main(["eval", "one", "--episodes", "8", "--against", "one", "--team", "red", "--stochastic"]) == 0
    assert len(drawn["one"]) == len(drawn["other"]) == 5
    same = [(a["agent_0"] == b["agent_0"]).float().mean() for a, b in zip(drawn["one"], drawn["other"], strict=True)]
    assert np.mean(same) < 0.6


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--against random --team xyz", "unknown team 'xyz'. The teams are red, blue."),
        ("--against random --team bleu", "unknown team 'bleu'. Did you mean blue? The teams are red, blue."),
        (
            "--against random",
            "against is 'random' without a team to be played by the run; add --team, one of red, blue.",
        ),
        ("--team red", "team is 'red' without an opponent; add --against RUN or --against random."),
        ("--against nobody --team red", "'nobody' has no checkpoint to load"),
        (
            "--against plain --team red",
            "'plain' was trained with 'agent': 3, 18, Discrete(n=5, start=0, dtype='int64').",
        ),
    ],
)
def test_a_match_that_cannot_be_is_refused(
    rivals: Path, run: Path, more: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run.rename("plain")
    assert main(["eval", "one", *more.split()]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert said in sentence


def test_one_team_has_no_opponents(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in (["--against", "random", "--team", "team"], ["--team", "team"], ["--against", "random"]):
        assert main(["eval", "run", *more]) == 2
        assert "need several teams; particle/simple_spread_v3 has one" in capsys.readouterr().err


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["eval", str(tmp_path)], ["render", str(tmp_path), "-o", str(tmp_path / "x.gif")]):
        assert main(command) == 2
        assert "is not a run folder: it has no metadata.json" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def frames(path: Path) -> list[np.ndarray]:
    """A picture for each tenth of a second, which is as long as a step of mpe2 lasts."""
    found: list[np.ndarray] = []
    with Image.open(path) as image:
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            picture = np.asarray(image.convert("RGB"))
            assert image.info["duration"] % 100 == 0
            found += [picture] * (image.info["duration"] // 100)
    return found


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_a_particle_run_is_drawn_by_its_mpe2_twin(run: Path, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "run", "-o", f"new folder/x.{ending}", "--episodes", "2"]) == 0
    assert capsys.readouterr().out == f"new folder/x.{ending}\n"
    drawn = frames(Path(f"new folder/x.{ending}"))
    assert len(drawn) == 12  # two episodes of five steps, and what each begins with
    assert drawn[0].shape == (350, 350, 3)
    assert len({image.tobytes() for image in drawn}) > 6  # something moves
    corners = np.concatenate([drawn[0][:5, :5].reshape(-1, 3), drawn[0][-5:, -5:].reshape(-1, 3)])
    assert (corners > 240).all()  # mpe2's background is white
    assert ((drawn[0] < 200).any(-1)).sum() > 500  # and there is something on it


def test_pictures_are_repeated_by_their_seed_and_last_as_long_as_the_episode(run: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        showing.render(run, Path(f"{name}.gif"), "mpe2/simple_spread_v3", {"max_cycles": 8}, episodes=1, seed=seed)
    assert Path("a.gif").read_bytes() == Path("b.gif").read_bytes() != Path("c.gif").read_bytes()
    assert len(frames(Path("a.gif"))) == 9


def test_an_episode_without_an_end_is_cut(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "MOST_STEPS", 3)
    showing.render(run, Path("a.gif"), "mpe2/simple_spread_v3", {"max_cycles": 1_000_000}, episodes=2)
    assert len(frames(Path("a.gif"))) == 8


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["-o", "x.avi"], "x.avi ends in '.avi'; it must end in .gif, .webp or .mp4"),
        (["-o", "x.gif", "--episodes", "0"], "episodes is 0; it must be at least 1."),
        (["-o", "x.gif", "--seed", "-3"], "seed is -3"),
        (
            ["-o", "x.gif", "--env", "blind.py:Blind", "--env.kwargs", "{}"],
            "draws no picture with render_mode='rgb_array'",
        ),
        *(
            (["-o", "x.gif", "--env", f"blind.py:{name}", "--env.kwargs", "{}"], "draws no picture with render_mode=")
            for name in ("Unwritten", "Open")
        ),
        (
            ["-o", "x.gif", "--env", "blind.py:Broken", "--env.kwargs", "{}"],
            "blind.py:Broken failed while it was drawn: IndexError: list index out of range",
        ),
        (["-o", "x.gif", "--env", "mpe2/simple_tag_v3"], "has the group 'adversary' with 3 agents"),
        (["-o", "run/metadata.json/x.gif"], "cannot be written"),
    ],
)
def test_what_cannot_be_drawn_is_refused_and_leaves_no_file(
    run: Path, more: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("blind.py").write_text(
        "from mpe2 import simple_spread_v3\n\n"
        "def Blind(render=lambda: None):\n"
        "    env = simple_spread_v3.parallel_env()\n    env.render = render\n    return env\n\n"
        "def fail():\n    raise NotImplementedError\n\n"
        "def Unwritten():\n    return Blind(fail)\n\n"
        "def Broken():\n    return Blind(lambda: [][0])\n\n"
        "def Open():\n    env = Blind()\n    env.close = fail\n    return env\n"
    )
    assert main(["render", "run", *more]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert said in sentence
    assert not Path("x.gif").exists()
    assert not Path("x.mp4").exists()


def test_a_run_on_many_copies_is_evaluated_on_as_many(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    make = catalog.make

    def counting(config: Any, device: Any, copies: int) -> Any:
        made.append(copies)
        return make(config, device, copies)

    monkeypatch.setattr(catalog, "make", counting)
    for episodes in (3, 100):
        assert showing.evaluate(run, episodes=episodes)["episodes"] == episodes
        assert showing.evaluate(run, "mpe2/simple_spread_v3", episodes=episodes)["episodes"] == episodes
    assert made == [3, 3, 32, 32]
    with pytest.raises(UsageError, match="episodes is 0"):
        showing.evaluate(run, episodes=0)
