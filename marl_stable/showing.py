"""Looking at a trained policy: evaluation figures and animations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from marl_stable import configs
from marl_stable.acting import at_random, by_agent, mixed
from marl_stable.agents.base import Agent
from marl_stable.config import EnvConfig
from marl_stable.conversion import require, unknown
from marl_stable.envs import catalog, factory
from marl_stable.envs.copies import Copy
from marl_stable.evaluation import Act, play, summarize
from marl_stable.folder import RunFolder
from marl_stable.policy import load_agent
from marl_stable.report.animation import write_animation
from marl_stable.types import EnvironmentFailure, EnvSpec, UsageError, comparable

COPIES = 32  # of an environment in Python; more would cost more to build than they save
FALLBACK_FPS = 10.0
RANDOM = "random"  # the opponent by that name; a run folder of that name is ./random
OPPONENT_SEED = 1  # added to the seed of what the opponent draws, so that two equal agents do not draw the same
MOST_STEPS = 1_000  # of an episode that is drawn; one that never ends must not fill the memory


def evaluate(
    run: Path,
    env_id: str | None = None,
    env_kwargs: dict[str, Any] | None = None,
    episodes: int = 100,
    seed: int = 0,
    checkpoint: str | None = None,
    stochastic: bool = False,
    against: str | None = None,
    team: str | None = None,
) -> dict[str, Any]:
    """Play `episodes` with a run's policy; what `eval --json` prints.

    `against`: the run acts for `team` alone, and for the other teams another run (its folder) or `random`. Raises
    UsageError where the environment's groups or spaces are not those of the runs, and where there is no such team.
    """
    _require_playable(episodes, seed)
    env_config = _env_config(run, env_id, env_kwargs)
    loaded = load_agent(run, checkpoint)
    match = _match(loaded.spec, against, team)
    copies = min(episodes, COPIES if env_config.num_envs == "auto" else max(COPIES, int(env_config.num_envs)))
    env = catalog.make(env_config, torch.device("cpu"), copies)
    _require_same(loaded.spec, env.spec)
    act = by_agent(loaded.agent, torch.Generator().manual_seed(seed) if stochastic else None)
    if against is not None:
        groups = [group.name for group in loaded.spec.groups if group.team == team]
        act = mixed(env.spec, act, groups, _opponent(against, env.spec, seed + OPPONENT_SEED, stochastic))
    played = play(env, act, episodes, seed)
    env.close()
    counted = len(played.lengths)  # fewer than asked for where some would not end
    place = {"env": env_config.id, "episodes": counted, "seed": seed, "checkpoint": loaded.checkpoint}
    return place | {"steps": loaded.steps} | match | summarize(played, env.spec)


def in_words(found: dict[str, Any]) -> str:
    """An evaluation as a few lines of text."""
    value = found["return"]
    low, high = value["ci95"]
    lines = [
        f"{found['env']}: {found['episodes']} episodes, {found['checkpoint']} checkpoint ({found['steps']:,} steps)",
        *([f"{found['team']} against {found['against']}"] if "against" in found else []),
        f"return {value['mean']:.2f} (95% {low:.2f} to {high:.2f}), IQM {value['iqm']:.2f}, std {value['std']:.2f}",
        f"unit: {found['unit']}; mean episode length {found['episode_length']:.1f}",
    ]
    return "\n".join([*lines, *(f"  {agent}: {mean:.2f}" for agent, mean in found["per_agent"].items())])


def render(
    run: Path,
    output: Path,
    env_id: str | None = None,
    env_kwargs: dict[str, Any] | None = None,
    episodes: int = 3,
    seed: int = 0,
    checkpoint: str | None = None,
) -> None:
    """Write greedy episodes as an animation. Raises UsageError where the environment cannot be drawn."""
    _require_playable(episodes, seed)
    config = _env_config(run, env_id, env_kwargs)
    loaded = load_agent(run, checkpoint)
    env = catalog.make_single(config.id, config.kwargs, render_mode="rgb_array")
    fps = float(getattr(env, "metadata", {}).get("render_fps", FALLBACK_FPS))
    try:
        copy = factory.copy_of(env, config.id)
        _require_same(loaded.spec, copy.spec)
        write_animation(_frames(env, copy, loaded.agent, episodes, seed), output, fps)
    except UsageError:
        raise
    except Exception as error:
        raise EnvironmentFailure(f"{config.id} failed while it was drawn: {type(error).__name__}: {error}") from error
    finally:
        with contextlib.suppress(Exception):  # what was drawn, or why it was not, is what matters
            env.close()


def _match(spec: EnvSpec, against: str | None, team: str | None) -> dict[str, str]:
    """What an evaluation says of its opponents: nothing, or against whom which team was played."""
    if against is None and team is None:
        return {}
    teams = ", ".join(spec.teams)
    if len(spec.teams) == 1:
        raise UsageError(
            f"against and team need several teams; {spec.id} has one. env.teams makes several in training."
        )
    if against is None:
        raise UsageError(f"team is {team!r} without an opponent; add --against RUN or --against random.")
    if team is None:
        raise UsageError(f"against is {against!r} without a team to be played by the run; add --team, one of {teams}.")
    if team not in spec.teams:
        raise unknown("team", team, spec.teams, f"The teams are {teams}.")
    return {"against": against, "team": team}


def _opponent(against: str, spec: EnvSpec, seed: int, stochastic: bool) -> Act:
    """What `random`, or the best policy in the run folder `against`, does."""
    generator = torch.Generator().manual_seed(seed)
    if against == RANDOM:
        return at_random(spec, generator)
    loaded = load_agent(Path(against))
    _require_same(loaded.spec, spec, repr(against))
    return by_agent(loaded.agent, generator if stochastic else None)


def _require_playable(episodes: int, seed: int) -> None:
    require(episodes > 0, "episodes", episodes, "at least 1")
    require(0 <= seed < 2**31, "seed", seed, "a whole number from 0 to 2147483647")


def _frames(env: Any, copy: Copy, agent: Agent, episodes: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Pictures of `env`, which `copy` steps as training does, whatever its kind."""
    for episode in range(episodes):
        act, obs = by_agent(agent), copy.reset(seed + episode)
        yield _frame(env, copy.spec.id)
        for _ in range(MOST_STEPS):
            action = act({name: torch.from_numpy(rows.copy()).unsqueeze(0) for name, rows in obs.items()})
            step = copy.step({name: rows[0].numpy() for name, rows in action.items()})
            obs = step.obs
            yield _frame(env, copy.spec.id)
            if step.done:
                break


