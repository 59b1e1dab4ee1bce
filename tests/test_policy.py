"""A policy by itself: dictionaries in, dictionaries out, whatever agents, spaces and masks there are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray

import marl_stable as ms
from marl_stable import checkpoint, showing
from marl_stable.agents import algorithm
from marl_stable.agents.config import IDDPGConfig, IPPOConfig, MAPPOConfig
from marl_stable.agents.mappo import MAPPO
from marl_stable.config import NetworkConfig
from marl_stable.envs import catalog
from marl_stable.envs.groups import groups_of
from marl_stable.envs.pettingzoo import ParallelCopy
from marl_stable.envs.spaces import observation_writer
from marl_stable.policy import Loaded, Policy, load_agent
from marl_stable.types import Box, Discrete, EnvSpec, Group, MultiDiscrete, comparable, spec_from_dict, spec_to_dict
from tests.envs.fakes import Walk
from tests.runs import ROOT, assert_equal, measure_little, train

CPU = torch.device("cpu")

# Three kinds of agents: numbered from 3, two of a kind in a box of two by two, and one that sees a category of four.
SPEC = EnvSpec(
    "mixed",
    ("walker_0", "arm_0", "walker_1", "reader_0"),
    (
        Group("walker", ("walker_0", "walker_1"), 2, Discrete(4, 3), "team"),
        Group("arm", ("arm_0",), 3, Box((-1.0, 0.0, -2.0, 0.0), (1.0, 5.0, 2.0, 1.0), (2, 2)), "team"),
        Group("reader", ("reader_0",), 4, Discrete(2), "team"),
    ),
)
OBSERVATIONS: dict[str, Any] = {
    "walker_0": np.array([0.5, -1.0], np.float32),
    "walker_1": np.array([-2.0, 0.25], np.float64),
    "arm_0": np.array([[1.0], [2.0], [3.0]], np.float32),
    "reader_0": np.int64(2),
}


def make(deterministic: bool = True, seed: int = 0) -> Policy:
    """Untrained, with large random last layers, so that actions differ from observation to observation."""
    config = replace(MAPPOConfig(), gamma=0.9, batch_size=1, num_minibatches=1)
    agent = MAPPO(SPEC, replace(config, network=NetworkConfig((8,), final_init=2.0)), 1, CPU, seed=3)
    return Policy(Loaded(agent, SPEC, 0, "last"), deterministic, seed)


def draws(policy: Policy, count: int, agent: str, **masks: Any) -> list[Any]:
    return [policy(OBSERVATIONS, **masks)[agent] for _ in range(count)]


def test_actions_are_of_the_spaces_of_their_agents() -> None:
    for deterministic in (True, False):
        actions = make(deterministic)(OBSERVATIONS)
        assert list(actions) == ["walker_0", "walker_1", "arm_0", "reader_0"]
        for agent, legal in (("walker_0", {3, 4, 5, 6}), ("walker_1", {3, 4, 5, 6}), ("reader_0", {0, 1})):
            assert type(actions[agent]) is np.int64
            assert actions[agent] in legal
        arm: NDArray[np.float32] = actions["arm_0"]
        assert (arm.shape, arm.dtype.name) == ((2, 2), "float32")
        assert (np.array([[-1, 0], [-2, 0]]) <= arm).all()
        assert (arm <= np.array([[1, 5], [2, 1]])).all()


def saved(spec: EnvSpec) -> EnvSpec:
    return spec_from_dict(json.loads(json.dumps(spec_to_dict(spec))))


def untrained(algo: str, spec: EnvSpec, deterministic: bool = True, apart: float = 3.0) -> Policy:
    """Of a spec as a run folder keeps it; how far `apart` the answers lie is the size of the last layer."""
    config = {"ippo": IPPOConfig, "iddpg": IDDPGConfig}[algo](gamma=0.9, network=NetworkConfig((8,), final_init=apart))
    return Policy(Loaded(algorithm(algo)(spec, config.to_act(), 1, CPU, seed=1), saved(spec), 0, "last"), deterministic)


BOOL: Any = bool  # Gymnasium takes it, and its types do not say so
ACTION_SPACES = [
    *(spaces.Discrete(3), spaces.Discrete(3, start=-1), spaces.Discrete(4, start=2, dtype=np.int32)),
    *(spaces.MultiDiscrete([2, 5]), spaces.MultiDiscrete([2, 5], start=np.array([-1, 3])), spaces.MultiBinary(3)),
    *(spaces.MultiDiscrete([4], dtype=np.int32), spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), dtype=np.uint8)),
    *(spaces.MultiDiscrete(np.array(4)), spaces.MultiBinary([2, 2]), spaces.MultiBinary(1)),
    *(spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (1, 2)), spaces.Box(-1.0, 1.0, ()), spaces.Box(-1, 1, (1,))),
    *(spaces.Box(-0.1, 0.1, (1,), np.float64), spaces.Box(-0.1, 0.1, (2, 1), np.float16)),
    *(spaces.Box(0, 10, (2,), np.int64), spaces.Box(0, 255, (2,), np.uint8), spaces.Box(-3, 4, (), np.int32)),
    *(spaces.Box(0, 255, (2, 2), np.uint8), spaces.Box(np.array([-9, 0]), np.array([0, 3]), dtype=np.int16)),
    spaces.Box(0, 1, (2,), BOOL),
]


@pytest.mark.parametrize("algo", ["ippo", "iddpg"])
@pytest.mark.parametrize("space", ACTION_SPACES, ids=lambda space: f"{space}-{space.dtype}")
def test_actions_are_those_that_training_gives_the_environment(space: Any, algo: str) -> None:
    env = Walk(agents=2, action=space)
    copy = ParallelCopy(env, "walk")
    copy.reset(1)
    policy, drawing = untrained(algo, copy.spec), untrained(algo, copy.spec, deterministic=False)
    for obs in ([[3.0, -2.0], [-9.0, 4.0]], [[0.1, 0.0], [60.0, 70.0]]):
        rows = torch.tensor([obs])
        ((name, answer),) = policy._agent.policy({"agent": rows}).items()
        copy.step({name: policy._agent.to_env({name: answer.mode()})[name][0].numpy()})
        actions = policy({agent: rows[0, i].numpy() for i, agent in enumerate(env.possible_agents)})
        drawn = drawing({agent: rows[0, i].numpy() for i, agent in enumerate(env.possible_agents)})
        for agent, received in env.received[-1].items():
            assert type(actions[agent]) is type(received)
            assert (actions[agent].dtype, actions[agent].shape) == (received.dtype, received.shape)
            assert np.array_equal(actions[agent], received)
            assert space.contains(actions[agent])
            assert space.contains(drawn[agent])


def test_a_bound_that_float32_does_not_have_is_kept() -> None:
    space = spaces.Box(-0.1, 0.1, (1,), np.float64)
    copy = ParallelCopy(Walk(1, action=space), "walk")
    policy = untrained("iddpg", copy.spec, apart=1e4)
    reached = [policy({"agent_0": [size, -size]})["agent_0"] for size in (-1.0, 1.0)]
    assert all(space.contains(action) for action in reached)
    assert {abs(action.item()) for action in reached} == {0.1}


@pytest.mark.parametrize(
    "space",
    [spaces.Discrete(5), spaces.Discrete(5, start=1), spaces.Discrete(3, start=-1), spaces.Discrete(1, start=4)],
)
def test_a_category_lights_the_feature_that_it_lit_in_training(space: Any) -> None:
    groups = groups_of(["a_0"], {"a_0": space}, {"a_0": spaces.Box(-1, 1, (3,))}, {"a_0": "team"})
    policy = untrained("ippo", EnvSpec("one", ("a_0",), groups))
    seen = []
    for category in range(space.start, space.start + space.n):
        row = np.zeros(space.n, np.float32)
        observation_writer(space)(row, np.int64(category))
        seen.append(policy({"a_0": np.int64(category)})["a_0"].tolist())
        assert seen[-1] == policy({"a_0": row})["a_0"].tolist()
    assert len({tuple(action) for action in seen}) == space.n
    last = space.start + space.n - 1
    for stranger in (space.start - 1, last + 1):
        wanted = f"the observation of a_0 is {stranger}; in training it was a category from {space.start} to {last}"
        with pytest.raises(ms.UsageError, match=wanted):
            policy({"a_0": stranger})


def test_a_category_beside_a_mask_has_its_number_as_well() -> None:
    mask = spaces.Box(0, 1, (2,), np.int8)
    space = spaces.Dict({"observation": spaces.Discrete(4, start=2), "action_mask": mask})
    (group,) = groups_of(["a_0"], {"a_0": space}, {"a_0": spaces.Discrete(2)}, {"a_0": "team"})
    assert (group.first_category, group.obs_size) == (2, 6)
    vector = spaces.Dict({"observation": spaces.Box(-1, 1, (4,)), "action_mask": mask})
    (group,) = groups_of(["a_0"], {"a_0": vector}, {"a_0": spaces.Discrete(2)}, {"a_0": "team"})
    assert group.first_category is None


@pytest.mark.parametrize("space", ACTION_SPACES, ids=lambda space: f"{space}-{space.dtype}")
def test_runs_from_before_spaces_were_kept_whole_fit_their_environments(space: Any) -> None:
    category = spaces.Discrete(5, start=1)
    groups = groups_of(["a_0"], {"a_0": category}, {"a_0": space}, {"a_0": "team"})
    now = EnvSpec("old", ("a_0",), groups)
    plain = spec_to_dict(now)
    for entry in plain["groups"]:
        del entry["first_category"]
        entry["action"] = {key: value for key, value in entry["action"].items() if key not in ("dtype", "scalar")}
    before = spec_from_dict(plain)
    assert saved(now) == now
    assert comparable(before.groups[0]) == comparable(now.groups[0])
    showing._require_same(before, now)
    assert np.size(untrained("ippo", before)({"a_0": np.int64(4)})["a_0"]) == np.prod(space.shape)


def test_deterministic_is_the_likeliest_action_and_drawing_follows_the_probabilities() -> None:
    policy = make()
    assert len({int(action) for action in draws(policy, 5, "walker_0")}) == 1
    obs = {
        "walker": torch.tensor([[[0.5, -1.0], [-2.0, 0.25]]]),
        "arm": torch.zeros(1, 1, 3),
        "reader": torch.zeros(1, 1, 4),
    }
    probs = policy._agent.policy(obs)["walker"].logits[0, 0].softmax(-1)  # type: ignore[attr-defined]
    assert policy(OBSERVATIONS)["walker_0"] == int(probs.argmax()) + 3
    drawn = np.array(draws(make(deterministic=False), 800, "walker_0"))
    shares = [(drawn == action).mean() for action in (3, 4, 5, 6)]
    assert np.abs(np.array(shares) - probs.numpy()).max() < 0.06


def test_drawing_is_repeated_by_its_seed() -> None:
    first, again, other = (draws(make(False, seed), 20, "arm_0") for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_agents_that_are_not_there_get_no_action_and_change_none() -> None:
    policy = make()
    everyone = policy(OBSERVATIONS)
    for agent in OBSERVATIONS:
        alone = policy({agent: OBSERVATIONS[agent]})
        assert list(alone) == [agent]
        assert np.array_equal(alone[agent], everyone[agent])
    assert policy({}) == {}


def test_the_order_of_the_observations_is_of_no_consequence() -> None:
    backwards = dict(reversed(OBSERVATIONS.items()))
    assert {k: v.tolist() for k, v in make()(backwards).items()} == {
        k: v.tolist() for k, v in make()(OBSERVATIONS).items()
    }


def test_no_mask_is_one_that_allows_everything() -> None:
    everything = {agent: np.ones(4) for agent in ("walker_0", "walker_1")}
    for masks in (dict.fromkeys(everything), everything | {"walker_0": None}, dict.fromkeys(OBSERVATIONS)):
        given = make()(OBSERVATIONS, action_masks=masks)
        assert [given[agent] for agent in everything] == [make()(OBSERVATIONS, everything)[a] for a in everything]
    only = {"walker_0": None, "walker_1": np.array([0, 0, 1, 0])}
    assert make()(OBSERVATIONS, only)["walker_1"] == 5


def test_a_category_is_seen_as_in_training() -> None:
    policy = make()
    for category in range(4):
        as_number = policy({"reader_0": np.int64(category)})
        one_hot = policy({"reader_0": np.eye(4)[category]})
        assert as_number == one_hot
    with pytest.raises(
        ms.UsageError, match=r"the observation of reader_0 is 4; in training it was a category from 0 to 3"
    ):
        policy({"reader_0": np.int64(4)})
    with pytest.raises(ms.UsageError, match="reader_0 is -1"):
        policy({"reader_0": -1})


def test_masks_forbid_actions() -> None:
    for deterministic in (True, False):
        policy = make(deterministic)
        for only in range(4):
            mask = {"walker_0": np.eye(4, dtype=np.int8)[only]}
            found = {int(action) for action in draws(policy, 20, "walker_0", action_masks=mask)}
            assert found == {only + 3}
    some = {int(a) for a in draws(make(False), 300, "walker_0", action_masks={"walker_0": np.array([1, 0, 1, 0])})}
    assert some == {3, 5}
    unmasked, masked = make()(OBSERVATIONS), make()(OBSERVATIONS, {"walker_0": np.eye(4)[0], "arm_0": np.zeros(2)})
    assert all(np.array_equal(unmasked[agent], masked[agent]) for agent in ("walker_1", "arm_0", "reader_0"))


@pytest.mark.parametrize(
    ("observations", "masks", "said"),
    [
        ({"stranger": np.zeros(2)}, {}, r"agent 'stranger' is not of this policy; it acts for walker_0, arm_0"),
        ({"walker_0": np.zeros(3)}, {}, r"the observation of walker_0 has 3 numbers; in training it had 2\."),
        ({"arm_0": np.zeros(())}, {}, "the observation of arm_0 has 1 numbers; in training it had 3"),
        ({"walker_0": np.zeros(2)}, {"walker_0": np.zeros(4)}, "the action mask of walker_0 allows no action"),
        (
            {"walker_0": np.zeros(2)},
            {"walker_0": np.ones(5)},
            r"has shape \(5,\); it must have one number for each of the 4",
        ),
        (
            {"walker_0": np.zeros(2)},
            {"walker_7": np.ones(4)},
            "action_masks has 'walker_7'; this policy acts for walker_0",
        ),
        ({"arm_0": (np.zeros(2), 1)}, {}, r"arm_0 is .*no array; flatten it with gymnasium.spaces.flatten first\."),
        ({"arm_0": {"a": np.zeros(2), "b": 1}}, {}, r"has the parts a, b; flatten it with gymnasium"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(observations: Any, masks: Any, said: str) -> None:
    with pytest.raises(ms.UsageError, match=said):
        make()(observations, masks)


@pytest.mark.parametrize(
    ("observation", "said"),
    [
        (
            [1.0, 0.0, 1.0, 0.5, -0.2],
            r"the last 3 of the 5 numbers that agent_0 observes must be its action mask, and are",
        ),
        ([0.5, 1.0, 0.0, 0.0, 0.0], r"are \[0.0, 0.0, 0.0\]; give .*\"action_mask\": ...}} instead"),
        ({"a": 0.5, "b": 1.0, "action_mask": [1, 1, 1]}, r"all parts but the mask flattened by gymnasium"),
        (
            {"observation": {"a": 0.5}, "action_mask": [1, 1, 1]},
            r"is {'a': 0.5}, which is no array; give .*mask flattened",
        ),
    ],
)
def test_a_mask_that_is_not_where_it_should_be_is_not_guessed(observation: Any, said: str) -> None:
    """`gymnasium.spaces.flatten` puts parts in the order of their names, and so the mask anywhere."""
    spec = EnvSpec("masked", ("agent_0",), (Group("agent", ("agent_0",), 5, Discrete(3), "team", masked=True),))
    policy = untrained("ippo", spec)
    with pytest.raises(ms.UsageError, match=said.replace("}}", "}")):
        policy({"agent_0": np.array(observation) if isinstance(observation, list) else observation})
    several = EnvSpec(
        "several", ("agent_0",), (Group("agent", ("agent_0",), 5, MultiDiscrete((2, 3), (0, 0)), "team"),)
    )
    with pytest.raises(ms.UsageError, match="'agent_0', who makes several choices at once"):
        untrained("ippo", several)({"agent_0": np.zeros(5)}, {"agent_0": np.ones(5)})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "run"
    with pytest.MonkeyPatch.context() as patched:
        measure_little(patched)
        assert train(path, "--quiet", "--algo.lr", "0.05") == 0
    return path


def test_a_loaded_policy_acts_as_in_evaluation(run: Path) -> None:
    policy = ms.load_policy(run, checkpoint="last")
    env = catalog.make_single("particle/simple_spread_v3", {"max_cycles": 5})
    observations, _ = env.reset(seed=4)
    policy.reset()
    while env.agents:
        rows = torch.tensor(np.stack([observations[agent] for agent in env.possible_agents]))
        wanted = policy._agent.policy({"agent": rows.unsqueeze(0)})["agent"].mode()[0]
        actions = policy(observations)
        assert [actions[agent] for agent in env.possible_agents] == wanted.tolist()
        observations, *_ = env.step(actions)
    assert isinstance(policy, ms.Policy)
    assert (policy.steps, policy.deterministic) == (240, True)
    assert not ms.load_policy(str(run), deterministic=False).deterministic


def test_the_best_checkpoint_is_taken_else_the_last(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    best = torch.load(copy / "checkpoints/best.pt", weights_only=True)["steps"]
    assert ms.load_policy(copy).steps == best
    (copy / "checkpoints/best.pt").unlink()
    assert ms.load_policy(copy).steps == 240
    with pytest.raises(
        ms.UsageError, match=r"has no checkpoint to load: .*best\.pt does not exist\. Is it a run folder\?"
    ):
        ms.load_policy(copy, checkpoint="best")
    shutil.copy(copy / "checkpoints/last.pt", copy / "checkpoints/best.pt")  # a user's own idea of the best
    assert ms.load_policy(copy).steps == 240
    (copy / "checkpoints/last.pt").write_bytes(b"")
    (copy / "checkpoints/best.pt").write_bytes(b"")
    with pytest.raises(ms.UsageError, match=r"best\.pt cannot be read .*last\.pt cannot be read"):
        ms.load_policy(copy)
    with pytest.raises(ms.UsageError, match="Is it a run folder"):
        ms.load_policy(tmp_path / "nothing")


def test_loading_needs_no_environment(run: Path) -> None:
    code = f"""
