"""What is compared with what: one row for each piece of work."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from benchmarks.peers import equal_work
from benchmarks.peers.turns import Arm

SPREAD = "particle/simple_spread_v3"
HUNDRED = {"max_cycles": 100}  # BenchMARL's length of an episode on mpe2
IPPO_COPIES = (16, 128, 256, 512, 2_048)


class Row(NamedTuple):
    """One piece of work; the first arm is ours."""

    key: str  # for `--only`
    title: str
    arms: list[Arm]
    rounds: int
    targets: Mapping[str, float] = MappingProxyType({})  # ours over this arm, at least
    one_process: bool = True  # whose processor time is all there is


def rows() -> list[Row]:
    """All of them."""
    return [*_small(), _large(), _random(), *map(_ippo, IPPO_COPIES), _python_envs()]


def _training(flags: dict[str, Any], iterations: int = 1) -> Arm:
    return Arm("ours", "ours_training", {"flags": flags, "iterations": iterations})


def _benchmarl(algo: str, task: str, experiment: dict[str, int]) -> Arm:
    settings = {"algorithm": algo, "task": task, "experiment": experiment}
    return Arm("BenchMARL", "benchmarl_training", settings, "benchmarl")


def _small() -> list[Row]:
    kwargs = {"continuous_actions": True, **HUNDRED}
    return [
        Row(
            f"small_{algo}",
            f"{algo.upper()} as BenchMARL has it by default, mpe2/simple_spread_v3, 10 copies, {what}, 256-256 tanh",
            [
                _training(equal_work.as_benchmarl(algo, "mpe2/simple_spread_v3", experiment, **kwargs)),
                _benchmarl(algo, "mpe2", experiment),
            ],
            3,
            {"BenchMARL": 1.5},
        )
        for algo, experiment, what in (
            ("mappo", equal_work.ON_POLICY, "45 epochs in minibatches of 400"),
            ("maddpg", equal_work.OFF_POLICY, "1,000 updates of 128 per 6,000 steps"),
        )
    ]


def _large() -> Row:
    flags = equal_work.as_benchmarl("mappo", "vmas/simple_spread", equal_work.LARGE)
    floor = {"flags": flags, "agents": 3, "obs": 14, "outputs": 2}
    return Row(
        "large",
        "MAPPO, vmas/simple_spread, 600 copies, 60,000 steps a batch, 10 epochs in minibatches of 4,096, 256-256 tanh",
        [
            _training(flags),
            _benchmarl("mappo", "vmas", equal_work.LARGE),
            Arm("floor: the bare passes", "floor", floor),
        ],
        3,
        {"BenchMARL": 1.0, "floor: the bare passes": 0.85},
    )


def _random() -> Row:
    play = {"copies": 1_024, "steps": 250}
    return Row(
        "random",
        "simple_spread, random actions, 1,024 copies",
        [
            Arm("ours", "ours_random", play | {"env": SPREAD, "steps": 1_000}),
            Arm("JaxMARL, jit and vmap", "jaxmarl_random", play, "jaxmarl"),
            Arm("VMAS", "vmas_random", play, "benchmarl"),
        ],
        7,
        {"JaxMARL, jit and vmap": 5.0, "VMAS": 5.0},
    )


def _ippo(copies: int) -> Row:
    iterations = max(1, 160 // copies)
    given = {"copies": copies, "steps": 128, "epochs": 4, "minibatches": 4, "hidden": [64, 64]}
    return Row(
        f"ippo_{copies}",
        f"IPPO as JaxMARL has it published, simple_spread, {copies:,} copies of 128 steps a batch, 64-64 tanh",
        [
            _training(equal_work.as_jaxmarl(given), iterations),
            Arm("JaxMARL, jit", "jaxmarl_ippo", given | {"iterations": iterations}, "jaxmarl"),
        ],
        5 if copies < 1_000 else 3,
    )


def _python_envs() -> Row:
    play = {"copies": 8, "workers": 2, "steps": 250}
    return Row(
        "python_envs",
        "mpe2/simple_spread_v3, random actions, 8 copies in 2 processes",
        [
            Arm("ours", "ours_random", play | {"env": "mpe2/simple_spread_v3"}),
            Arm("one raw environment", "raw_mpe2", {"steps": 2_000}),
            Arm("two raw environments at once: the machine's bound", "raw_mpe2", {"steps": 2_000, "processes": 2}),
            Arm("SuperSuit, 2 processes", "supersuit_envs", play, "supersuit"),
            Arm("AgileRL, 8 processes", "agilerl_envs", play | {"steps": 100}, "agilerl"),
        ],
        7,
        {"one raw environment": 1.6},
        one_process=False,
    )
