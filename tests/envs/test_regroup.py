"""The teams that the user names, over environments of every kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from marl_stable.config import EnvConfig
from marl_stable.envs import catalog
from marl_stable.envs.base import BatchedEnv
from marl_stable.envs.groups import regrouped
from marl_stable.envs.regroup import Regrouped, with_teams
from marl_stable.types import Discrete, EnvSpec, Group, PerGroup, Step, UsageError

CPU = torch.device("cpu")
SPREAD = "particle/simple_spread_v3"
SPLIT = {"red": ["agent_2", "agent_0"], "blue": ["agent_1"]}


def make(env_id: str, teams: Any = None, copies: int = 3, **kwargs: Any) -> BatchedEnv:
    return catalog.make(EnvConfig(id=env_id, kwargs=kwargs, teams=teams), CPU, copies)


def groups(env: BatchedEnv) -> list[tuple[str, tuple[str, ...], str]]:
    return [(group.name, group.agents, group.team) for group in env.spec.groups]


def by_agent(env: BatchedEnv, tensors: PerGroup) -> dict[str, torch.Tensor]:
    return {agent: tensors[group.name][:, i] for group in env.spec.groups for i, agent in enumerate(group.agents)}


def by_group(env: BatchedEnv, actions: dict[str, torch.Tensor]) -> PerGroup:
    return {group.name: torch.stack([actions[agent] for agent in group.agents], dim=1) for group in env.spec.groups}


def drawn(env: BatchedEnv, generator: torch.Generator) -> dict[str, torch.Tensor]:
    actions = {}
    for group in env.spec.groups:
        assert isinstance(group.action, Discrete)
        for agent in group.agents:
            actions[agent] = torch.randint(group.action.n, (env.num_envs,), generator=generator)
    return actions


def assert_alike(one: BatchedEnv, left: Step, other: BatchedEnv, right: Step) -> None:
    """Agent by agent."""
    for part in ("obs", "next_obs", "reward", "terminated", "truncated", "alive"):
        mine, theirs = by_agent(one, getattr(left, part)), by_agent(other, getattr(right, part))
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[agent], theirs[agent]) for agent in mine), part
    assert torch.equal(left.done, right.done)
    assert (left.next_obs is left.obs) == (right.next_obs is right.obs)


@pytest.mark.parametrize(
    ("env_id", "teams", "wanted"),
    [
        (SPREAD, SPLIT, [("agent_0", ("agent_0", "agent_2"), "red"), ("agent_1", ("agent_1",), "blue")]),
        (SPREAD, {"all": ["agent_0", "agent_2", "agent_1"]}, [("agent", ("agent_0", "agent_1", "agent_2"), "all")]),
        (
            "particle/simple_speaker_listener_v4",
            {"talks": ["speaker_0"], "walks": ["listener_0"]},
            [("speaker", ("speaker_0",), "talks"), ("listener", ("listener_0",), "walks")],
        ),
        (
            "mpe2/simple_crypto_v3",  # the table has eve alone; bob and alice see and say the same
            {"all": ["eve_0", "bob_0"], "alice": ["alice_0"]},
            [("eve", ("eve_0",), "all"), ("bob", ("bob_0",), "all"), ("alice", ("alice_0",), "alice")],
        ),
        (
            "mpe2/simple_adversary_v3",
            {"all": ["adversary_0", "agent_0", "agent_1"]},
            [("adversary", ("adversary_0",), "all"), ("agent", ("agent_0", "agent_1"), "all")],
        ),
    ],
)
def test_teams_that_are_named_win_over_the_table_and_the_environment(env_id: str, teams: Any, wanted: Any) -> None:
    env = make(env_id, teams)
    assert groups(env) == wanted
    assert env.spec.agents == make(env_id).spec.agents
    assert env.spec.id == env_id


@pytest.mark.parametrize(
    ("env_id", "teams"),
    [
        (SPREAD, SPLIT),
        ("mpe2/simple_spread_v3", SPLIT),
        ("mpe2/simple_tag_v3", {"a": ["adversary_1"], "b": ["agent_0", "adversary_0", "adversary_2"]}),
    ],
)
def test_agents_see_do_and_get_the_same_in_any_team(env_id: str, teams: Any) -> None:
    plain, split = make(env_id, max_cycles=4), make(env_id, teams, max_cycles=4)
    assert isinstance(split, Regrouped)
    one, other = by_agent(plain, plain.reset(3)), by_agent(split, split.reset(3))
    assert all(torch.equal(one[agent], other[agent]) for agent in one)
    draw = torch.Generator().manual_seed(0)
    ended = 0
    for _ in range(10):
        actions = drawn(plain, draw)
        left, right = plain.step(by_group(plain, actions)), split.step(by_group(split, actions))
        assert_alike(plain, left, split, right)
        ended += int(left.done.sum())
    assert ended == 6


def test_a_run_in_other_teams_goes_on_exactly() -> None:
    env, again = make(SPREAD, SPLIT), make(SPREAD, SPLIT)
    draw = torch.Generator().manual_seed(0)
    env.reset(1)
    for _ in range(7):
        before = env.step(by_group(env, drawn(env, draw)))
    again.reset(9)
    obs = again.load_state_dict(env.state_dict())
    assert all(torch.equal(obs[name], before.obs[name]) for name in before.obs)
    assert again.replay_differs == ()
    actions = by_group(env, drawn(env, draw))
    assert_alike(env, env.step(actions), again, again.step(actions))


def test_an_environment_that_has_those_teams_already_is_left_alone() -> None:
    teams = {"agent": ["agent_0"], "adversary": ["adversary_0", "adversary_1", "adversary_2"]}
    assert not isinstance(make("mpe2/simple_tag_v3", teams), Regrouped)


def test_ends_are_read_as_asked_in_other_teams_as_well() -> None:
    config = EnvConfig(id=SPREAD, kwargs={"max_cycles": 1}, teams=SPLIT, time_limit_as="termination")
    env = catalog.make(config, CPU, 2)
    env.reset(0)
    step = env.step(by_group(env, drawn(env, torch.Generator().manual_seed(0))))
    assert all(step.terminated[name].all() for name in ("agent_0", "agent_1"))


@pytest.mark.parametrize(
    ("teams", "said"),
    [
        ({"red": ["agent_0"]}, "does not hold for agent_1, agent_2."),
        ({"red": ["agent_0", "agent_1", "agent_2"], "blue": ["agent_1"]}, "does not hold for agent_1."),
        ({"red": ["agent_0", "agent_1", "agent_2", "agent_3"]}, "does not hold for agent_3."),
        ({"red": "agent_0"}, 'it must look like {"team": ["agent", ...]}.'),
        ({"N": 3}, "it must look like"),
        ({"red": ["agent_0", "agent_1", "agent_2"], "blue": []}, "nobody is in the team 'blue'"),
        ({"": ["agent_0", "agent_1", "agent_2"]}, "a team has no name"),
        ({}, "does not hold for agent_0, agent_1, agent_2."),
    ],
)
def test_teams_that_do_not_hold_every_agent_once_are_refused(teams: Any, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        make(SPREAD, teams)
    assert str(refused.value).startswith(f"env.teams is {teams!r}; ")
    assert str(refused.value).endswith(said) or said in str(refused.value)


class Echo:
    """A batched environment of four groups that tells each agent its own number and what it did."""

    def __init__(self, spec: EnvSpec, copies: int = 2) -> None:
        self.spec, self.num_envs, self.device = spec, copies, CPU
        self.replay_differs: tuple[int, ...] = (1,)

    def reset(self, seed: int) -> PerGroup:
        return {
            g.name: torch.tensor([[self.spec.agents.index(agent)] for agent in g.agents]).expand(2, -1, 1).float()
            for g in self.spec.groups
        }

    def step(self, action: PerGroup) -> Step:
        assert [tuple(action[g.name].shape) for g in self.spec.groups] == [(2, len(g.agents)) for g in self.spec.groups]
        obs, reward = self.reset(0), {name: rows.float() for name, rows in action.items()}
        never = {name: torch.zeros_like(rows, dtype=torch.bool) for name, rows in reward.items()}
        return Step(obs, obs, reward, never, never, never, torch.zeros(2, dtype=torch.bool))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> PerGroup:
        return self.reset(0)

    def close(self) -> None:
        self.closed = True


def test_groups_of_different_teams_come_together_and_others_only_part() -> None:
    two, three = Discrete(2), Discrete(3)
    found = (
        Group("a", ("a_0", "a_1"), 1, two, "left"),
        Group("b", ("b_0",), 1, three, "left"),
        Group("c", ("a_2", "c_1"), 1, two, "right"),
        Group("d", ("d_0",), 1, two, "left"),  # numbers as a's, but other spaces: its own team had kept it apart
    )
    agents = ("d_0", "a_2", "a_0", "b_0", "c_1", "a_1")
    env = Echo(EnvSpec("echo", agents, found, turn_based=True))
    joined = with_teams(env, {"one": ["a_0", "a_2", "b_0"], "two": ["a_1", "c_1", "d_0"]})
    assert groups(joined) == [
        ("d_0", ("d_0", "c_1"), "two"),  # the first that a group apart from it may join
        ("a_2", ("a_2", "a_0"), "one"),
        ("b", ("b_0",), "one"),
        ("a_1", ("a_1",), "two"),
    ]
    assert joined.spec.turn_based
    numbers = by_agent(joined, joined.reset(0))
    assert {agent: int(rows[0, 0]) for agent, rows in numbers.items()} == {a: i for i, a in enumerate(agents)}
    actions = {agent: torch.tensor([i, 10 + i]) for i, agent in enumerate(agents)}
    step = joined.step(by_group(joined, actions))
    assert {agent: rows.tolist() for agent, rows in by_agent(joined, step.reward).items()} == {
        agent: rows.tolist() for agent, rows in actions.items()
    }
    assert step.next_obs is step.obs
    joined.load_state_dict({})
    assert joined.replay_differs == (1,)
    joined.close()
    assert env.closed


def test_masked_and_other_agents_never_share_a_group() -> None:
    group = Group("a", ("a_0",), 3, Discrete(2), "left")
    spec = EnvSpec("x", ("a_0", "a_1"), (group, group._replace(name="b", agents=("a_1",), team="right", masked=True)))
    assert [g.agents for g in regrouped(spec, {"a_0": "t", "a_1": "t"}).groups] == [("a_0",), ("a_1",)]
