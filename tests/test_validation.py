"""Numbers that are not finite: what learning is told in their place, who is excluded, and what is said about it."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import pytest
import torch
from torch import Tensor

from marl_stable.agents.maddpg import MADDPG
from marl_stable.agents.mappo import MAPPO
from marl_stable.buffers import Replay
from marl_stable.envs.base import BatchedEnv, lost
from marl_stable.envs.particle import make
from marl_stable.envs.probe import Relay
from marl_stable.episodes import EpisodeStatistics
from marl_stable.evaluation import play
from marl_stable.monitor.detectors import Incident
from marl_stable.monitor.table import Host
from marl_stable.rewards import team_mean
from marl_stable.types import Discrete, EnvSpec, Group, PerGroup, Step
from marl_stable.validation import EXCLUDED, OBSERVATIONS, REWARDS, Mended, Validation
from marl_stable.watching import to_host
from tests.agents.loops import make_agent, make_ddpg, update
from tests.agents.test_waiting import waits_in
from tests.runs import assert_equal

CPU = torch.device("cpu")
NAN, INF = math.nan, math.inf
COPIES = 4
GROUPS = (
    Group("hunter", ("hunter_0", "hunter_1"), 3, Discrete(2), "hunters"),
    Group("prey", ("prey",), 2, Discrete(3), "prey"),
)
SPEC = EnvSpec("meadow", ("hunter_0", "hunter_1", "prey"), GROUPS)


class Meadow:
    """Random numbers for everybody, whoever does what; an episode of copy `c` lasts `4 + c` steps."""

    def __init__(self, spec: EnvSpec = SPEC) -> None:
        self.spec, self.num_envs, self.device = spec, COPIES, CPU
        self.replay_differs: tuple[int, ...] = ()
        self.generator = torch.Generator()
        self.t = torch.zeros(COPIES)

    def draw(self) -> PerGroup:
        return {
            g.name: torch.randn(COPIES, len(g.agents), g.obs_size, generator=self.generator) for g in self.spec.groups
        }

    def reset(self, seed: int) -> PerGroup:
        self.generator.manual_seed(seed)
        self.t = torch.zeros(COPIES)
        self.obs = self.draw()
        return self.obs

    def step(self, action: PerGroup) -> Step:
        self.t = self.t + 1
        done = self.t == 4 + torch.arange(COPIES)
        self.t = self.t.masked_fill(done, 0)
        next_obs, first = self.draw(), self.draw()
        over = {name: done.unsqueeze(1).expand(x.shape[:2]) for name, x in next_obs.items()}
        never = {name: torch.zeros_like(x) for name, x in over.items()}
        self.obs = next_obs
        if done.any():
            self.obs = {name: torch.where(over[name].unsqueeze(-1), first[name], x) for name, x in next_obs.items()}
        reward = {name: x.mean(-1) for name, x in self.draw().items()}
        alive = {name: torch.ones_like(x) for name, x in over.items()}
        return Step(self.obs, next_obs, reward, never, over, alive, done)

    def state_dict(self) -> dict[str, Any]:
        return {"t": self.t, "obs": self.obs, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> PerGroup:
        self.t, self.obs = state["t"], state["obs"]
        self.generator.set_state(state["generator"])
        return self.obs

    def close(self) -> None: ...


class Fault(NamedTuple):
    """At call `t` of `step` (0: `reset`, for obs) one number becomes `value`; `copy` and `agent` None: everybody's."""

    t: int
    part: Literal["obs", "next_obs", "reward"]
    group: str
    copy: int | None = 0
    agent: int | None = 0
    feature: int | None = 0
    value: float = NAN
    until: int | None = None  # the same at all later calls before this one


