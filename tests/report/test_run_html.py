"""The page of `report`: whole, alone, and saying what it was told; in a browser, where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marl_stable.monitor.recording import EMPTY
from marl_stable.report import run_html, runs_html
from marl_stable.report.histograms import Histograms
from marl_stable.report.run_html import AT_FIRST
from marl_stable.report.told import Told
from tests.report.test_curves import recording
from tests.report.test_reward_html import Balanced, read

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FINDING = {
    "cause": "exploding_gradients", "confidence": 0.9, "onset_steps": 300, "where": {"network": "critic"},
    "evidence": {"norm": 5120.0}, "explanation": "It is < all.", "remedy": "Clip.", "config": {"algo.lr": 1e-3},
}  # fmt: skip
DIAGNOSIS: dict[str, Any] = {
    "verdict": "failing", "findings": [FINDING], "symptoms": ["repeated_action"], "return": -2.0,
    "actions_taken": [{"steps": 300, "action": "skipped_update", "count": 3}],
    "checked": ["exploding_gradients", "reward_offset"],
    "not_judged": [{"cause": "lazy_agent", "needs": "a finished run"}],
    "baselines": {"random": {"return": -3.0, "ci95": [-4.0, -2.0]}, "best_constant": None},
}  # fmt: skip
HEALTHY = DIAGNOSIS | {"verdict": "healthy", "findings": [], "symptoms": [], "actions_taken": []}


def incident(steps: int, value: float | None) -> dict[str, Any]:
    where = {"agent": "agent_0", "network": "critic"}
    entry = {"steps": steps, "kind": "gradient_spike", "where": where, "value": value, "limit": 2.0}
    return entry | {"action": "skipped_update"}


def histograms(places: list[str]) -> dict[str, Histograms]:
    counts = np.array([[1.0, 2.0, 1.0], [0.0, 100.0, 0.0]])
    found = Histograms(np.array([-0.5, 0.5, 1.5, 2.5]), np.array([100, 400]), counts)
    return {f"actions/{place}": found for place in places}


TOLD = Told(
    name="<i>mine</i>",
    recording=recording(),
    diagnosis=DIAGNOSIS,
    settings={"algo.name": "mappo", "env.id": "mpe2/x", "seed": 3, "algo.lr": 0.1},
    config="algo: {name: mappo}  # </pre><script>\n",
    metadata={"status": "finished", "steps": 500, "total_steps": 500, "seconds": 3.0, "device": "cpu", "reason": ""},
    incidents=[incident(200, 5.0), incident(300, 7.0), incident(300, None)],
    histograms=histograms(["agent_0/0", "agent_1/0"]),
)


def page(runs: list[Told]) -> str:
    return run_html.page(runs[0]) if len(runs) == 1 else runs_html.page(runs)


def words_of(text: str) -> str:
    return " ".join(
        " ".join(read(re.sub(r"<script.*?</script>|<style>.*?</style>", "", text, flags=re.S)).words).split()
    )


def panels(text: str) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" id="panels">(.*?)</script>', text, re.S)
    return dict(json.loads(found))


def test_it_is_one_file_with_nothing_to_fetch() -> None:
    text = page([TOLD])
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert not {"link", "img", "iframe"} & set(parser.tags)
    assert not re.search(r"https?:|<script[^>]+src|url\(|@import|\bfetch\(|XMLHttpRequest", text)
    assert "Content-Security-Policy" in text
    assert "default-src 'none'" in text


def test_it_says_what_it_was_told_and_escapes_names() -> None:
    words = words_of(page([TOLD]))
    for told in (
        "<i>mine</i>", "failing: exploding gradients, since 300 steps", "mappo on mpe2/x, 500 of 500 steps, finished",
        "last evaluation 0.75 400", "random -3", "repeated action", "It is < all.", "--algo.lr 0.001",
        "3 times skipped update, first at 300 steps", "Checked and found well (1): reward offset", "a finished run",
        "gradient spike agent agent_0, network critic skipped update 3 200 300 not finite 2", "</pre><script>",
        "Critic loss · not finite at 1 readings",
    ):  # fmt: skip
        assert told in words, told


def test_critic_loss_actor_output_and_reward_come_first_then_what_actors_chose() -> None:
    text = page([TOLD])
    titles = re.findall(r"<figcaption><b>(.*?)</b>", text)
    assert titles[:5] == ["Critic loss", "Actor output", "Reward (return per episode)", "agent_0", "agent_1"]
    assert text.index("agent_1</b>") < text.index("<h2>Diagnosis") < text.index("<h2>Gradients")


def test_its_script_is_given_every_panel_in_numbers_that_json_has() -> None:
    found = panels(page([TOLD]))
    assert len(found["panels"]) == len(re.findall('data-panel="', page([TOLD])))
    (line,) = found["panels"][0]["lines"]
    assert found["axes"][line["x"]] == [100, 200, 300, 400, 500]
    assert line["y"] == [0.0, None, 0.5, 0.75, 1.0]
    assert found["panels"][2]["levels"] == {"random": -3.0}
    heat = found["panels"][3]["heat"]
    assert (heat["shares"], heat["edges"]) == ([[25, 50, 25], [0, 100, 0]], [-0.5, 0.5, 1.5, 2.5])
    assert found["marks"] == [{"at": 300, "cause": "exploding gradients"}, {"at": 200}, {"at": 300}]


def test_many_dimensions_are_folded() -> None:
    told = replace(TOLD, histograms=histograms([f"agent_0/{d}" for d in range(AT_FIRST + 2)]))
    text = page([told])
    assert "<summary>2 more</summary>" in text
    assert f"agent_0/{AT_FIRST + 1}" in text


def test_runs_are_compared_with_the_settings_in_which_they_differ() -> None:
    other = replace(TOLD, name="other", diagnosis=HEALTHY, settings=dict(TOLD.settings) | {"algo.lr": 0.2})
    text = page([TOLD, other])
    words = words_of(text)
    assert "algo.lr 0.1 0.2" in words
    assert "algo.name" not in words
    assert "other healthy finished 500 0.75 0.75" in words
    assert [line["label"] for line in panels(text)["panels"][0]["lines"]] == ["<i>mine</i>", "other"]
    assert panels(text)["marks"] == []


def test_more_runs_than_colours_are_told_apart_by_dashes() -> None:
    lines = panels(page([replace(TOLD, name=f"run {i}") for i in range(10)]))["panels"][0]["lines"]
    looks = [(line["c"], line["dashes"]) for line in lines]
    assert looks[0] == (0, 0)
    assert looks[9] == (1, 1)
    assert len(set(looks)) == 10


def test_a_run_of_which_little_is_known_has_a_page() -> None:
    text = page([Told("x", EMPTY, HEALTHY | {"return": None, "baselines": {}})])
    assert "healthy" in words_of(text)
    assert "No incidents." in words_of(text)
    assert panels(text)["panels"] == []


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here to open the page")
def test_a_browser_draws_every_panel_without_a_complaint(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page([TOLD]).replace("<details>", "<details open>"), encoding="utf-8")
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--virtual-time-budget=5000",
    ]
    command = [str(BROWSER), *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    assert done.stdout.count("<canvas") == len(panels(file.read_text(encoding="utf-8"))["panels"]) == 8