import sys
for library in ("pettingzoo", "mpe2", "pygame", "tensorboard", "rich", "ruamel"):
    sys.modules[library] = None
import numpy as np, marl_stable as ms
policy = ms.load_policy({str(run)!r})
print(policy({{"agent_1": np.zeros(18)}}))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "agent_1" in done.stdout


def test_the_whole_policy_is_in_its_state() -> None:
    first, second = make(), make()
    assert isinstance(second._agent, MAPPO)
    for learner in second._agent.learners.values():
        for parameter in learner.actor.parameters():
            parameter.data.mul_(2)
    second._agent.load_policy_state(first._agent.policy_state())
    assert_equal(first._agent.policy_state(), second._agent.policy_state())


def test_a_recurrent_policy_remembers_until_it_is_reset() -> None:
    network = NetworkConfig((8,), final_init=2.0, recurrent="gru")
    config = replace(MAPPOConfig(), gamma=0.9, batch_size=1, num_minibatches=1, network=network)
    policy = Policy(Loaded(MAPPO(SPEC, config, 1, CPU, seed=3), SPEC, 0, "last"))
    first = [policy(OBSERVATIONS)["arm_0"] for _ in range(3)]
    assert not any(np.array_equal(one, first[2]) for one in first[:2])
    policy.reset()
    assert np.array_equal([policy(OBSERVATIONS)["arm_0"] for _ in range(3)], first)


@pytest.mark.parametrize(
    ("part", "value"), [("algo", [1]), ("spec", None), ("policy", [1]), ("policy", {"groups": {}})]
)
def test_a_damaged_best_checkpoint_is_passed_over_for_the_last(
    run: Path, tmp_path: Path, part: str, value: Any
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    best = copy / "checkpoints" / "best.pt"
    checkpoint.save(best, checkpoint.load(best, CPU) | {part: value})
    assert load_agent(copy).checkpoint == "last"
    with pytest.raises(ms.UsageError, match=r"has no checkpoint to load: .*best\.pt is damaged \("):
        load_agent(copy, "best")