class Faulty:
    """`env` with faults in what it says. Its own state has them too, as an environment's would."""

    def __init__(self, env: BatchedEnv, faults: Sequence[Fault]) -> None:
        self.env, self.faults, self.t = env, faults, 0
        self.spec, self.num_envs, self.device = env.spec, env.num_envs, env.device
        self.replay_differs: tuple[int, ...] = ()

    def reset(self, seed: int) -> PerGroup:
        self.t = 0
        self.obs = self.hurt("obs", self.env.reset(seed))
        return self.obs

    def step(self, action: PerGroup) -> Step:
        self.t += 1
        step = self.env.step(action)
        whole = step.next_obs is step.obs
        next_obs = self.hurt("next_obs", step.next_obs)
        self.obs = next_obs if whole else self.hurt("obs", step.obs)
        return step._replace(obs=self.obs, next_obs=next_obs, reward=self.hurt("reward", step.reward))

    def hurt(self, part: str, tensors: PerGroup) -> PerGroup:
        hurt = dict(tensors)
        for fault in self.faults:
            if fault.part == part and fault.t <= self.t < (fault.until or fault.t + 1):
                every = slice(None)
                place = tuple(every if i is None else i for i in (fault.copy, fault.agent, fault.feature))
                hurt[fault.group] = hurt[fault.group].clone()
                hurt[fault.group][place[:2] if part == "reward" else place] = fault.value
        return hurt

    def state_dict(self) -> dict[str, Any]:
        return {"env": self.env.state_dict(), "t": self.t, "obs": self.obs}

    def load_state_dict(self, state: dict[str, Any]) -> PerGroup:
        self.env.load_state_dict(state["env"])
        self.t, self.obs = state["t"], state["obs"]
        return self.obs

    def close(self) -> None: ...


class Told(NamedTuple):
    """What a run of `steps` calls brought: of the environment, checked, and as agents are told it."""

    first: PerGroup
    raw: list[Step]
    checked: list[Step]
    lessons: list[Step]
    validation: Validation

    def excluded(self, group: str) -> set[tuple[int, int, int]]:
        """(call, copy, agent) of who acted and is not to learn from it."""
        pairs = enumerate(zip(self.raw, self.lessons, strict=True), 1)
        return {
            (t, *place)
            for t, (raw, lesson) in pairs
            for place in (raw.alive[group] & ~lesson.alive[group]).nonzero().tolist()
        }


def tell(*faults: Fault, steps: int = 12, acts: bool = True, look: bool = True, env: Any = None) -> Told:
    """`look` False: as on a device whose numbers the host must not look at."""
    env = Faulty(env or Meadow(), faults)
    validation = Validation(env, acts)
    validation._may_look = look
    first = validation.first(env.reset(1))
    told = Told(first, [], [], [], validation)
    for _ in range(steps):
        told.raw.append(env.step({}))
        told.checked.append(validation.check(told.raw[-1]))
        told.lessons.append(validation.exclude(told.checked[-1]))
    return told


def found_of(told: Told) -> Host:
    return to_host(told.validation.take())


def incidents_of(told: Told) -> list[Incident]:
    return told.validation.incidents(100, found_of(told))


def assert_finite(*groups: PerGroup) -> None:
    for tensors in groups:
        for name, x in tensors.items():
            assert x.isfinite().all(), name


SCENES: dict[str, list[Fault]] = {
    "once in an observation": [Fault(2, "next_obs", "hunter", 1, 1, 2)],
    "infinite reward": [Fault(2, "reward", "hunter", 1, 1, value=INF)],
    "first of all": [Fault(0, "obs", "prey", 3, 0, 1, -INF)],
    "last of an episode": [Fault(4, "next_obs", "hunter", 0, 0, 0)],
    "first of the second episode": [Fault(4, "obs", "hunter", 0, 0, 0)],
    "everybody and everything": [
        Fault(t, part, group, None, None, None)  # type: ignore[arg-type]
        for t, part in ((3, "next_obs"), (4, "next_obs"), (4, "reward"), (7, "obs"))
        for group in ("hunter", "prey")
    ],
    "for good": [Fault(t, part, "hunter", None, 0, 1, until=99) for t, part in ((3, "next_obs"), (3, "obs"))],  # type: ignore[arg-type]
}


# ---- step by step


def test_finite_steps_come_back_as_they_were() -> None:
    told = tell()
    assert all(checked is raw for raw, checked in zip(told.raw, told.checked, strict=True))
    assert all(lesson is raw for raw, lesson in zip(told.raw, told.lessons, strict=True))
    assert {step.next_obs is step.obs for step in told.raw} == {True, False}
    obs = Meadow().reset(1)
    assert Validation(Meadow(), True).first(obs) is obs
    assert incidents_of(told) == []


