"""The loops of `docs/your_own_loop.md` run as they stand there, and faults put into them are named."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from marl_stable.diagnosing import diagnose_run
from tests.runs import ROOT

TEXT = (ROOT / "docs" / "your_own_loop.md").read_text(encoding="utf-8")
PPO, SB3 = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def executed(source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `source` leaves behind."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(compile(source, "your_own_loop.md", "exec"), names)
    return names


def test_a_plain_ppo_with_the_monitor_is_healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marked = [line for line in PPO.splitlines() if line.endswith("#*")]
    assert len(marked) <= 15
    report = executed(PPO, tmp_path, monkeypatch)["report"]
    assert (report["verdict"], report["findings"]) == ("healthy", [])
    assert report["return"] > 60
    found = diagnose_run(tmp_path / "runs" / "my_ppo")
    assert (found["verdict"], found["checked"]) == ("healthy", report["checked"])


def test_rewards_that_are_not_numbers_are_named_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = "        reward[3] = float('nan') if iteration == 9 else reward[3]\n        running += reward\n"
    faulty = PPO.replace("        running += reward\n", bad)
    faulty = faulty.replace("ITERATIONS, LR = 64, 8, 0.99, 0.95, 20", "ITERATIONS, LR = 64, 8, 0.99, 0.95, 14")
    faulty = faulty.replace("Categorical(logits=actor(", "Categorical(validate_args=False, logits=actor(")
    guess = "torch.bernoulli(logits.softmax(1)[:, 1].nan_to_num(0.5)).long()"
    faulty = faulty.replace("Categorical(logits=logits).sample()", guess)
    report = executed(faulty, tmp_path, monkeypatch)["report"]
    assert report["findings"][0]["cause"] == "reward_non_finite"


def test_stable_baselines3_as_it_stands_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("stable_baselines3")
    watch = executed(SB3, tmp_path, monkeypatch)["watch"]
    # CartPole pays 1 in every step, whatever is done
    report, found = watch.report(), diagnose_run(tmp_path / "runs" / "my_sb3")
    assert {finding["cause"] for finding in report["findings"]} <= {"no_reward_signal"}
    assert (found["verdict"], found["checked"]) == (report["verdict"], report["checked"])


def test_without_stable_baselines3_one_sentence_says_what_to_install() -> None:
    code = """
import sys
sys.modules["stable_baselines3"] = None
from marl_stable import UsageError
try:
    import marl_stable.integrations.sb3
except UsageError as error:
    sys.exit("pip install stable-baselines3" not in str(error))
sys.exit(2)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
