"""Looking at a trained policy: evaluation figures and animations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from marl_stable import configs
from marl_stable.config import EnvConfig, require
from marl_stable.envs import catalog
from marl_stable.evaluation import play, summarize
from marl_stable.folder import RunFolder
from marl_stable.policy import Policy, load_agent
from marl_stable.report.animation import write_animation
from marl_stable.types import EnvironmentFailure, EnvSpec, PerGroup, UsageError

COPIES = 32  # of an environment in Python; more would cost more to build than they save
FALLBACK_FPS = 10.0
MOST_STEPS = 1_000  # of an episode that is drawn; one that never ends must not fill the memory


def evaluate(
    run: Path,
    env_id: str | None = None,
    env_kwargs: dict[str, Any] | None = None,
    episodes: int = 100,
    seed: int = 0,
    checkpoint: str | None = None,
    stochastic: bool = False,
) -> dict[str, Any]:
    """Play `episodes` with a run's policy; what `eval --json` prints.

    Raises UsageError where the environment's groups or spaces are not those of the run.
    """
    _require_playable(episodes, seed)
    env_config = _env_config(run, env_id, env_kwargs)
    loaded = load_agent(run, checkpoint)
    copies = min(episodes, COPIES if env_config.num_envs == "auto" else max(COPIES, int(env_config.num_envs)))
    env = catalog.make(env_config, torch.device("cpu"), copies)
    _require_same(loaded.spec, env.spec)
    generator = torch.Generator().manual_seed(seed)
    agent = loaded.agent

    def act(obs: PerGroup) -> PerGroup:
        policies = agent.policy(obs).items()
        return agent.to_env({name: p.sample(generator) if stochastic else p.mode() for name, p in policies})

    played = play(env, act, episodes, seed)
    env.close()
    place = {"env": env_config.id, "episodes": episodes, "seed": seed, "checkpoint": loaded.checkpoint}
    return place | {"steps": loaded.steps} | summarize(played, env.spec)


def in_words(found: dict[str, Any]) -> str:
    """An evaluation as a few lines of text."""
    value = found["return"]
    low, high = value["ci95"]
    lines = [
        f"{found['env']}: {found['episodes']} episodes, {found['checkpoint']} checkpoint ({found['steps']:,} steps)",
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
    policy = Policy(load_agent(run, checkpoint))
    env = catalog.make_single(config.id, config.kwargs, render_mode="rgb_array")
    fps = float(getattr(env, "metadata", {}).get("render_fps", FALLBACK_FPS))
    try:
        write_animation(_frames(env, policy, episodes, seed, config.id), output, fps)
    except UsageError:
        raise
    except Exception as error:
        raise EnvironmentFailure(f"{config.id} failed while it was drawn: {type(error).__name__}: {error}") from error
    finally:
        env.close()


def _require_playable(episodes: int, seed: int) -> None:
    require(episodes > 0, "episodes", episodes, "at least 1")
    require(0 <= seed < 2**31, "seed", seed, "a whole number from 0 to 2147483647")


def _frames(env: Any, policy: Policy, episodes: int, seed: int, env_id: str) -> Iterator[NDArray[np.uint8]]:
    from gymnasium.spaces.utils import flatten

    for episode in range(episodes):
        observations, _ = env.reset(seed=seed + episode)
        policy.reset()
        yield _frame(env, env_id)
        for _ in range(MOST_STEPS):
            rows = {agent: flatten(env.observation_space(agent), obs) for agent, obs in observations.items()}
            observations, _, terminated, truncated, _ = env.step(policy(rows))
            yield _frame(env, env_id)
            if not env.agents or all(terminated[agent] or truncated[agent] for agent in terminated):
                break


def _frame(env: Any, env_id: str) -> NDArray[np.uint8]:
    frame = env.render()
    if not isinstance(frame, np.ndarray):
        raise UsageError(f"{env_id} draws no picture with render_mode='rgb_array'; give its factory a render_mode.")
    return frame


def _env_config(run: Path, env_id: str | None, env_kwargs: dict[str, Any] | None) -> EnvConfig:
    """The environment to show: the run's own, another id with the run's arguments, or with others."""
    config = configs.read_run(RunFolder.open(run).config)
    kwargs = config.env.kwargs if env_kwargs is None else env_kwargs
    copies = config.env.num_envs if env_id is None or env_id == config.env.id else "auto"
    return EnvConfig(id=env_id or config.env.id, kwargs=kwargs, num_envs=copies, time_limit_as=config.env.time_limit_as)


def _require_same(trained: EnvSpec, here: EnvSpec) -> None:
    """The groups, their agents and their spaces must be the same; ids may differ."""
    for mine, other in zip(trained.groups, here.groups, strict=False):
        if (mine.agents, mine.obs_size, mine.action) != (other.agents, other.obs_size, other.action):
            raise UsageError(
                f"{here.id} has the group {other.name!r} with {len(other.agents)} agents, {other.obs_size} features, "
                f"{other.action}; the run was trained with {mine.name!r}: {len(mine.agents)}, {mine.obs_size}, "
                f"{mine.action}. Evaluate on an environment with the same spaces."
            )
    if len(trained.groups) != len(here.groups):
        names = ", ".join(group.name for group in here.groups)
        raise UsageError(f"{here.id} has the groups {names}; the run was trained with {len(trained.groups)} groups.")
