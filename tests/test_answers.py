"""Standard output is a command's answer and nothing else, whatever an environment prints; that goes to stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.runs import ROOT, TINY

NOISY = '''
import ctypes
import logging
import os
import sys

import numpy as np
from gymnasium import spaces

LIBC = ctypes.CDLL(None)


class Noisy:
    """Two agents step to one side or the other, for six steps, and tell everybody by every way there is."""

    metadata = {"name": "noisy"}

    def __init__(self):
        self.possible_agents, self.agents, self.render_mode = ["a", "b"], [], "rgb_array"

    def observation_space(self, agent):
        return spaces.Box(-9.0, 9.0, (2,), np.float32)

    def action_space(self, agent):
        return spaces.Discrete(2)

    def tell(self, what):
        print(what, "by print")
        os.write(1, f"{what} by descriptor\\n".encode())
        LIBC.printf(f"{what} by C\\n".encode())
        print(what, "by the stream that Python began with", file=sys.__stdout__)

    def reset(self, seed=None, options=None):
        self.tell("reset")
        random = np.random.default_rng(seed)
        self.agents, self.steps = list(self.possible_agents), 0
        self.places = {agent: random.uniform(-1, 1) for agent in self.agents}
        return self.look(), {agent: {} for agent in self.agents}

    def step(self, actions):
        self.tell("step")
        acting, self.steps = list(self.agents), self.steps + 1
        for agent in acting:
            self.places[agent] += 0.2 * (2 * actions[agent] - 1)
        over = self.steps >= 6
        self.agents = [] if over else acting
        rewards = {agent: -abs(self.places[agent]) for agent in acting}
        ends = dict.fromkeys(acting, False), dict.fromkeys(acting, over)
        return self.look(), rewards, *ends, {agent: {} for agent in acting}

    def look(self):
        return {agent: np.array([self.places[agent], self.steps], np.float32) for agent in self.possible_agents}

    def render(self):
        self.tell("render")
        return np.zeros((8, 8, 3), np.uint8)

    def close(self):
        self.tell("close")
'''
IN_TURN = """
import ctypes, json, os, sys
import pytest
from marl_stable import experiment
from marl_stable.cli import main
from marl_stable.investigate.remedies import Remedy
from marl_stable.investigate.reward import arena
from tests.investigate.doctor.hurry import hurry
from tests.runs import measure_little

patched = pytest.MonkeyPatch()
hurry(patched, 1.0)
measure_little(patched)
patched.setattr(arena, "COPIES", 4)
finding = {"cause": "learning_rate_too_high", "confidence": 0.9, "onset_steps": 0, "evidence": {}, "config": {}}
patched.setattr(experiment, "diagnose", lambda case: {"verdict": "failing", "findings": [finding]})
patched.setattr(experiment, "remedies", lambda *given: [Remedy("learning_rate_too_high", "", {"algo.lr": 1e-4})])
patched.setattr(experiment, "PAIRS", 1)
for words in json.loads(sys.argv[1]):
    assert main(words) == 0, words
    sys.stdout.flush()
    ctypes.CDLL(None).fflush(None)
    for descriptor in (1, 2):
        os.write(descriptor, b"\\0")
"""
"""Runs commands in one process, which loads torch once, and writes a zero byte after what each has printed."""
WAYS = ("print", "descriptor", "C", "the stream that Python began with")
SHORT = [word for pair in (TINY | {"--env": "noisy.py:Noisy", "--env.kwargs": "{}"}).items() for word in pair]
AS_JSON = {
    "check": (["check", "noisy.py:Noisy"], "findings"),
    "eval": (["eval", "run", "--episodes", "2"], "return"),
    "reward": (["reward", "noisy.py:Noisy"], "findings"),
    "reward of a run": (["reward", "run"], "findings"),
    "experiment": (["diagnose", "run", "--experiment"], "findings"),
    "ladder": (["ladder", *SHORT, "--rung-steps", "48"], "rungs"),
}
"""Words of a command, and a key of the object that it prints."""
AS_TEXT = {
    "render": (["render", "run", "-o", "noisy.gif", "--episodes", "1"], "noisy.gif\n"),
    "evaluated": (["eval", "run", "--episodes", "2"], "noisy.py:Noisy: 2 episodes, best checkpoint"),
}
"""Words of a command, and how its answer begins."""


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """What each command prints to standard output and standard error."""
    path = tmp_path_factory.mktemp("noisy")
    (path / "noisy.py").write_text(NOISY, encoding="utf-8")
    commands = {"train": ["train", *SHORT, "--algo.lr", "0.5", "--run-dir", "run", "--quiet"]}
    commands |= {name: [*words, "--json"] for name, (words, _) in AS_JSON.items()}
    commands |= {name: words for name, (words, _) in AS_TEXT.items()}
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", IN_TURN, json.dumps([*commands.values()])]
    done = subprocess.run(command, cwd=path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    out, err = (stream.split("\0") for stream in (done.stdout, done.stderr))
    assert out[-1] == ""  # what was held back until the process ended
    return dict(zip(commands, zip(out, err, strict=True), strict=False))


@pytest.mark.parametrize("name", AS_JSON)
def test_json_is_all_there_is_on_standard_output(name: str, printed: dict[str, tuple[str, str]]) -> None:
    assert AS_JSON[name][1] in json.loads(printed[name][0])


@pytest.mark.parametrize("name", AS_TEXT)
def test_so_is_any_other_answer(name: str, printed: dict[str, tuple[str, str]]) -> None:
    assert printed[name][0].startswith(AS_TEXT[name][1])
    assert " by " not in printed[name][0]


@pytest.mark.parametrize("name", [*AS_JSON, *AS_TEXT])
def test_environments_are_heard_on_standard_error(name: str, printed: dict[str, tuple[str, str]]) -> None:
    heard = set(printed[name][1].splitlines())
    assert heard >= {f"{what} by {way}" for what in ("reset", "step", "close") for way in WAYS}