def _frame(env: Any, env_id: str) -> NDArray[np.uint8]:
    frame = None
    if hasattr(env, "render"):
        with contextlib.suppress(NotImplementedError):  # what PettingZoo's and Gymnasium's own classes say
            frame = env.render()
    if not isinstance(frame, np.ndarray):
        raise UsageError(f"{env_id} draws no picture with render_mode='rgb_array'; give its factory a render_mode.")
    return frame


def _env_config(run: Path, env_id: str | None, env_kwargs: dict[str, Any] | None) -> EnvConfig:
    """The environment to show: the run's own, another id with the run's arguments, or with others."""
    config = configs.read_run(RunFolder.open(run).config)
    kwargs = config.env.kwargs if env_kwargs is None else env_kwargs
    copies = config.env.num_envs if env_id is None or env_id == config.env.id else "auto"
    return replace(config.env, id=config.env.id if env_id is None else env_id, kwargs=kwargs, num_envs=copies)


def _require_same(trained: EnvSpec, here: EnvSpec, run: str = "the run") -> None:
    """The groups, their agents and their spaces must be the same; ids may differ."""
    for mine, other in zip(trained.groups, here.groups, strict=False):
        if comparable(mine)._replace(name=other.name, team=other.team, terms=other.terms) != comparable(other):
            raise UsageError(
                f"{here.id} has the group {other.name!r} with {len(other.agents)} agents, {other.obs_size} features, "
                f"{other.action}; {run} was trained with {mine.name!r}: {len(mine.agents)}, {mine.obs_size}, "
                f"{mine.action}. Evaluate on an environment with the same spaces."
            )
    if len(trained.groups) != len(here.groups):
        names = ", ".join(group.name for group in here.groups)
        raise UsageError(f"{here.id} has the groups {names}; {run} was trained with {len(trained.groups)} groups.")
