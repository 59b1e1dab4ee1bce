"""Does it work with them: every environment id trains, saves, loads and evaluates, with MAPPO and with MADDPG.

    python -m benchmarks.environments                    # what is not in the table yet (half an hour for all)
    python -m benchmarks.environments --only classic/    # ids that contain a text, again

Three iterations each: this shows that an environment's spaces, agents, masks, turns and ends are handled, not that
it is learned. What is refused is refused in one sentence, which the table repeats. The armies of magent2 are left out:
three iterations with them take hours.
"""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

import marl_stable as ms
from benchmarks.tables import fill
from benchmarks.trials import RESULTS
from marl_stable.config import EnvConfig
from marl_stable.envs import catalog, names
from marl_stable.showing import evaluate
from marl_stable.types import Box, Discrete, EnvSpec, Group, UsageError

TABLE = RESULTS / "environments.md"
STEPS, COPIES, EPISODES = 192, 2, 2
HEAD = f"""Three iterations of {STEPS} steps, then loaded and evaluated: `python -m benchmarks.environments`.

| environment | agents x observation -> action | | MAPPO | MADDPG | seconds |
|---|---|---|---|---|---|"""
SHORT: dict[str, dict[str, Any]] = {
    "sisl/pursuit_v5": {"max_cycles": 15},
    "sisl/multiwalker_v9": {"max_cycles": 100},
    "butterfly/knights_archers_zombies_v11": {"max_cycles": 100},
    "mpe2/collect_treasure_v1": {"max_cycles": 10},
}
"""Arguments that keep evaluations of slow environments short."""
SETTINGS: dict[str, dict[str, Any]] = {
    "mappo": {"batch_size": STEPS, "num_minibatches": 2},
    "maddpg": {"train_every": STEPS, "warm_up": STEPS, "batch_size": 64, "steps_per_update": 48, "buffer_size": 2_000},
}


class Case(NamedTuple):
    """One row: an id with its arguments."""

    env: str
    kwargs: dict[str, Any]

    @property
    def title(self) -> str:
        """The id, and whether its actions are continuous."""
        return self.env + (", continuous" if self.kwargs.get("continuous_actions") else "")


def cases() -> list[Case]:
    """Every id of the catalog's families, mpe2 and its twins with both kinds of actions."""
    particle = [f"particle/{name}" for name in names.PARTICLE]
    mpe2 = [f"mpe2/{name}" for name in names.PETTINGZOO["mpe2"]]
    families = ("sisl", "butterfly", "classic")
    others = [f"{family}/{name}" for family in families for name in names.PETTINGZOO[family]]
    both = [
        Case(env, SHORT.get(env, {}) | {"continuous_actions": on}) for env in particle + mpe2 for on in (False, True)
    ]
    vmas = [Case(f"vmas/{name}", {"max_steps": 30}) for name in ("balance", "navigation", "transport", "simple_tag")]
    return [*both, *(Case(env, SHORT.get(env, {})) for env in others), *vmas, Case("gymnasium/CartPole-v1", {})]


def described(group: Group) -> str:
    """A group in a few characters: agents x observation -> action."""
    action = group.action
    if isinstance(action, Box):
        told = f"Box {len(action.low)}"
    else:
        told = f"Discrete {action.n}" if isinstance(action, Discrete) else f"MultiDiscrete {list(action.n)}"
    return f"{len(group.agents)} x {group.obs_size} -> {told}{', masked' if group.masked else ''}"


def spec_of(case: Case) -> EnvSpec:
    """What the environment looks like; UsageError where it is refused."""
    env = catalog.make(EnvConfig(id=case.env, kwargs=case.kwargs), torch.device("cpu"), 1)
    env.close()
    return env.spec


def tried(case: Case, algo: str) -> str:
    """Train three iterations, load, evaluate: `ok`, or the sentence that refuses."""
    settings = {f"algo__{key}": value for key, value in SETTINGS[algo].items()}
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = ms.train(
                algo=algo,
                env=case.env,
                env__kwargs=case.kwargs,
                env__num_envs=COPIES,
                total_steps=3 * STEPS,
                eval_episodes=EPISODES,
                run_dir=str(Path(folder) / "run"),
                quiet=True,
                **settings,
            )
            ms.load_policy(run.path)
            found = evaluate(run.path, episodes=EPISODES, checkpoint="last")
        except UsageError as refused:
            return str(refused)
    if run.status != "finished" or not math.isfinite(found["return"]["mean"]):
        return f"{run.status}, return {found['return']['mean']}"
    return "ok"


def row(case: Case) -> str:
    """One line of the table."""
    began = time.perf_counter()
    try:
        spec = spec_of(case)
    except UsageError as refused:
        return f"| {case.title} | | | refused: {refused} | |"
    groups = "; ".join(described(group) for group in spec.groups)
    results = [tried(case, algo) for algo in SETTINGS]
    seconds = time.perf_counter() - began
    return f"| {case.title} | {groups} | {'turns' if spec.turn_based else ''} | {' | '.join(results)} | {seconds:.0f} |"


def main() -> None:
    """Do what is asked for and write the table."""
    fill(TABLE, HEAD, cases(), row, __doc__)


if __name__ == "__main__":
    main()
