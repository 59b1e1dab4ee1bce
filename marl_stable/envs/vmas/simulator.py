"""VMAS's own environment, with what it lacks: random numbers of its own, its state, and new episodes in some copies.

Shapes: E copies, N agents, O observation features, D action features.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from typing import Any

import torch
from torch import Tensor

from marl_stable.envs.vmas import generators, object_state
from marl_stable.envs.vmas.generators import OwnGenerators
from marl_stable.types import EnvironmentFailure

Seen = list[Tensor]
"""What each agent observes, (E, O)."""


class Simulator:
    """E copies of one VMAS scenario; `env` is VMAS's environment of them."""

    def __init__(self, name: str, num_envs: int, device: torch.device, max_steps: int, **kwargs: Any) -> None:
        self.env_id, self.num_envs, self.device = f"vmas/{name}", num_envs, device
        self.generators = OwnGenerators(device)
        self.env = self._make(name, {"max_steps": max_steps, **kwargs})
        self.agents = [agent.name for agent in self.env.agents]
        self.sizes = [obs.shape[1] for obs in self.observe()]  # (N,) features of each agent's observation
        self._can_mix = True
        self._settle()
        self._new = object_state.take(self._root())

    def begin(self, seed: int) -> Seen:
        """Begin the first episode of every copy; the same seed draws the same episodes."""
        self._put(self._new)  # some scenarios carry state over a reset
        self.generators.seed(seed)
        with self.generators.in_use():
            self._reset_all()
            return self.observe()

    def step(self, actions: list[Tensor]) -> Any:
        """Advance every copy by each agent's action, `(E,)` int64 or `(E, D)` float; VMAS changes their shapes.

        What VMAS makes of it: observations, rewards, ended copies, those cut off, and infos. Raises EnvironmentFailure
        where VMAS refuses the actions or fails.
        """
        try:
            with self.generators.in_use():
                return self._call("step", actions)
        except Exception as error:
            told = str(error) or "an action is not a number, or it is outside its bounds"
            raise EnvironmentFailure(f"{self.env_id} failed in a step: {type(error).__name__}: {told}") from error

    def observe(self) -> Seen:
        """What agents see now."""
        with self.generators.in_use():
            return [features(obs) for obs in self._call("get_from_scenario", True, False, False, False)[0]]

    def begin_anew(self, ended: Tensor) -> Seen:
        """Begin new episodes in the copies `ended` (E,); what is seen then in all copies."""
        with self.generators.in_use():
            self._restart(ended)
            return self.observe()

    def state_dict(self) -> dict[str, Any]:
        """All tensors and numbers inside VMAS's objects, and the generators."""
        return {"world": object_state.take(self._root()), "generators": self.generators.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        """Go on where `state_dict` was taken; False where VMAS's objects are other ones."""
        fits = self._put(state["world"])
        self.generators.load_state_dict(state["generators"])
        return fits

    def looks(self, state: dict[str, Any]) -> tuple[Seen, Seen]:
        """What agents see where `state` was taken, looking twice: two things where observations are noisy."""
        seen = []
        with self.generators.in_use():
            for _ in range(2):
                seen.append(self.observe())
                object_state.put(self._root(), state["world"])
        self.generators.load_state_dict(state["generators"])
        return seen[0], seen[1]

    def close(self) -> None:
        """Close the window that pictures were drawn in."""
        if self.env.viewer is not None:
            self.env.viewer.close()
            self.env.viewer = None

    def _make(self, name: str, kwargs: dict[str, Any]) -> Any:
        """VMAS's environment, made with generators of our own so that two are made alike."""
        vmas = importlib.import_module("vmas")
        shared = vmas.simulator.environment.Environment.vmas_random_state  # what all instances draw from
        before = list(shared)
        with self.generators.in_use(), warnings.catch_warnings():
            warnings.filterwarnings("error", message="Scenario kwargs")  # VMAS only warns of misspelt ones
            shared[:] = self.generators.states[:3]
            try:
                return vmas.make_env(
                    name, self.num_envs, self.device, clamp_actions=True, terminated_truncated=True, **kwargs
                )
            finally:
                shared[:] = before

    def _settle(self) -> None:
        """One step of doing nothing: scenarios make much of what holds their state in their first step."""
        self.infos = self.step([self._nothing(space) for space in self.env.action_space])[-1]

    def _nothing(self, space: Any) -> Tensor:
        if hasattr(space, "low"):
            return torch.zeros(self.num_envs, *space.shape, device=self.device)
        return torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)

    def _restart(self, ended: Tensor) -> None:
        """Restart `ended`: restart all, and give the others back their rows of everything.

        VMAS restarts one copy in the time that it takes for all; and to do so changes others in some scenarios
        (`ball_trajectory` gives all of them the shaping of the one). It is left to VMAS where something without rows
        changes at a restart (`football`).
        """
        copies = ended.nonzero().flatten().tolist()
        if len(copies) == self.num_envs:
            self._reset_all()
            return
        if self._can_mix:
            before, streams = object_state.take(self._root()), generators.read(self.generators.cuda)
            self._reset_all()
            if object_state.keep_rows(self._root(), before, ~ended):
                return
            self._can_mix = False
            if not self._put(before):
                raise EnvironmentFailure(f"{self.env_id} cannot restart one copy and leave the others as they were")
            generators.write(streams, self.generators.cuda)
        for copy in copies:
            self._call("reset_at", copy, return_observations=False)

    def _reset_all(self) -> None:
        with self.generators.in_use():
            self._call("reset", return_observations=False)

    def _put(self, state: object_state.Snapshot) -> bool:
        """Give the simulator `state`; False where its objects are other ones.

        Some scenarios drop objects at a reset and make them again in the next step (`football`).
        """
        if object_state.put(self._root(), state):
            return True
        self._settle()
        if object_state.put(self._root(), state):
            return True
        self._reset_all()
        return object_state.put(self._root(), state)

    def _root(self) -> list[Any]:
        """Where the state hangs: the entities first, so that they are named by their places in the world."""
        world = self.env.world
        return [world.landmarks, world.agents, self.env]

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """A method of VMAS without its exchange of generators, which are all instances' common ones."""
        return inspect.unwrap(getattr(type(self.env), method))(self.env, *args, **kwargs)


def features(obs: Any) -> Tensor:
    """One agent's observation, a tensor or a dict of them, as features (E, O)."""
    if isinstance(obs, dict):
        return torch.cat([features(part) for part in obs.values()], dim=1)
    flat: Tensor = obs.float().flatten(1)
    return flat
