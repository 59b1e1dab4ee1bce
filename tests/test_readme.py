"""What the README shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from marl_stable.cli import COMMANDS
from marl_stable.cli.train import train_config
from marl_stable.investigate.doctor.checkup import examine
from marl_stable.run.beginning import train

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its environment as a file in the working directory; the id."""
    (source,) = (block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "ParallelEnv" in block)
    assert len([line for line in source.splitlines() if line.strip()]) <= 15
    monkeypatch.chdir(tmp_path)
    Path("meet.py").write_text(source, encoding="utf-8")
    return "meet.py:Meet"


def test_the_doctor_finds_nothing_in_its_environment(meet: str) -> None:
    assert examine(meet, {}).findings == []


def test_its_environment_has_at_most_15_lines_and_trains(meet: str) -> None:
    small: dict[str, Any] = {
        "env__num_envs": 40,
        "algo__batch_size": 800,
        "eval_every": 0,
        "eval_episodes": 20,
        "quiet": True,
    }
    run = train(env=meet, total_steps=12_000, seed=1, **small)
    assert run.status == "finished"
    baselines = run.folder.metadata["baselines"]
    assert run.returns[-1][1] > max(baselines["random"]["return"], baselines["best_constant"]["return"])


@pytest.mark.parametrize("command", re.findall(r"^marl-stable (\w+) .*$", README, re.MULTILINE))
def test_its_commands_exist(command: str) -> None:
    assert command in COMMANDS


def test_its_flags_exist() -> None:
    for flags in re.findall(r"^marl-stable train ((?:[a-z_]+ )?--(?!resume).*?)(?: +#.*)?$", README, re.MULTILINE):
        train_config(
            flags.replace("'", "").replace('{"continuous_actions": true}', '{"continuous_actions":true}').split()
        )
    for flag in re.findall(r"`--(algo\.[a-z0-9.-]+)", README):
        assert flag.replace("-", "_") in _keys(), flag


def _keys() -> set[str]:
    from marl_stable.conversion import keys

    return {key for algo in ("mappo", "maddpg") for key in keys(train_config(["--algo", algo]))}
