"""What the documents show works as it stands there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from marl_stable.cli.train import train_config
from marl_stable.envs import factory
from marl_stable.monitor.case import CAUSES
from marl_stable.monitor.diagnosis import diagnose  # noqa: F401  (registers every cause)
from marl_stable.monitor.symptoms import SYMPTOMS
from marl_stable.monitor.table import SIGNALS
from marl_stable.run.beginning import train
from marl_stable.run.resuming import resume

DOCS = Path(__file__).resolve().parents[1] / "docs"
BATCHED = (DOCS / "batched_environment.md").read_text(encoding="utf-8")


@pytest.fixture
def together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment of the document as a file in the working directory; its id."""
    (source,) = re.findall(r"```python\n(.*?)```", BATCHED, re.DOTALL)
    assert len([line for line in source.splitlines() if line.strip()]) <= 40
    monkeypatch.chdir(tmp_path)
    Path("together.py").write_text(source, encoding="utf-8")
    return "together.py:Together"


def test_a_batched_environment_of_ones_own_trains_and_goes_on(together: str) -> None:
    small: dict[str, Any] = {
        "env__num_envs": 32,
        "env__kwargs": {"length": 10},
        "algo__batch_size": 640,
        "eval_every": 0,
        "eval_episodes": 32,
        "quiet": True,
    }
    run = train(env=together, total_steps=6_000, seed=1, **small)
    assert run.status == "finished"
    assert run.returns[-1][1] > run.folder.metadata["baselines"]["random"]["return"] + 1
    resumed = resume(run.path, total_steps=6_500, quiet=True)
    assert resumed.status == "finished"
    assert resumed.incidents == []


def test_a_batched_environment_of_ones_own_keeps_its_word(together: str) -> None:
    made, twin = (factory.call(factory.load(together), together, {"length": 3}, num_envs=4, device="cpu") for _ in "ab")
    draw = torch.Generator().manual_seed(0)
    actions = [{"agent": torch.randint(3, (4, 2), generator=draw)} for _ in range(8)]
    made.reset(7)
    for action in actions[:2]:
        step = made.step(action)
        assert step.next_obs is step.obs
    state = made.state_dict()
    twin.reset(8)
    torch.testing.assert_close(twin.load_state_dict(state), step.obs, rtol=0, atol=0)
    for action in actions[2:]:
        one, other = made.step(action), twin.step(action)
        torch.testing.assert_close(one, other, rtol=0, atol=0)
        assert (one.next_obs is one.obs) is not bool(one.done.all())
    assert one.truncated["agent"].all().item() is bool(one.done.all())


def test_the_commands_of_the_document_are_understood() -> None:
    (command,) = re.findall(r"^marl-stable train (.*)$", BATCHED, re.MULTILINE)
    config = train_config(command.replace("'", "").replace('{"length": 30}', '{"length":30}').split())
    assert (config.env.id, config.env.kwargs) == ("together.py:Together", {"length": 30})


def test_the_page_on_diagnosis_is_what_the_code_says() -> None:
    writer = _script("write_diagnosis")
    page = (DOCS / "diagnosis.md").read_text(encoding="utf-8")
    assert page == writer.page(), "python docs/write_diagnosis.py writes it anew"
    told = set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
    assert told == {look.__name__ for look in SYMPTOMS} | set(CAUSES) | set(SIGNALS)


def test_the_readme_counts_causes_as_they_are() -> None:
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    changes = (DOCS.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"It looks for {len(CAUSES)} causes" in readme
    assert f"{len(CAUSES)} causes with evidence" in changes
    assert f"{len(SIGNALS)} signals of" in changes


def test_the_tables_of_the_readme_are_the_committed_results() -> None:
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    writer = _script("write_readme")
    assert len(writer.BLOCK.findall(readme)) == readme.count("<!-- end -->") >= 2
    assert readme == writer.written(readme), "python docs/write_readme.py writes them anew"


def _script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
