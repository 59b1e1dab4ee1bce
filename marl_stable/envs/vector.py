"""Copies of a Python environment in this process: NumPy arrays from each copy, tensors to training.

Shapes: E copies, A agents of one group, O observation features, D action features, T steps of a running episode.
"""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marl_stable.envs.pettingzoo import Arrays, ParallelCopy
from marl_stable.types import EnvironmentFailure, PerGroup, Step, UsageError

Moves: TypeAlias = "dict[str, NDArray[Any]]"
"""One copy's actions in one step: `(A,)` int64 or `(A, D)` float32 per group."""


def episode_seed(seed: int, copy: int, episode: int) -> int:
    """The seed of one episode, from those of the run, the copy and the episode, so that no two share a stream."""
    return int(np.random.SeedSequence((seed, copy, episode)).generate_state(1)[0])


class VectorEnv:
    """A `BatchedEnv` over `num_envs` copies of a `ParallelEnv`, each made by one call of `make_copy`.

    Raises UsageError where the environment cannot be made, cannot be reset or is not supported, and
    EnvironmentFailure where it fails later; `state_dict` then still gives the state before the step that failed.
    """

    def __init__(self, make_copy: Callable[[], Any], env_id: str, num_envs: int, device: torch.device) -> None:
        self.num_envs = num_envs
        self.device = device
        self.replay_differs: tuple[int, ...] = ()
        self._id = env_id
        self._copies = self._make_copies(make_copy)
        self.spec = self._copies[0].spec
        self._arrays = Arrays.zeros(self.spec, num_envs)  # what the copies write into, (E, A, ...) per group
        for index, copy in enumerate(self._copies):
            copy.write_into(self._arrays.at(index))
        self._obs = {name: array.copy() for name, array in self._arrays.obs.items()}  # as last returned, (E, A, O)
        self._seed = 0
        self._episodes = [0] * num_envs
        self._played: list[list[Moves]] = [[] for _ in range(num_envs)]  # since each copy's episode began

    def reset(self, seed: int) -> PerGroup:
        """Begin the first episode of every copy; the first observations, `(E, A, O)` per group."""
        self._seed = seed
        self._episodes = [0] * self.num_envs
        self._played = [[] for _ in range(self.num_envs)]
        for copy in range(self.num_envs):
            self._begin(copy, 0, UsageError)
        self._keep_observations()
        return self._tensors(self._arrays.obs)

    def step(self, action: PerGroup) -> Step:
        """Advance every copy by one step; copies whose episode ended begin the next."""
        actions = {group.name: action[group.name].detach().cpu().numpy().copy() for group in self.spec.groups}
        moves = [{name: rows[copy] for name, rows in actions.items()} for copy in range(self.num_envs)]
        done = [self._advance(copy, moves[copy]) for copy in range(self.num_envs)]
        next_obs, reward, terminated, truncated, alive = (self._tensors(kind) for kind in self._arrays)
        obs = next_obs
        if any(done):
            for copy in np.flatnonzero(done):
                self._begin(int(copy), self._episodes[copy] + 1, EnvironmentFailure)
            obs = self._tensors(self._arrays.obs)
        self._commit(moves, done)
        over = torch.tensor(done, device=self.device)
        return Step(obs, next_obs, reward, terminated, truncated, alive, over)

    def state_dict(self) -> dict[str, Any]:
        """Seed, episodes, the running episodes' actions and the observations: plain types and tensors."""
        return {
            "seed": self._seed,
            "episodes": list(self._episodes),
            "actions": [
                {name: torch.from_numpy(np.stack([moves[name] for moves in played])) for name in played[0]}
                if played
                else {}
                for played in self._played
            ],  # per copy (T, A) or (T, A, D) per group
            "obs": {name: torch.from_numpy(array.copy()) for name, array in self._obs.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> PerGroup:
        """Repeat each running episode from its seed and its actions; the observations to act on next.

        A copy that arrives at another observation begins a new episode and is listed in `replay_differs`. Raises
        UsageError where the state is that of another number of copies or of other groups.
        """
        self._refuse_other_shape(state)
        self._seed = state["seed"]
        self._episodes = list(state["episodes"])
        self._played = [_moves_of(actions) for actions in state["actions"]]
        differs = []
        for copy in range(self.num_envs):
            wanted = {name: obs[copy].cpu().numpy() for name, obs in state["obs"].items()}
            if not self._replay(copy, wanted):
                differs.append(copy)
                self._episodes[copy] += 1
                self._played[copy] = []
                self._begin(copy, self._episodes[copy], UsageError)
        self.replay_differs = tuple(differs)
        self._keep_observations()
        return self._tensors(self._arrays.obs)

    def close(self) -> None:
        """Close every copy; what fails in closing is of no consequence any more."""
        for copy in self._copies:
            with contextlib.suppress(Exception):
                copy.close()

    def _make_copies(self, make_copy: Callable[[], Any]) -> list[ParallelCopy]:
        copies: list[ParallelCopy] = []
        for index in range(self.num_envs):
            try:
                copies.append(ParallelCopy(make_copy(), self._id))
            except UsageError:
                raise
            except Exception as error:
                raise UsageError(f"{self._id} cannot be made (copy {index}): {_in_words(error)}") from error
            if copies[index].spaces != copies[0].spaces:
                raise UsageError(
                    f"copy {index} of {self._id} has other agents or spaces than copy 0; they must be equal."
                )
        if len({id(copy.env) for copy in copies}) < len(copies):
            raise UsageError(f"{self._id} gives the same object again; its factory must make a new one at every call.")
        return copies

    def _begin(self, copy: int, episode: int, failure: type[UsageError] | type[EnvironmentFailure]) -> None:
        seed = episode_seed(self._seed, copy, episode)
        try:
            self._copies[copy].reset(seed)
        except Exception as error:
            raise failure(f"{self._id} failed in reset (copy {copy}, seed {seed}): {_in_words(error)}") from error

    def _advance(self, copy: int, moves: Moves) -> bool:
        try:
            return self._copies[copy].step(moves).done
        except Exception as error:
            seed = episode_seed(self._seed, copy, self._episodes[copy])
            action = textwrap.shorten(str({name: rows.tolist() for name, rows in moves.items()}), 300)
            raise EnvironmentFailure(
                f"{self._id} failed in step {len(self._played[copy]) + 1} of an episode (copy {copy}, seed {seed}, "
                f"action {action}): {_in_words(error)}"
            ) from error

    def _commit(self, moves: list[Moves], done: list[bool]) -> None:
        """Write down the step only now that no copy failed in it, so that the state always is that of a whole step."""
        for copy, over in enumerate(done):
            if over:
                self._episodes[copy] += 1
                self._played[copy] = []
            else:
                self._played[copy].append(moves[copy])
        self._keep_observations()

    def _replay(self, copy: int, wanted: dict[str, NDArray[np.float32]]) -> bool:
        """Repeat the copy's running episode; whether it arrives at the observation `wanted`, bit for bit."""
        env = self._copies[copy]
        try:
            obs = env.reset(episode_seed(self._seed, copy, self._episodes[copy]))
            over = any(env.step(moves).done for moves in self._played[copy])
        except Exception:  # an environment that cannot repeat its episode: the caller reports it
            return False
        return not over and all(obs[name].tobytes() == wanted[name].tobytes() for name in obs)

    def _keep_observations(self) -> None:
        for name, array in self._arrays.obs.items():
            self._obs[name][...] = array

    def _tensors(self, arrays: dict[str, NDArray[Any]]) -> PerGroup:
        return {name: torch.from_numpy(array).to(self.device, copy=True) for name, array in arrays.items()}

    def _refuse_other_shape(self, state: dict[str, Any]) -> None:
        copies = len(state["episodes"])
        if copies != self.num_envs:
            raise UsageError(f"the saved state has {copies} copies of {self._id}; env.num_envs is {self.num_envs}.")
        saved = {name: tuple(obs.shape) for name, obs in state["obs"].items()}
        here = {name: obs.shape for name, obs in self._obs.items()}
        if saved != here:
            raise UsageError(f"the saved state has observations {saved}; {self._id} now has {here}.")


def _moves_of(actions: dict[str, Tensor]) -> list[Moves]:
    """The steps of one episode from their stacked form."""
    steps = len(next(iter(actions.values()))) if actions else 0
    arrays = {name: rows.cpu().numpy().copy() for name, rows in actions.items()}
    return [{name: rows[step] for name, rows in arrays.items()} for step in range(steps)]


def _in_words(error: Exception) -> str:
    text = str(error) if isinstance(error, EnvironmentFailure) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())