@pytest.mark.parametrize("scene", SCENES)
def test_without_looking_all_is_the_same(scene: str) -> None:
    seen, unseen = tell(*SCENES[scene]), tell(*SCENES[scene], look=False)
    for a, b in zip(seen.checked + seen.lessons, unseen.checked + unseen.lessons, strict=True):
        assert_equal(a._asdict(), b._asdict())
        assert (a.next_obs is a.obs) == (b.next_obs is b.obs)
    assert_equal(seen.first, unseen.first)
    assert_equal(seen.validation.state_dict(), unseen.validation.state_dict())
    assert incidents_of(seen) == incidents_of(unseen)


def test_a_device_is_never_waited_for() -> None:
    env = Faulty(Meadow(), SCENES["everybody and everything"])
    obs = env.reset(1)
    steps = [env.step({}) for _ in range(9)]
    validation = Validation(env, True)
    validation._may_look = False

    def work() -> None:
        validation.first(obs)
        for step in steps:
            team_mean(validation.check(step), SPEC, validation.unpaid)
            validation.exclude(step)
        validation.take()

    assert waits_in(work) == {}


@pytest.mark.parametrize("scene", SCENES)
def test_all_that_is_not_concerned_equals_a_clean_run(scene: str) -> None:
    clean, told = tell(), tell(*SCENES[scene])
    assert_finite(told.first)
    for i, (right, raw, checked) in enumerate(zip(clean.raw, told.raw, told.checked, strict=True)):
        assert_finite(checked.obs, checked.next_obs, checked.reward)
        assert (checked.next_obs is checked.obs) == (right.next_obs is right.obs)
        for part in ("obs", "next_obs", "reward"):
            for name, x in getattr(raw, part).items():
                known = x.isfinite()
                assert torch.equal(getattr(checked, part)[name][known], getattr(right, part)[name][known]), (i, part)
        for part in ("terminated", "truncated", "alive", "done"):
            assert getattr(checked, part) is getattr(raw, part)


@pytest.mark.parametrize("scene", SCENES)
def test_nothing_that_was_returned_is_changed(scene: str) -> None:
    clean, told = tell(), tell(*SCENES[scene])
    again = tell(*SCENES[scene], acts=False)
    for raw, same in zip(told.raw, again.raw, strict=True):
        for name, x in raw.obs.items():
            torch.testing.assert_close(x, same.obs[name], rtol=0, atol=0, equal_nan=True)
    assert all(step.alive["hunter"].all() for step in clean.raw + told.raw + told.checked)


def test_one_number_excludes_the_step_to_it_and_the_step_from_it_of_its_agent_alone() -> None:
    told = tell(*SCENES["once in an observation"])
    assert told.excluded("hunter") == {(2, 1, 1), (3, 1, 1)}
    assert told.excluded("prey") == set()
    assert told.checked[1].obs["hunter"][1, 1, 2] == told.raw[0].obs["hunter"][1, 1, 2]  # the last finite value
    assert incidents_of(told) == [
        Incident(
            100, "non_finite_observation", {"agent": "hunter_1", "feature": 2, "copy": 1}, 1.0, 0.0, "excluded", {}
        )
    ]


def test_a_reward_excludes_its_own_step_and_is_nothing() -> None:
    told = tell(*SCENES["infinite reward"])
    assert told.excluded("hunter") == {(2, 1, 1)}
    assert told.lessons[1].reward["hunter"][1, 1] == 0
    where = {"agent": "hunter_1", "copy": 1}
    assert incidents_of(told) == [Incident(100, "non_finite_reward", where, 1.0, 0.0, "excluded", {})]


def test_the_terms_of_a_reward_that_is_no_number_are_nothing_either() -> None:
    groups = tuple(group._replace(terms=("a", "b")) for group in GROUPS)
    validation = Validation(Meadow(SPEC._replace(groups=groups)), acts=True)
    env = Meadow()
    validation.first(env.reset(1))
    step = env.step({})
    reward = {name: x.clone() for name, x in step.reward.items()}
    reward["hunter"][1, 0] = NAN
    terms = {name: torch.stack([x, 0 * x], -1) for name, x in reward.items()}
    found = validation.check(step._replace(reward=reward, terms=terms))
    assert found.terms["hunter"][1, 0].tolist() == [0, 0]
    assert_equal(found.terms["prey"], terms["prey"])
    assert_equal(found.terms["hunter"][0], terms["hunter"][0])


