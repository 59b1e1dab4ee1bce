"""Single-agent environments: a `gymnasium.Env` with the interface of a `ParallelEnv` whose only agent is `agent_0`."""

from __future__ import annotations

from typing import Any

import gymnasium

from marl_stable.conversion import unknown
from marl_stable.types import UsageError

AGENT = "agent_0"


class SingleAgent:
    """A `gymnasium.Env` as a `ParallelEnv` with one agent."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self.env = env
        self.metadata = env.metadata
        self.render_mode = env.render_mode
        self.possible_agents = [AGENT]
        self.agents: list[str] = []

    @property
    def unwrapped(self) -> gymnasium.Env[Any, Any]:
        """The environment itself, without wrappers."""
        return self.env.unwrapped

    def observation_space(self, agent: str) -> gymnasium.Space[Any]:
        """The environment's observation space."""
        return self.env.observation_space

    def action_space(self, agent: str) -> gymnasium.Space[Any]:
        """The environment's action space."""
        return self.env.action_space

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Begin an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        self.agents = [AGENT]
        return {AGENT: observation}, {AGENT: info}

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Advance by one step."""
        observation, reward, terminated, truncated, info = self.env.step(actions[AGENT])
        if terminated or truncated:
            self.agents = []
        return {AGENT: observation}, {AGENT: reward}, {AGENT: terminated}, {AGENT: truncated}, {AGENT: info}

    def render(self) -> Any:
        """Whatever the environment's render gives."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


def make(name: str, kwargs: dict[str, Any], render_mode: str | None = None) -> SingleAgent:
    """The registered environment `name`, made with `kwargs`.

    Raises UsageError for an unknown name (with the nearest known ones), a missing package and arguments that the
    environment does not take.
    """
    extra: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    try:
        # The checker repeats, as warnings, what the adapter refuses; it would also slow the first step of every copy.
        return SingleAgent(gymnasium.make(name, disable_env_checker=True, **extra, **kwargs))
    except (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError) as error:
        remedy = f" (pip install {error.name})" if isinstance(error, ModuleNotFoundError) and error.name else ""
        raise UsageError(f"gymnasium/{name} needs a package that is not installed: {error}{remedy}") from error
    except (gymnasium.error.UnregisteredEnv, gymnasium.error.DeprecatedEnv) as error:
        known = [f"gymnasium/{known}" for known in gymnasium.registry]
        remedy = f"Gymnasium says: {error}"
        raise unknown("environment", f"gymnasium/{name}", known, remedy) from error
    except (TypeError, gymnasium.error.Error) as error:
        raise UsageError(f"gymnasium/{name} cannot be made with env.kwargs {kwargs}: {error}") from error
