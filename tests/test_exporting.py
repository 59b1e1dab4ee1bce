"""Policies as programs: they act as `load_policy` does, whatever networks, actions, masks and memory there are."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import marl_stable as ms
from marl_stable import exporting
from marl_stable.agents import algorithm
from marl_stable.agents.config import default_config
from marl_stable.cli import main
from marl_stable.config import NetworkConfig
from marl_stable.networks.batchnorm import BatchNorm
from marl_stable.policy import Loaded, Policy
from marl_stable.types import Box, Discrete, EnvSpec, Group, MultiDiscrete, legal_features
from tests.runs import ROOT, TINY, measure_little

CPU = torch.device("cpu")
NAMES = ("a_0", "a_1")
DISCRETE = Discrete(4, 3)
SQUARE = Box((-1.0, 0.0, -2.0, 0.5), (1.0, 5.0, 2.0, 1.0), (2, 2))
WHOLE = Box((0.0, 0.0), (255.0, 3.0), (2,), dtype="uint8")
SEVERAL = MultiDiscrete((3, 2), (0, 5), (2,))
ALONE = Box((-2.0,), (2.0,), scalar=True, dtype="float64")
GRU, LSTM = NetworkConfig((8, 8), recurrent="gru"), NetworkConfig((8, 8), recurrent="lstm")
BATCH = NetworkConfig((8, 8), norm="batch")
RESIDUAL = NetworkConfig((8, 8), norm="layer", block="residual", activation="silu")
CASES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "mappo": ("mappo", DISCRETE, {}),
    "mappo, apart": ("mappo", DISCRETE, {"share": False}),
    "ippo, masks": ("ippo", DISCRETE, {"masked": True}),
    "mappo, box": ("mappo", SQUARE, {"network": RESIDUAL}),
    "mappo, box apart": ("mappo", SQUARE, {"share": False, "network": RESIDUAL}),
    "mappo, no squash": ("mappo", SQUARE, {"squash": False}),
    "mappo, whole numbers": ("mappo", WHOLE, {}),
    "mappo, several": ("mappo", SEVERAL, {"normalize_obs": False}),
    "mappo, a number": ("mappo", ALONE, {}),
    "mappo, gru": ("mappo", DISCRETE, {"network": GRU}),
    "ippo, lstm apart": ("ippo", SQUARE, {"network": LSTM, "share": False}),
    "mappo, gru, masks": ("mappo", DISCRETE, {"network": GRU, "masked": True}),
    "maddpg": ("maddpg", DISCRETE, {}),
    "maddpg, batch": ("maddpg", SQUARE, {"network": BATCH}),
    "maddpg, batch apart": ("maddpg", SQUARE, {"network": BATCH, "share": False}),
    "matd3, several": ("matd3", SEVERAL, {"share": False}),
    "iddpg, masks apart": ("iddpg", DISCRETE, {"masked": True, "share": False}),
}
OBSERVED = 5


def loaded(
    name: str,
    action: Any,
    masked: bool = False,
    network: NetworkConfig | None = None,
    names: tuple[str, ...] = NAMES,
    **changed: Any,
) -> Loaded:
    """An agent whose every weight and statistic is off its first value, so that none could be left out."""
    size = OBSERVED + (action.n if masked else 0)
    spec = EnvSpec("made", names, (Group("a", names, size, action, "team", masked),))
    config = replace(default_config(name), gamma=0.9, network=network or NetworkConfig((8, 8)), **changed).to_act()
    agent = algorithm(name)(spec, config, 1, CPU, seed=0)
    generator = torch.Generator().manual_seed(1)
    (learner,) = agent.learners.values()
    with torch.no_grad():
        for parameter in learner.actor.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
        for module in learner.actor.modules():
            if isinstance(module, BatchNorm):
                module.mean.copy_(torch.randn(module.mean.shape, generator=generator))
                module.var.copy_(torch.rand(module.var.shape, generator=generator) + 0.5)
    rows = 3.0 * torch.randn(64, len(names), size, generator=generator) + torch.arange(float(size))
    learner.take_in(rows, None)
    return Loaded(agent, spec, 7, "last")


def program(file: Path) -> Any:
    return torch.export.load(file).module()


def observations(group: Group, batch: int) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """`(batch, A, O)` observations, and masks `(batch, A, n)` that allow one action at least."""
    generator = np.random.default_rng(batch)
    seen = (4.0 * generator.standard_normal((batch, len(NAMES), OBSERVED))).astype(np.float32)
    if not group.masked:
        return seen, None
    masks = (generator.random((batch, len(NAMES), legal_features(group))) > 0.5).astype(np.float32)
    masks[..., 1] = 1.0
    return seen, masks


def asked(policy: Policy, seen: NDArray[np.float32], masks: NDArray[np.float32] | None) -> dict[str, Any]:
    return policy(
        {name: seen[i] for i, name in enumerate(NAMES)},
        None if masks is None else {name: masks[i] for i, name in enumerate(NAMES)},
    )


@pytest.mark.parametrize("case", CASES)
def test_a_program_acts_as_the_policy_does(case: str, tmp_path: Path) -> None:
    name, action, changed = CASES[case]
    agent = loaded(name, action, **changed)
    (group,) = agent.spec.groups
    files = exporting.write(agent, tmp_path)
    assert [file.name for file in files] == [f"{name}.pt2" for name in NAMES]
    programs, memory = [program(file) for file in files], agent.agent.learners["a"].actor.body.network.memory_size
    for batch in (1, 7):
        rows = [observations(group, 10 * batch + step) for step in range(3)]
        policies = [Policy(agent) for _ in range(batch)]
        kept = [torch.zeros(batch, memory) for _ in NAMES]
        for seen, masks in rows:  # steps of episodes side by side
            expected = [
                asked(policy, seen[b], None if masks is None else masks[b]) for b, policy in enumerate(policies)
            ]
            for i, agent_name in enumerate(NAMES):
                inputs = {} if masks is None else {"action_mask": torch.from_numpy(masks[:batch, i] > 0)}
                inputs |= {"memory": kept[i]} if memory else {}
                found = programs[i](torch.from_numpy(seen[:batch, i]), **inputs)
                found, kept[i] = found if memory else (found, kept[i])
                wanted = np.stack([actions[agent_name] for actions in expected])
                assert found.numpy().dtype == wanted.dtype
                np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-5)


def test_agents_of_one_network_have_their_own_programs_and_nothing_of_others(tmp_path: Path) -> None:
    one, other = exporting.write(loaded("mappo", SQUARE), tmp_path)
    apart = exporting.write(loaded("mappo", SQUARE, share=False), tmp_path / "apart")
    seen = torch.ones(1, OBSERVED)
    assert not torch.equal(program(one)(seen), program(other)(seen))
    weights = [sum(x.numel() for x in program(file).state_dict().values()) for file in (one, apart[0])]
    assert weights[0] == weights[1]


def test_a_program_needs_nothing_but_torch_and_says_whose_it_is(tmp_path: Path) -> None:
    file, *_ = exporting.write(loaded("mappo", SQUARE), tmp_path)
    code = f"""