def test_before_there_was_a_finite_value_it_is_0() -> None:
    told = tell(*SCENES["first of all"])
    assert told.first["prey"][3, 0, 1] == 0
    assert told.excluded("prey") == {(1, 3, 0)}
    assert incidents_of(told)[0].where == {"agent": "prey", "feature": 1, "copy": 3}


def test_the_last_observation_of_an_episode_concerns_its_last_step_only() -> None:
    told = tell(*SCENES["last of an episode"])
    assert told.excluded("hunter") == {(4, 0, 0)}
    assert told.checked[3].next_obs["hunter"][0, 0, 0] == told.raw[2].obs["hunter"][0, 0, 0]
    assert told.checked[3].obs is not told.checked[3].next_obs
    assert incidents_of(told)[0].value == 1


def test_the_first_observation_of_an_episode_concerns_its_first_step_only() -> None:
    told = tell(*SCENES["first of the second episode"])
    assert told.excluded("hunter") == {(5, 0, 0)}
    assert told.checked[3].obs["hunter"][0, 0, 0] == told.raw[3].next_obs["hunter"][0, 0, 0]


def test_a_feature_that_is_gone_stays_at_its_last_value() -> None:
    told = tell(*SCENES["for good"])
    last = told.raw[1].obs["hunter"][:, 0, 1]
    assert all(torch.equal(step.obs["hunter"][:, 0, 1], last) for step in told.checked[2:])
    assert told.excluded("hunter") == {(t, copy, 0) for t in range(3, 13) for copy in range(COPIES)}
    assert incidents_of(told)[0].value == 9 * COPIES  # acted on from the fourth step on


def test_an_episode_that_nobody_learns_the_end_of_is_not_one_that_failed() -> None:
    told = tell(*SCENES["everybody and everything"], steps=4)
    assert told.raw[3].done.tolist() == [True, False, False, False]
    assert not any(alive.any() for alive in told.lessons[3].alive.values())
    assert not lost(told.checked[3]).any()
    statistics, wanted = (EpisodeStatistics(Meadow()) for _ in range(2))
    for checked, raw in zip(told.checked, tell(steps=4).raw, strict=True):
        statistics.add(checked)
        wanted.add(raw)
    figures, right = statistics.take(), wanted.take()
    assert_equal(figures["charts/episode_length"], right["charts/episode_length"])
    assert_finite(*figures.values())


def test_a_failed_episode_still_is_one() -> None:
    class Failing(Meadow):
        def step(self, action: PerGroup) -> Step:
            step = super().step(action)
            over = step.done.unsqueeze(1)
            return step._replace(alive={name: alive & ~over for name, alive in step.alive.items()})

    told = tell(Fault(4, "next_obs", "hunter", 0), Fault(4, "reward", "prey", 0), env=Failing())
    assert torch.equal(lost(told.checked[3]), told.raw[3].done)
    assert incidents_of(told) == []  # nobody acted


def test_what_is_said_of_the_dead_does_not_count_and_is_finite_all_the_same() -> None:
    class Deadly(Meadow):
        def step(self, action: PerGroup) -> Step:
            step = super().step(action)
            alive = step.alive["hunter"].clone()
            alive[:, 1] = False
            return step._replace(alive=step.alive | {"hunter": alive})

    garbage = [
        Fault(0, "obs", "hunter", None, 1, None, until=99),
        Fault(0, "next_obs", "hunter", None, 1, None, INF, until=99),
        Fault(0, "reward", "hunter", None, 1, until=99),
    ]
    told = tell(*garbage, env=Deadly())
    for checked in told.checked:
        assert_finite(checked.obs, checked.next_obs, checked.reward)
    assert told.excluded("hunter") == set()
    assert incidents_of(told) == []


