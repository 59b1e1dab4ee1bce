"""Which labelled runs the diagnosis benchmark makes: causes, doses, tasks and times, drawn so that few are fair too.

Every round has each injectable fault once, and each healthy kind of run. A run that is to be compared has a twin: the
same task, algorithm, seed and network without the fault.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from benchmarks.faults import KINDS
from benchmarks.faults.actions import ActionDead, LazyAgent
from benchmarks.faults.conditions import FAULTS, NONE, EnvFault
from benchmarks.faults.observations import Features
from benchmarks.faults.rewards import RewardNaN, RewardSpike
from benchmarks.sabotage import SABOTAGE, Sabotage
from marl_stable.config import EnvConfig

DISTORTED = "benchmarks.faults:distorted"
COPIES = 64
SEEDS, HEALTHY_SEEDS = 3, 100  # few where a twin is trained for each
LATE = (0.3, 0.6)  # of the run, between which what begins late begins
EVALUATIONS = 8
SPIKES = 1e-4  # probability of a spike a step: these runs are short
CLEAN, CONVERGED = "clean", "early_converged"
CONSTANT = "constant_action_optimal"
FAMILIES = {"mappo": "ppo", "maddpg": "ddpg"}
FAST: dict[str, dict[str, Any]] = {  # an iteration is 20 to 25 steps of a copy, so that short runs have many
    "mappo": {"algo__batch_size": 1_600, "algo__num_minibatches": 4},
    "maddpg": {"algo__train_every": 1_280, "algo__warm_up": 5_000},
}
MEASURES: dict[str, dict[str, Any]] = {"default": {}, "none": {"measures": "none", "stability": "monitor"}}
NETWORK_OF = {"frozen_parameters": "actor", "large_final_layer": "actor"}  # where the name does not say it


class Task(NamedTuple):
    """Where to learn, and how long by algorithm."""

    env: str
    kwargs: Mapping[str, Any]
    steps: Mapping[str, int]
    agents: tuple[str, ...]
    features: int  # of the agent who sees least
    dimensions: int  # of a continuous action; 0 where it is discrete


THREE = ("agent_0", "agent_1", "agent_2")
SPREAD = "particle/simple_spread_v3"
TASKS = {
    "spread": Task(SPREAD, {}, {"mappo": 150_000, "maddpg": 60_000}, THREE, 18, 0),
    "spread_box": Task(SPREAD, {"continuous_actions": True}, {"mappo": 150_000, "maddpg": 60_000}, THREE, 18, 5),
    "speaker": Task(
        "particle/simple_speaker_listener_v4",
        {},
        {"mappo": 80_000, "maddpg": 50_000},
        ("speaker_0", "listener_0"),
        3,
        0,
    ),
}


class Trial(NamedTuple):
    """One labelled run."""

    name: str  # of FAULTS, of SABOTAGE, or early_converged
    task: str
    algo: str
    dose: float | None = None
    onset: int = 0  # training steps at which it begins
    agent: str | None = None  # whom it hits alone
    seed: int = 1
    variant: str = ""  # the sabotage whose network is used, healthy or not
    measures: str = "default"

    @property
    def steps(self) -> int:
        """Of the run."""
        return TASKS[self.task].steps[self.algo]

    @property
    def cause(self) -> str:
        """What it is to be diagnosed as; `none` if healthy."""
        return NONE if self.name == CONVERGED else INJECTIONS[self.name].cause

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong with it, so that a finding is a false one."""
        return is_healthy(self.name)

    @property
    def rare(self) -> bool:
        """Whether it strikes by chance, at a time that nobody knows."""
        found = INJECTIONS.get(self.name)
        kinds = [KINDS[fault["kind"]] for fault in found.faults] if isinstance(found, EnvFault) else []
        return any(issubclass(kind, (RewardSpike, RewardNaN)) or kind is KINDS["obs_nan"] for kind in kinds)

    def slug(self) -> str:
        """Its folder."""
        return "-".join(str(part).replace("/", "_") for part in self if part not in (None, ""))

    def twin(self) -> Trial:
        """The same without its fault."""
        return Trial(CLEAN, self.task, self.algo, seed=self.seed, variant=self.variant, measures=self.measures)

    def flags(self) -> dict[str, Any]:
        """As for `ms.train`."""
        variant = SABOTAGE[self.variant].flags if self.variant else {}
        injected = INJECTIONS.get(self.name)
        own = injected.flags if injected is not None else {}
        return {
            "algo": self.algo,
            "env": DISTORTED,
            "env__kwargs": self.env_kwargs(),
            "env__num_envs": COPIES,
            "total_steps": self.steps,
            "eval_every": self.steps // EVALUATIONS,
            "eval_episodes": COPIES,
            "checkpoint_every": self.steps,
            "seed": self.seed,
            "quiet": True,
            **FAST[self.algo],
            **MEASURES[self.measures],
            **variant,
            **own,
        }

    def env_kwargs(self) -> dict[str, Any]:
        """The arguments of the distorted environment."""
        task, fault = TASKS[self.task], FAULTS.get(self.name, FAULTS[CLEAN])
        kwargs = fault.kwargs(task.env, task.kwargs, self.dose, self.onset // COPIES)
        for entry in kwargs["faults"]:
            if self.agent is not None:
                entry["agents"] = [self.agent]
            if entry["kind"] == "reward_spike":
                entry["probability"] = SPIKES
            if entry["kind"] == "obs_drift":
                entry["period"] = self.steps // COPIES // 10
        return kwargs

    def scored_on(self) -> EnvConfig:
        """As it was trained at the end, but with the true reward."""
        kwargs = self.env_kwargs() | {"score": True}
        late = {"began_at": self.steps // COPIES} if kwargs["faults"] else {}
        return EnvConfig(id=DISTORTED, kwargs=kwargs | late)

    def place(self) -> dict[str, list[Any]]:
        """Where the fault is, as far as there is one place; part -> names that are right."""
        found: dict[str, list[Any]] = {} if self.agent is None else {"agent": [self.agent]}
        injected = INJECTIONS.get(self.name)
        if isinstance(injected, EnvFault):
            found |= self._place_in(injected)
        network = NETWORK_OF.get(self.name, self.name.partition("_")[0])
        return found | ({"network": [network]} if network in ("actor", "critic") else {})

    def _place_in(self, fault: EnvFault) -> dict[str, list[Any]]:
        kinds = [KINDS[entry["kind"]] for entry in fault.faults]
        if kinds and issubclass(kinds[0], Features) and self.name not in ("obs_nan", "obs_drift"):
            return {"feature": list(range(int(self.dose or 1) if self.name != "obs_scale" else 1))}
        dimensions = TASKS[self.task].dimensions
        if ActionDead in kinds and dimensions:
            return {"dimension": list(range(max(0, dimensions - int(self.dose or 1)), dimensions))}
        if LazyAgent in kinds and self.agent is None:
            return {"agent": [TASKS[self.task].agents[0]]}
        return {}


INJECTIONS: dict[str, EnvFault | Sabotage] = {**FAULTS, **SABOTAGE}
NEEDS_A_BEFORE = ("reward_shift", "stale_replay")  # causes that are none where they hold from the first step on
FOR_SEVERAL = ("identical_policies",)  # causes that a group of one agent cannot have
FOR_ALL = ("twin_agents", "time_limit_as_termination", "constant_action_optimal", "bang_bang_optimal")


def cells(name: str) -> list[dict[str, Any]]:
    """All ways to inject `name`: task, algorithm, dose, late or from the start, one agent or all."""
    found = INJECTIONS.get(name, FAULTS[CLEAN])
    healthy = is_healthy(name)
    doses: Sequence[float | None] = found.doses or (None,)
    late = (True, False) if found.late else (False,)
    if found.cause in NEEDS_A_BEFORE:
        late = (True,)
    one = isinstance(found, EnvFault) and not healthy and name not in FOR_ALL and not _declared(found)
    made = product(TASKS, FAMILIES, [doses[len(doses) // 2]] if healthy else doses, (False,) if healthy else late)
    return [
        {"task": task, "algo": algo, "dose": _fitting(name, dose, task), "late": begins_late, "alone": alone}
        for (task, algo, dose, begins_late), alone in product(made, (False, True) if one else (False,))
        if _fits(found, task, algo)
    ]


def _declared(fault: EnvFault) -> bool:
    return any(KINDS[entry["kind"]].DECLARED for entry in fault.faults)


def _fits(found: EnvFault | Sabotage, task: str, algo: str) -> bool:
    if found.cause in FOR_SEVERAL and task == "speaker":
        return False
    if isinstance(found, Sabotage):
        return FAMILIES[algo] in found.families
    return not found.box or TASKS[task].dimensions > 0


def _fitting(name: str, dose: float | None, task: str) -> float | None:
    """No more features than there are."""
    return min(dose, TASKS[task].features) if dose and name in ("obs_frozen", "obs_nan_sensor") else dose


def balanced(choices: list[dict[str, Any]], rng: random.Random) -> list[dict[str, Any]]:
    """All of them, in an order in which every beginning has each value of each part about equally often."""
    left, order = rng.sample(choices, len(choices)), []
    seen: Counter[tuple[str, Any]] = Counter()
    while left:
        best = min(left, key=lambda cell: sum(seen[part] for part in cell.items()))
        left.remove(best)
        seen.update(best.items())
        order.append(best)
    return order


def draw(runs: int, measures: str = "default", healthy: bool = False) -> list[Trial]:
    """The first `runs` trials, or healthy ones alone; the same ones, and more, for a larger number."""
    names = [name for name in (*INJECTIONS, CONVERGED) if not healthy or is_healthy(name)]
    order = {name: balanced(cells(name), random.Random(f"cells {name}")) for name in names}
    found: dict[Trial, None] = {}  # in order
    for turn in range(10 * runs):
        for name in random.Random(f"turn {turn}").sample(names, len(names)):
            if len(found) == runs:
                return list(found)
            found.setdefault(_made(name, order[name][turn % len(order[name])], turn, measures))
    return list(found)


def _made(name: str, cell: Mapping[str, Any], turn: int, measures: str) -> Trial:
    rng = random.Random(f"{name} {turn}")
    task, algo = cell["task"], cell["algo"]
    share = rng.uniform(*LATE)
    onset = COPIES * int(share * TASKS[task].steps[algo] / COPIES) if cell["late"] else 0
    agent = rng.choice(TASKS[task].agents) if cell["alone"] else None
    source = SABOTAGE.get(name)
    variant = name if source is not None and source.flags and source.late else ""
    seed = rng.randint(1, SEEDS if needs_twin(name) else HEALTHY_SEEDS)
    return Trial(name, task, algo, cell["dose"], onset, agent, seed, variant, measures)


def is_healthy(name: str) -> bool:
    """Whether nothing is wrong with runs of this name."""
    return name in (CONVERGED, CONSTANT) or INJECTIONS[name].cause == NONE


def needs_twin(name: str) -> bool:
    """Whether harm, or weights to begin with, come from a twin."""
    return name == CONVERGED or not is_healthy(name)


def with_twins(trials: Sequence[Trial]) -> Iterator[Trial]:
    """The trials, behind their twins where harm or weights come from one; no twin twice."""
    done: set[Trial] = set()
    for trial in trials:
        for each in (*((trial.twin(),) if needs_twin(trial.name) else ()), trial):
            if each not in done:
                done.add(each)
                yield each