import json, sys, torch
sys.modules["marl_stable"] = None
about = {{"marl_stable.json": ""}}
policy = torch.export.load({str(file)!r}, extra_files=about).module()
print(json.dumps([json.loads(about["marl_stable.json"]), policy(torch.ones(1, {OBSERVED})).tolist()]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    about, action = json.loads(done.stdout)
    assert (about["agent"], about["env"], about["algo"], about["steps"]) == ("a_0", "made", "mappo", 7)
    assert about["observation"] == {
        "size": OBSERVED, "form": "raw, as gymnasium.spaces.flatten has it", "first_category": None,
    }  # fmt: skip
    assert (about["action"]["kind"], about["action"]["high"]) == ("Box", [1.0, 5.0, 2.0, 1.0])
    assert np.shape(action) == (1, 2, 2)


@pytest.mark.parametrize("case", ["ippo, masks", "ippo, lstm apart", "maddpg, batch", "mappo, whole numbers"])
def test_onnx_acts_alike(case: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is in the dev extra")
    name, action, changed = CASES[case]
    agent = loaded(name, action, names=("a_1",), **changed)
    (group,) = agent.spec.groups
    exporting.write(agent, tmp_path)
    exporting.write(agent, tmp_path, "onnx")
    reference, session = program(tmp_path / "a_1.pt2"), runtime.InferenceSession(tmp_path / "a_1.onnx")
    assert json.loads(session.get_modelmeta().custom_metadata_map["marl_stable.json"])["agent"] == "a_1"
    memory = agent.agent.learners["a"].actor.body.network.memory_size
    for batch in (1, 5):
        seen, masks = observations(group, batch)
        inputs = {"observation": seen[:, 1]} | ({} if masks is None else {"action_mask": masks[:, 1] > 0})
        inputs |= {"memory": np.full((batch, memory), 0.1, np.float32)} if memory else {}
        assert {x.name for x in session.get_inputs()} == set(inputs)
        tensors = {key: torch.from_numpy(value) for key, value in inputs.items()}
        wanted = reference(tensors.pop("observation"), **tensors)
        wanted = wanted if memory else (wanted,)
        for found, expected in zip(session.run(None, inputs), wanted, strict=True):
            np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A speaker and a listener, who have different spaces."""
    path = tmp_path_factory.mktemp("exporting") / "run"
    flags = [word for pair in TINY.items() for word in pair]
    with pytest.MonkeyPatch.context() as patched:
        measure_little(patched)
        command = ["train", *flags, "--env", "mpe2/simple_speaker_listener_v4", "--run-dir", str(path), "--quiet"]
        assert main(command) == 0
    return path


def test_the_command_writes_a_file_for_each_agent_and_says_of_which_checkpoint(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "made" / "policies"
    for _ in range(2):  # in place of the former
        assert main(["export", str(run), "-o", str(folder), "--checkpoint", "last"]) == 0
    files = [folder / "speaker_0.pt2", folder / "listener_0.pt2"]
    told = [*map(str, files), "policies of the last checkpoint, after 240 steps"]
    assert capsys.readouterr().out.splitlines() == [*told, *told]
    assert sorted(folder.iterdir()) == sorted(files)
    policy = ms.load_policy(run, checkpoint="last")
    for group in policy.spec.groups:
        for i in range(20):
            seen = np.random.default_rng(i).standard_normal(group.obs_size).astype(np.float32)
            (agent,) = group.agents
            (found,) = program(folder / f"{agent}.pt2")(torch.from_numpy(seen).unsqueeze(0))
            assert int(found) == policy({agent: seen})[agent]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "RUN is missing"),
        (["{run}"], "-o has no value; export needs a folder"),
        (["{tmp}/none", "-o", "{tmp}/x"], "has no checkpoint to load"),
        (["{run}", "-o", "{tmp}/file"], "'{tmp}/file' cannot be written (File exists); name another folder."),
        (["{run}", "-o", "{tmp}/x", "--format", "onix"], "onix"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(
    run: Path, tmp_path: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["export", *(word.format(run=run, tmp=tmp_path) for word in words)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert told.format(tmp=tmp_path) in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_without_the_extra_onnx_says_what_to_install(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["export", str(run), "-o", str(tmp_path / "x"), "--format", "onnx"]) == 2
    assert "pip install 'marl_stable[onnx]'" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_names_that_file_systems_do_not_take_are_encoded() -> None:
    assert exporting.file_name("agent_0") == "agent_0"
    assert exporting.file_name("red/agent 0") == "red%2Fagent%200"


@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_a_program_does_not_tell_where_it_was_made(kind: exporting.Format, tmp_path: Path) -> None:
    (file,) = exporting.write(loaded("mappo", DISCRETE, names=("a_0",)), tmp_path, kind)
    whole = zipfile.ZipFile(file) if kind == "pt2" else None
    parts = [whole.read(name) for name in whole.namelist()] if whole else [file.read_bytes()]
    assert not any(b"site-packages" in part or str(ROOT).encode() in part for part in parts)


@pytest.mark.parametrize("dtype", ["float64", "float32", "int16"])
def test_an_action_is_never_outside_of_its_bounds(dtype: str, tmp_path: Path) -> None:
    bounds = (0.1, 0.7) if dtype != "int16" else (0.0, 7.0)
    action = Box((bounds[0],) * 3, (bounds[1],) * 3, (3,), dtype=dtype)
    (file,) = exporting.write(loaded("mappo", action, names=("a_0",)), tmp_path)
    found = program(file)(1e4 * torch.randn(64, OBSERVED, generator=torch.Generator().manual_seed(0))).numpy()
    low, high = np.array(bounds, dtype)
    assert found.dtype == dtype
    assert ((found >= low) & (found <= high)).all()
    assert len(np.unique(found)) > 1