def test_the_end_of_one_agent_is_counted_though_nobody_acts_on_what_it_saw_then() -> None:
    class Mortal(Meadow):
        calls = 0

        def step(self, action: PerGroup) -> Step:
            step, self.calls = super().step(action), self.calls + 1
            alive, ended = step.alive["hunter"].clone(), step.terminated["hunter"].clone()
            alive[0, 0], ended[0, 0] = self.calls < 3, self.calls == 2
            return step._replace(alive=step.alive | {"hunter": alive}, terminated=step.terminated | {"hunter": ended})

    told = tell(Fault(2, "next_obs", "hunter", 0, 0, 2, until=4), steps=3, env=Mortal())
    assert told.excluded("hunter") == {(2, 0, 0)}
    assert [(i.where["feature"], i.value) for i in incidents_of(told)] == [(2, 1.0)]


@pytest.mark.parametrize("scene", SCENES)
def test_a_monitor_counts_the_same_and_changes_nothing(scene: str) -> None:
    told, watched = tell(*SCENES[scene]), tell(*SCENES[scene], acts=False)
    pairs = zip(watched.raw, watched.checked, watched.lessons, strict=True)
    assert all(raw is checked is lesson for raw, checked, lesson in pairs)
    assert watched.validation.unpaid is None
    assert watched.first["prey"].isfinite().all() == (scene != "first of all")
    assert incidents_of(watched) == [incident._replace(action="none") for incident in incidents_of(told)]
    watched = tell(*SCENES["for good"], acts=False, steps=50)
    assert watched.validation.stop(found_of(watched)) is None


# ---- what learns from it


def test_the_mean_of_a_team_is_that_of_rewards_that_are_known() -> None:
    told = tell(*SCENES["infinite reward"])
    validation = Validation(Meadow(), True)
    validation.first(told.first)
    validation.check(told.raw[0])
    checked = validation.check(told.raw[1])
    shared = team_mean(checked, SPEC, validation.unpaid).reward["hunter"]
    right = team_mean(tell().raw[1], SPEC).reward["hunter"]
    assert shared[1, 0] == told.raw[1].reward["hunter"][1, 0]  # not half of it
    assert torch.equal(shared[[0, 2, 3]], right[[0, 2, 3]])


def learn(algo: str, faults: Sequence[Fault], updates: int = 4, **settings: Any) -> tuple[Any, list[Any]]:
    env = Faulty(Meadow(), faults)
    plain: dict[str, Any] = {"share": False, "num_minibatches": 1, "batch_size": 32}
    off_policy: dict[str, Any] = {"share": False, "train_every": 32, "warm_up": 0, "buffer_size": 200}
    agent = (
        make_agent(env, algo, **(plain | settings))
        if algo in ("mappo", "ippo")
        else make_ddpg(env, algo, **(off_policy | settings))
    )
    validation = Validation(env, True)
    obs, stats = validation.first(env.reset(1)), []
    for _ in range(updates):
        while not agent.ready():
            step = validation.check(env.step(agent.act(obs)))
            agent.observe(validation.exclude(step))
            obs = step.obs
        stats.append(update(agent))
    return agent, stats


EVERYTHING = [fault for faults in SCENES.values() for fault in faults]


@pytest.mark.parametrize("algo", ["mappo", "ippo", "maddpg", "iddpg"])
def test_learning_meets_only_finite_numbers(algo: str) -> None:
    agent, stats = learn(algo, EVERYTHING, refuse=False)  # a non-finite gradient would be in the weights
    for learner in agent.learners.values():
        assert_finite(dict(learner.actor.named_parameters()), dict(learner.critic.named_parameters()))
        assert learner.obs_norm.mean.isfinite().all()
    for found in stats:
        assert all(found[tag]["hunter"].eq(0).all() for tag in ("non_finite/actor", "non_finite/critic"))
    if algo in ("maddpg", "iddpg"):
        replay: Replay = agent.learners["hunter"].replay
        assert_finite({key: x for key, x in replay.tensors().items() if x.is_floating_point()})


@pytest.mark.parametrize("value", [INF, -INF])
def test_which_number_it_was_does_not_matter(value: float) -> None:
    with_nan, _ = learn("mappo", EVERYTHING)
    other, _ = learn("mappo", [fault._replace(value=value) for fault in EVERYTHING])
    assert_equal(with_nan.state_dict(), other.state_dict())


