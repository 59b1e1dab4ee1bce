"""The ladder: what each rung brings, when one suffices, and the command from end to end."""

from __future__ import annotations

import itertools
import json
import shlex
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest

from marl_stable import configs, ladder, loop
from marl_stable.agents.config import ALGORITHMS, PLAIN, PLAIN_NETWORK, default_config
from marl_stable.cli import main
from marl_stable.cli.train import train_config
from marl_stable.config import RunConfig
from marl_stable.conversion import leaves
from marl_stable.ladder import Row
from marl_stable.report.page import flags
from marl_stable.run import Run, beginning
from tests.runs import TINY

SHORT = TINY | {"--total-steps": "48"}
FLAGS = [word for pair in SHORT.items() for word in pair]


@pytest.fixture(autouse=True)
def in_tmp_path(quick_measurements: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def resolved(text: str) -> RunConfig:
    return configs.resolve(configs.parse(text, "mine.yaml"))


def rung(text: str, number: int) -> dict[str, Any]:
    return dict(leaves(ladder.rungs(resolved(text))[number]))


# ---- the rungs


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_lowest_rung_has_no_measure_and_each_next_one_adds_some(name: str) -> None:
    preset = resolved(f"algo: {{name: {name}, lr: 0.01}}")
    bare = dict(leaves(ladder.rungs(resolved(f"measures: none\nalgo: {{name: {name}, lr: 0.01}}"))[0].algo))
    found = [dict(leaves(config.algo)) for config in ladder.rungs(preset)]
    shape = {key: value for key, value in leaves(preset.algo) if key.startswith("network.act")}
    assert found[0] == bare | shape
    changed = [{key for key in found[0] if later[key] != found[0][key]} for later in found]
    assert changed[0] == set()
    for below, above in itertools.pairwise(changed):
        assert below < above


def test_no_measure_is_left_out_of_the_ladder() -> None:
    brought = {name for _, measures in ladder.RUNGS for name in measures}
    assert brought >= {*PLAIN, *(f"network.{name}" for name in PLAIN_NETWORK)}


def test_rungs_bring_the_measures_in_the_contracts_order() -> None:
    story = (
        "measures: none\nalgo: {name: mappo, lr: 0.01, network: {hidden: [16, 16, 16, 16, 16, 16], activation: relu}}"
    )
    base = resolved(story)
    found = [ladder.difference(config, base) for config in ladder.rungs(base)]
    added = [{key: new[key] for key in new if key not in old} for old, new in zip([{}, *found], found, strict=False)]
    assert added[:5] == [
        {},
        {"algo.lr": pytest.approx(0.01 / 3), "algo.max_grad_norm": "adaptive", "algo.lr_schedule": "linear"},
        {"algo.squash": True, "algo.log_std_init": 0.3}
        | {"algo.network.activation": "tanh", "algo.network.final_init": 3e-3},
        {"algo.normalize_obs": True, "algo.normalize_value": True},
        {"algo.network.hidden": (16, 16, 16), "algo.network.norm": "layer", "algo.network.block": "residual"},
    ]
    assert added[5] == {
        "algo.weight_decay": 1e-2,
        "algo.adam_betas": (0.9, 0.99),
        "algo.network.recurrent": "gru",
    }


def test_steps_are_never_larger_than_the_defaults() -> None:
    most = default_config("mappo").lr
    found = rung("algo: {lr: 0.3, critic_lr: 0.006}", 1)
    assert found["algo.lr"] == most
    assert found["algo.critic_lr"] == pytest.approx(0.002)
    assert found["algo.actor_lr"] is None


def test_what_a_preset_says_of_a_measure_holds_from_its_rung_on() -> None:
    text = (
        "algo: {max_grad_norm: 0.5, normalize_reward: on, weight_decay: 0.1, adam_eps: 1e-5, "
        "network: {norm: batch}, critic_network: {norm: layer, final_init: 1, hidden: [8, 8, 8, 8]}}"
    )
    keys = ("max_grad_norm", "critic_network.final_init", "normalize_reward", "network.norm", "weight_decay")
    asked = (0.5, 1.0, True, "batch", 0.1)
    none = (None, None, False, "none", 0.0)
    for at, (key, value, without) in enumerate(zip(keys, asked, none, strict=True), start=1):
        assert [rung(text, number)[f"algo.{key}"] for number in range(6)] == [without] * at + [value] * (6 - at)
    assert [rung(text, number)["algo.critic_network.norm"] for number in (3, 4)] == [None, "layer"]  # as the network
    assert [rung(text, number)["algo.critic_network.hidden"] for number in (3, 4)] == [(8,) * 4, (8,) * 2]
    assert [rung(text, number)["algo.adam_eps"] for number in (4, 5)] == [1e-8, 1e-5]


def test_an_algorithm_without_memory_gets_none() -> None:
    assert rung("algo: {name: maddpg}", 5)["algo.network.recurrent"] == "none"
    assert rung("algo: {name: maddpg}", 1)["algo.huber"] == 1.0


# ---- sufficiency


def rows(*found: tuple[float | None, str], random: float | None = -30.0) -> list[Row]:
    return [
        Row(number, "", {}, value, symptoms.split(), 0, [1], random) for number, (value, symptoms) in enumerate(found)
    ]


@pytest.mark.parametrize(
    ("found", "first"),
    [
        (rows((-60, "repeated_action"), (-20, ""), (-11.1, ""), (-10, "")), 3),
        (rows((-60, "repeated_action"), (-20, ""), (-11.0, ""), (-10, "")), 2),  # within 5% of 20
        (rows((-10, "oscillation"), (-10.5, "")), 1),
        (rows((-10, "oscillation"), (-20, "")), None),  # the best one counts, whatever its symptoms
        (rows((None, "non_finite"), (-10, "")), 1),
        (rows((-31, ""), (-32, "")), None),  # nothing is better than random play
        (rows((None, ""), (None, "")), None),
        (rows((-10, ""), random=None), None),
        ([], None),
    ],
)
def test_the_first_rung_that_suffices(found: list[Row], first: int | None) -> None:
    assert ladder.suffices(found) == first


# ---- the command


def test_a_ladder_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    before = set(Path(tempfile.gettempdir()).glob("ladder-*"))
    assert main(["ladder", "mappo_simple_spread", *FLAGS, "--rung-steps", "48", "--seeds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"rungs", "suffices"}
    for number, entry in enumerate(found["rungs"]):
        assert list(entry) == ["rung", "name", "config", "return", "symptoms", "incidents", "seeds"]
        assert (entry["rung"], entry["seeds"]) == (number, [1, 2])
        assert isinstance(entry["return"], float)
    assert len(found["rungs"]) == 6
    assert list(tmp_path.iterdir()) == []
    assert set(Path(tempfile.gettempdir()).glob("ladder-*")) <= before


def test_a_rungs_flags_after_the_same_words_make_its_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["mappo_simple_spread", *FLAGS, "--stability", "off"]
    assert main(["ladder", *words, "--rung-steps", "48", "--run-dir", "rungs", "--json"]) == 0
    for entry in json.loads(capsys.readouterr().out)["rungs"]:
        ran = configs.read_run(tmp_path / "rungs" / f"rung-{entry['rung']}-s1" / "config.yaml")
        assert (ran.total_steps, ran.stability) == (48, "monitor")
        assert not any(path.name == "rung-5-s2" for path in (tmp_path / "rungs").iterdir())
        again = dict(leaves(train_config([*words, *shlex.split(flags(entry["config"]))]).algo))
        assert dict(leaves(ran.algo)) == again | {"gamma": ran.algo.gamma}  # type: ignore[attr-defined]


def test_a_ladder_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ladder", *FLAGS, "--rung-steps", "48"]) == 0
    told = capsys.readouterr()
    assert [line for line in told.err.splitlines() if line.startswith("rung 5, weight decay")]
    assert told.out.startswith("48 steps a rung, 1 seed")
    for _, (name, _) in zip(range(6), ladder.RUNGS, strict=True):
        assert name.split()[0] in told.out
    assert "random play -" in told.out
    assert "suffices" in told.out.splitlines()[-1]


@pytest.mark.parametrize(("as_json", "known"), [(["--json"], 2), ([], 2), (["--json"], 0)])
def test_what_is_known_of_an_interrupted_ladder_is_told(
    as_json: list[str], known: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[RunConfig] = []

    def start(config: RunConfig) -> Run:
        begun.append(config)
        if len(begun) > known:
            signal.raise_signal(signal.SIGINT)
        return actual(config)

    actual = beginning.start
    monkeypatch.setattr(beginning, "start", start)
    assert main(["ladder", *FLAGS, "--rung-steps", "48", *as_json]) == 130
    out = capsys.readouterr().out
    if as_json:
        found = json.loads(out)
        assert (len(found["rungs"]), found["suffices"]) == (known, None)
    else:
        assert "interrupted" in out.splitlines()[-1]
        assert "gradient clipping" in out
        assert "normalised inputs" not in out


def test_an_end_asked_for_while_a_rung_trains_ends_the_ladder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def collect(*given: Any) -> bool:
        signal.raise_signal(signal.SIGTERM)
        return actual(*given)

    actual = loop.collect
    monkeypatch.setattr(loop, "collect", collect)
    assert main(["ladder", *FLAGS, "--rung-steps", "48", "--json"]) == 130
    told = capsys.readouterr()
    assert json.loads(told.out) == {"rungs": [], "suffices": None}
    assert "resume" not in told.err  # the rung's folder is gone


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nothing", "unknown preset 'nothing'"),
        ("founding_story extra", "'extra' is one word too many; the usage is: marl-stable ladder PRESET [flags]"),
        ("--rung-step 3", "unknown flag '--rung-step'. Did you mean --rung-steps"),
        ("--rung-steps 0", "rung_steps is 0; it must be a positive number of steps."),
        ("--seeds 0", "seeds is 0; it must be at least 1."),
        ("--seeds many", "--seeds is 'many'; it must be a whole number."),
        ("--env particle/simple_spred_v3", "Did you mean particle/simple_spread_v3"),
        ("--algo.lr -1", "algo.lr is -1.0; it must be positive."),
    ],
)
def test_bad_usage_is_one_sentence(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ladder", *line.split()]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    (sentence,) = told.err.splitlines()
    assert said in sentence


def test_rungs_never_overwrite_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "rungs" / "rung-0-s1" / "checkpoints").mkdir(parents=True)
    assert main(["ladder", *FLAGS, "--rung-steps", "48", "--run-dir", "rungs"]) == 2
    assert "holds a run" in capsys.readouterr().err
