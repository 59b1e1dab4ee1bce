"""What the stress suite puts a training through: the conditions by number, and the tasks they are set in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from benchmarks.faults.conditions import FAULTS
from benchmarks.sabotage import POOR
from marl_stable.agents.config import default_config
from marl_stable.config import EnvConfig

Event = Literal["raise", "hang", "kill"]
Place = tuple[str, str]  # a task and an algorithm

ARMS: dict[str, dict[str, Any]] = {"default": {}, "plain": {"measures": "none", "stability": "off"}}
DISTORTED = "benchmarks.faults:distorted"
DRIFTS = 10  # how often in a run features drift by the dose
BOX = {"continuous_actions": True}


class Task(NamedTuple):
    """Where to learn, how long by algorithm, and in how many copies at once."""

    env: str
    kwargs: Mapping[str, Any]
    steps: Mapping[str, int]
    copies: int = 256


TASKS = {
    "spread": Task("particle/simple_spread_v3", {}, {"mappo": 300_000, "maddpg": 100_000}),
    "spread_box": Task("particle/simple_spread_v3", BOX, {"mappo": 300_000, "matd3": 100_000}),
    "spread_apart": Task("particle/simple_spread_v3", {"local_ratio": 0.9}, {"mappo": 300_000, "maddpg": 100_000}),
    "speaker": Task("particle/simple_speaker_listener_v4", {}, {"mappo": 150_000, "maddpg": 60_000}),
    "remember": Task("marl_stable.envs.probe:Remember", {}, {"mappo": 60_000}, copies=32),
    "lamps": Task("benchmarks.trouble:Lamps", {}, {"mappo": 64_000, "maddpg": 30_000}, copies=32),
}
USUAL: tuple[Place, ...] = (("spread", "mappo"), ("speaker", "maddpg"))
WIDE: tuple[Place, ...] = (("speaker", "mappo"), ("spread", "maddpg"))  # a second task for each family
IN_BOX: tuple[Place, ...] = (("spread_box", "mappo"), ("spread_box", "matd3"))
APART: tuple[Place, ...] = (("spread_apart", "mappo"), ("spread_apart", "maddpg"))  # collisions count as much as goals
SPREAD: tuple[Place, ...] = (("spread", "mappo"), ("spread", "maddpg"))
IN_PYTHON: tuple[Place, ...] = (("lamps", "mappo"), ("lamps", "maddpg"))
FEW = {"env__num_envs": 32}  # copies, where episodes are long
MEMORY = {"algo__network__recurrent": "gru"}


class Condition(NamedTuple):
    """One thing that makes learning hard, or that breaks something on the way."""

    number: int
    name: str
    fault: str = "clean"  # one of FAULTS, at its usual dose
    onset: float = 0.0  # share of the run at which it begins
    options: Mapping[str, Any] = {}  # of the fault
    flags: Mapping[str, Any] = {}
    rates: Mapping[str, float] = {}  # field of the configuration -> times the algorithm's default rate
    sabotage: tuple[str, float] | None = None  # from the first step on: its name and dose
    event: Event | None = None
    reference: str = "clean"  # the condition whose usual training sets the mark
    true_reward: bool = True  # scored without the faults of the reward
    explained_by: tuple[str, ...] = ()  # causes that are the right explanation
    logged: str = ""  # what the guard is to do about it, and to log
    may_stop: bool = False  # whether a stop with the right explanation is worth half
    places: tuple[Place, ...] = USUAL
    wide: tuple[Place, ...] = WIDE
    mark_alone: bool = False  # only there to set a mark, not in the table
    slow: bool = False  # whether more of the same might do: measured with larger budgets as well

    def flags_for(self, place: Place, times: int = 1) -> dict[str, Any]:
        """What `ms.train` is told, but for seed and folder, with so many times the usual budget."""
        task, algo = TASKS[place[0]], place[1]
        steps = times * task.steps[algo]
        base = float(default_config(algo).lr)
        plain = task.env == "benchmarks.trouble:Lamps"
        env = {"env__workers": 2, "env__step_timeout": 20.0} if plain else {}
        return {
            "algo": algo,
            "env": task.env if plain else DISTORTED,
            "env__kwargs": dict(task.kwargs) if plain else self.env_kwargs(place, times),
            "env__num_envs": task.copies,
            "total_steps": steps,
            "eval_every": 0,
            "checkpoint_every": steps // 10,
            **env,
            **FAULTS[self.fault].flags,
            **self.flags,
            **{f"algo__{name}": factor * base for name, factor in self.rates.items()},
        }

    def env_kwargs(self, place: Place, times: int = 1) -> dict[str, Any]:
        """The arguments of the distorted environment."""
        task = TASKS[place[0]]
        length = times * task.steps[place[1]] // task.copies  # of the run, in steps of a copy
        kwargs = FAULTS[self.fault].kwargs(task.env, task.kwargs, onset=int(self.onset * length))
        for fault in kwargs["faults"]:
            if fault["kind"] == "obs_drift":
                fault["period"] = max(1, length // DRIFTS)
            fault |= self.options
        return kwargs

    def scored_on(self, place: Place, times: int = 1) -> EnvConfig:
        """Where the policy is scored: as it was trained at the end, but for faults of the reward."""
        task = TASKS[place[0]]
        if task.env == "benchmarks.trouble:Lamps":
            return EnvConfig(id=task.env, kwargs=dict(task.kwargs))
        played = times * task.steps[place[1]] // task.copies
        kwargs = self.env_kwargs(place, times) | {"score": self.true_reward}
        return EnvConfig(id=DISTORTED, kwargs=kwargs | ({"began_at": played} if kwargs["faults"] else {}))


def _deep(layers: int) -> Condition:
    flags = {"algo__network__hidden": (64,) * layers}
    causes = ("vanishing_gradients", "exploding_gradients", "activation_growth")
    return Condition(17, f"deep network, {layers} layers", flags=flags, explained_by=causes, may_stop=True, slow=True)


def _fast(name: str, field: str) -> Condition:
    causes = ("learning_rate_too_high",)
    return Condition(19, name, rates={field: 30.0}, explained_by=causes, logged="lowered_rate", may_stop=True)


def _flipped(name: str, **more: Any) -> Condition:
    """Collisions pay what they cost before: one term alone, since agents flee a goal whose sign is flipped for ever."""
    own: dict[str, Any] = {"options": {"term": "collisions"}, "true_reward": False, "places": APART, "wide": ()}
    return Condition(8, name, "reward_flip", explained_by=("reward_shift",), **own, **more)


_PAIR = ("activation_growth", "exploding_gradients")
CONDITIONS = [
    Condition(0, "clean", wide=(*WIDE, *IN_BOX)),
    Condition(1, "reward tiny", "reward_tiny"),
    Condition(2, "reward huge", "reward_huge"),
    Condition(3, "reward offset", "reward_offset"),
    Condition(4, "rare spike", "reward_spike"),
    Condition(5, "noisy reward", "reward_noise", slow=True),
    Condition(6, "delayed reward", "reward_delay", slow=True),
    Condition(7, "sparse reward", "reward_sparse", slow=True),
    _flipped("reward shift", onset=0.5, reference="flipped", slow=True),
    _flipped("flipped", mark_alone=True),
    Condition(9, "observation scale", "obs_scale"),
    Condition(10, "constant features", "obs_constant"),
    Condition(11, "irrelevant noise", "obs_noise", slow=True),
    Condition(12, "NaN observation", "obs_nan"),
    Condition(13, "infinite reward", "reward_inf"),
    Condition(14, "NaN sensor", "obs_nan_sensor", onset=0.3, explained_by=("observation_non_finite",), may_stop=True),
    Condition(15, "drifting observation", "obs_drift", slow=True),
    Condition(16, "tiny action range", "action_range", places=IN_BOX, wide=()),
    _deep(8),
    _deep(12),
    Condition(18, "poor network", flags=POOR, sabotage=("large_weights", 10.0), explained_by=_PAIR, may_stop=True),
    _fast("rate x30", "lr"),
    _fast("actor's rate x30", "actor_lr"),
    _fast("critic's rate x30", "critic_lr"),
    Condition(20, "rate / 100", rates={"lr": 0.01}, explained_by=("learning_rate_too_low",), may_stop=True),
    Condition(21, "long horizon", "long_horizon", flags=FEW, reference="horizon", places=SPREAD, wide=(), slow=True),
    Condition(
        21, "horizon", "long_horizon", flags=FEW | {"algo__gamma": "auto"}, places=SPREAD, wide=(), mark_alone=True
    ),
    Condition(22, "dying agents", "dying_agents", reference="deaths", places=SPREAD, wide=()),
    Condition(22, "deaths", "dying_agents", options={"garbage": 0.0}, places=SPREAD, wide=(), mark_alone=True),
    Condition(
        23,
        "long recurrence",
        flags=MEMORY | {"algo__chunk_length": 200},
        reference="recurrence",
        places=(("remember", "mappo"),),
        wide=(),
    ),
    Condition(23, "recurrence", flags=MEMORY, places=(("remember", "mappo"),), wide=(), mark_alone=True),
    Condition(24, "environment crash", event="raise", reference="lamps", places=IN_PYTHON, wide=()),
    Condition(24, "environment hang", event="hang", reference="lamps", places=IN_PYTHON, wide=()),
    Condition(24, "lamps", places=IN_PYTHON, wide=(), mark_alone=True),
    Condition(25, "kill -9 and resume", event="kill"),
]
BY_NAME = {condition.name: condition for condition in CONDITIONS}