def test_an_agent_learns_as_if_the_other_had_had_no_trouble() -> None:
    apart: dict[str, Any] = {"normalize_advantage": False}
    clean, _ = learn("ippo", [], **apart)
    faults = [
        Fault(5, "obs", "hunter", None, 0, 1, until=30),
        Fault(5, "next_obs", "hunter", None, 0, 1, until=30),
        Fault(9, "reward", "hunter", None, 0, until=30),
    ]
    hurt, _ = learn("ippo", faults, **apart)
    for network in ("actor", "critic"):
        pairs = [getattr(agent.learners["hunter"], network + "_optimizer").flat for agent in (clean, hurt)]
        assert torch.equal(pairs[0][1], pairs[1][1])
        assert not torch.equal(pairs[0][0], pairs[1][0])


@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
def test_turns_go_on_across_one_that_is_excluded(algo: str) -> None:
    faults = [
        Fault(3, "next_obs", "agent", 0, 1, 0),
        Fault(3, "obs", "agent", 0, 1, 0),
        Fault(5, "reward", "agent", 1, None, value=INF),
    ]
    game = Relay(4, CPU)
    env = Faulty(game, faults)
    agent = make_agent(env, batch_size=64) if algo == "mappo" else make_ddpg(env, train_every=64, warm_up=0)
    validation = Validation(env, True)
    obs = validation.first(env.reset(1))
    turns = {}
    for t in range(1, 17):
        step = env.step(agent.act(obs))
        checked = validation.check(step)
        lesson = validation.exclude(checked)
        turns[t] = (step.alive["agent"] & ~lesson.alive["agent"]).nonzero().tolist()
        assert_finite(lesson.obs, lesson.next_obs, lesson.reward)
        agent.observe(lesson)
        obs = checked.obs
    excluded = {t: places for t, places in turns.items() if places}
    acting = {t: int((t - 1) % game.length % game.agents) for t in turns}
    concerned = {t: [[0, 1]] for t in (3, 4) if acting[t] == 1}
    assert excluded == concerned | {5: [[1, acting[5]]]}
    stats = update(agent)
    assert all(stats[f"non_finite/{network}"]["agent"].eq(0).all() for network in ("actor", "critic"))
    found = to_host(validation.take())
    assert found[REWARDS]["agent"].tolist() == [1 / 64] * game.agents  # whoever acted
    assert all(share >= 1 / 64 for share in found[EXCLUDED]["agent"])


def learned_from(agent: MAPPO | MADDPG, steps: int) -> Tensor:
    """`(T, E, A)` of the batch, or of the replay's first `steps`."""
    if isinstance(agent, MADDPG):
        return agent.learners["agent"].replay.alive[:steps].clone()
    alive: Tensor = agent._batches()[0]["agent"].alive.bool()
    return alive.view(-1, agent.num_envs, alive.shape[1])


FIRST = (0, 0, 0)  # turn, copy and agent


@pytest.mark.parametrize(
    ("fault", "unlearned"),
    [
        (Fault(2, "reward", "agent", 0, 0), {FIRST}),  # paid in the other's turn
        (Fault(1, "reward", "agent", 0, 0), {FIRST}),
        (Fault(4, "reward", "agent", 0, 0), {(2, 0, 0)}),  # where the episode ends
        (Fault(3, "reward", "agent", 0, 0), {FIRST, (2, 0, 0)}),  # whose it was cannot be told
        (
            Fault(2, "next_obs", "agent", 0, 0),
            {FIRST, (2, 0, 0)},
        ),  # where the first turn led to, and seen in the second
    ],
    ids=str,
)
@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
def test_a_turn_that_lacks_something_of_what_it_brought_is_not_learned_from(
    algo: str, fault: Fault, unlearned: set[tuple[int, int, int]]
) -> None:
    told = []
    for faults in ([], [fault]):
        env = Faulty(Relay(4, CPU), faults)
        agent = make_agent(env, batch_size=64) if algo == "mappo" else make_ddpg(env, train_every=64, warm_up=0)
        validation = Validation(env, True)
        obs = validation.first(env.reset(1))
        for _ in range(16):
            step = validation.check(env.step(agent.act(obs)))
            agent.observe(validation.exclude(step))
            obs = step.obs
        told.append(learned_from(agent, 16))
    usual, found = told
    assert {tuple(place) for place in (usual & ~found).nonzero().tolist()} == unlearned
    assert not (found & ~usual).any()


@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
def test_what_lacked_in_one_batch_is_forgotten_in_the_next(algo: str) -> None:
    env = Faulty(Relay(4, CPU), [Fault(2, "reward", "agent", None, 0)])
    agent = make_agent(env, batch_size=32) if algo == "mappo" else make_ddpg(env, train_every=32, warm_up=0)
    validation = Validation(env, True)
    obs, learned = validation.first(env.reset(1)), []
    for t in range(16):
        step = validation.check(env.step(agent.act(obs)))
        agent.observe(validation.exclude(step))
        obs = step.obs
        if agent.ready():
            learned.append(int(learned_from(agent, t + 1)[-8:].sum()))
            update(agent)
    assert learned == [4 * (8 - 1), 4 * 8]


# ---- what is said about it


def test_shares_are_of_the_steps_since_the_last_reading() -> None:
    told = tell(*SCENES["for good"], steps=6)
    found = found_of(told)
    assert found[OBSERVATIONS]["hunter"].tolist() == [[0, pytest.approx(3 / 6), 0], [0, 0, 0]]
    assert found[EXCLUDED]["hunter"].tolist() == [pytest.approx(4 / 6), 0]
    assert found[REWARDS]["hunter"].tolist() == [0, 0]
    assert found[OBSERVATIONS]["prey"].tolist() == [[0, 0]]
    again = to_host(told.validation.take())
    assert not any(x.any() for groups in again.values() for x in groups.values())


def test_an_incident_names_the_worst_feature_and_the_copy_most_concerned() -> None:
    faults = [
        Fault(1, "next_obs", "hunter", 3, 0, 0),
        Fault(1, "next_obs", "hunter", 2, 0, 2),
        Fault(2, "next_obs", "hunter", 1, 0, 2, until=4),
        Fault(2, "reward", "hunter", 3, 0, until=4),
        Fault(1, "reward", "prey", 2, 0),
    ]
    told = incidents_of(tell(*faults, steps=6))
    assert [(i.kind, i.where, i.value) for i in told] == [
        ("non_finite_observation", {"agent": "hunter_0", "feature": 2, "copy": 1}, 3.0),
        ("non_finite_reward", {"agent": "hunter_0", "copy": 3}, 2.0),
        ("non_finite_reward", {"agent": "prey", "copy": 2}, 1.0),
    ]


def readings(env: BatchedEnv, iterations: int, steps: int) -> list[str | None]:
    """What `stop` says after each iteration of `steps` calls."""
    validation = Validation(env, True)
    validation.first(env.reset(1))
    said = []
    for _ in range(iterations):
        for _ in range(steps):
            validation.check(env.step({}))
        said.append(validation.stop(to_host(validation.take())))
    return said


def test_a_feature_that_is_gone_stops_the_run_and_is_named() -> None:
    said = readings(Faulty(Meadow(), SCENES["for good"]), 3, 10)
    assert said[0] == (
        "stopped: feature 1 of hunter_0's observations is not finite in 70% of the last 40 steps, and 80% of "
        "hunter_0's recent steps could not be learned from (0.1% are tolerated); mend that feature or leave it out."
    )
    assert said[1] is not None
    assert "in 100% of the last 40 steps" in said[1]


def test_so_does_a_reward() -> None:
    said = readings(Faulty(Meadow(), [Fault(0, "reward", "prey", None, value=INF, until=99)]), 1, 10)
    assert said[0] is not None
    assert said[0].startswith("stopped: prey's reward is not finite in 100% of the last 40 steps, and 100% of")
    assert said[0].endswith("mend its formula.")


def test_fewer_than_twenty_never_do() -> None:
    few = [Fault(t, "reward", "prey", 0, until=t + 1) for t in range(1, 20)]
    assert readings(Faulty(Meadow(), few), 5, 10) == [None] * 5
    more = [*few, Fault(20, "reward", "prey", 0)]
    assert [said is None for said in readings(Faulty(Meadow(), more), 5, 10)] == [True, False, True, True, True]


def test_nor_does_a_rare_one_however_long_the_run() -> None:
    """Host numbers only: one entry in 10,000 steps is two excluded steps, a fifth of what is tolerated."""
    validation = Validation(Meadow(), True)
    calm = to_host(validation.take())
    found = {tag: {name: x.copy() for name, x in groups.items()} for tag, groups in calm.items()}
    found[OBSERVATIONS]["prey"][0, 1], found[EXCLUDED]["prey"][0] = 1e-4, 2e-4
    for _ in range(1_000):
        validation._taken = 4_096
        assert validation.stop(found) is None
    found[EXCLUDED]["prey"][0] = 1.0
    assert validation.stop(found) is not None  # but a fault that lasts does so at once


def test_a_copy_that_fails_for_one_episode_is_tolerated_in_a_run_that_went_well() -> None:
    validation = Validation(Meadow(), True)
    found = to_host(validation.take())
    for iteration in range(200):
        burst = iteration == 100
        found[REWARDS]["prey"][0] = found[EXCLUDED]["prey"][0] = 50 / 4_096 if burst else 0.0
        validation._taken = 4_096
        assert validation.stop(found) is None


# ---- evaluations


def test_an_evaluation_acts_on_finite_numbers_and_tells_what_was_mended() -> None:
    seen: list[PerGroup] = []
    over: list[Tensor] = []

    class Memory:
        def __call__(self, obs: PerGroup) -> PerGroup:
            seen.append(obs)
            return {}

        def ended(self, done: Tensor) -> None:
            over.append(done)

    act = Mended(Memory())
    env = Faulty(Meadow(), [*SCENES["first of all"], *SCENES["for good"], Fault(2, "reward", "prey", 0)])
    played = play(env, act, COPIES, seed=1)
    raw = [env.reset(1), *(env.step({}).obs for _ in seen[1:])]
    assert seen[1] is not raw[1]
    assert torch.equal(seen[1]["prey"], raw[1]["prey"])
    assert seen[0]["prey"][3, 0, 1] == 0
    for obs in seen[3:]:
        assert torch.equal(obs["hunter"][:, 0, 1], raw[2]["hunter"][:, 0, 1])
    assert over[0].tolist() == [True, False, False, False]
    assert math.isnan(played.returns[0, 2])  # what it is worth is not made up
    assert [(i.kind, i.where["agent"], i.where["feature"], i.value, i.action) for i in act.incidents(7, SPEC)] == [
        ("non_finite_observation", "hunter_0", 1, COPIES * (len(seen) - 3.0), "none"),
        ("non_finite_observation", "prey", 1, 1.0, "none"),
    ]


def test_nothing_is_told_of_an_evaluation_of_finite_numbers() -> None:
    act = Mended(lambda obs: {})
    play(Meadow(), act, COPIES, seed=1)
    assert act.incidents(7, SPEC) == []


# ---- state


@pytest.mark.parametrize("at", [0, 2, 3, 4, 7, 8])
def test_a_resumed_run_goes_on_exactly(at: int) -> None:
    env = Faulty(Meadow(), EVERYTHING)
    validation = Validation(env, True)
    obs = validation.first(env.reset(1))
    for _ in range(at):
        if at == 3:
            validation.stop(to_host(validation.take()))
        obs = validation.check(env.step({})).obs
    file = io.BytesIO()
    torch.save({"env": env.state_dict(), "validation": validation.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other_env = Faulty(Meadow(), EVERYTHING)
    other = Validation(other_env, True)
    other.load_state_dict(saved["validation"])
    assert_equal(other.first(other_env.load_state_dict(saved["env"])), obs)
    for _ in range(12):
        left, right = validation.check(env.step({})), other.check(other_env.step({}))
        assert_equal(left._asdict(), right._asdict())
        assert_equal(validation.exclude(left)._asdict(), other.exclude(right)._asdict())
    assert_equal(validation.state_dict(), other.state_dict())
    found, same = to_host(validation.take()), to_host(other.take())
    assert all((same[tag][name] == x).all() for tag, groups in found.items() for name, x in groups.items())
    assert validation.stop(found) == other.stop(same)
    assert validation.incidents(5, found) == other.incidents(5, same)


def test_particles_pass_untouched() -> None:
    env = make("simple_speaker_listener_v4", 8, CPU, max_cycles=3)
    validation = Validation(env, True)
    validation.first(env.reset(1))
    action: dict[str, Tensor] = {g.name: torch.zeros(8, len(g.agents), dtype=torch.int64) for g in env.spec.groups}
    for _ in range(7):
        step = env.step(action)
        assert validation.exclude(validation.check(step)) is step
