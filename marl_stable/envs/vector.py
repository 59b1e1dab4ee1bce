"""Copies of a Python environment as one batched environment: seeds, episodes, exact resume, and what failures cost.

Where the copies run, in this process or in workers, is their crew's concern. Shapes: E copies, A agents of one group,
O observation features, D action features, T steps of a running episode.
"""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marl_stable.envs.base import Mishap
from marl_stable.envs.copies import Arrays
from marl_stable.envs.crew import Crew, Failure
from marl_stable.types import EnvironmentFailure, PerGroup, Step, UsageError

Moves: TypeAlias = "dict[str, NDArray[Any]]"
"""One copy's actions in one step: `(A,)` int64 or `(A, D)` float32 per group."""


def episode_seed(seed: int, copy: int, episode: int) -> int:
    """The seed of one episode, from those of the run, the copy and the episode, so that no two share a stream.

    Below 2^31: some environments hand it to a C library as a signed number.
    """
    return int(np.random.SeedSequence((seed, copy, episode)).generate_state(1)[0]) >> 1


class VectorEnv:
    """A `BatchedEnv` over the copies of a crew.

    In this process an environment that fails is the end: UsageError in the first reset, EnvironmentFailure later.
    In workers up to `max_failures` are survived: the copies that a failure concerns lose their running episodes, which
    shows in the step as `base.lost` says, and begin their next ones; each failure is noted in `mishaps`. One more is an
    EnvironmentFailure. After any of them `state_dict` still gives the state before the step that failed.
    """

    def __init__(self, crew: Crew, device: torch.device, max_failures: int = 0) -> None:
        self.spec = crew.spec
        self.num_envs = len(crew.board.done)
        self.device = device
        self.replay_differs: tuple[int, ...] = ()
        self.mishaps: list[Mishap] = []
        self._crew = crew
        self._board = crew.board
        self._max_failures = max_failures
        self._failures = 0
        self._fresh = True  # nothing was begun yet
        self._obs = {name: array.copy() for name, array in self._board.arrays.obs.items()}  # as last returned
        self._seed = 0
        self._episodes = [0] * self.num_envs
        self._played: list[list[Moves]] = [[] for _ in range(self.num_envs)]  # since each copy's episode began

    def reset(self, seed: int) -> PerGroup:
        """Begin the first episode of every copy; the first observations, `(E, A, O)` per group."""
        self._seed = seed
        self._episodes = [0] * self.num_envs
        self._played = [[] for _ in range(self.num_envs)]
        with self._before_training():
            self._begin(range(self.num_envs), self._episodes)
        self._keep_observations()
        return self._observations()

    def step(self, action: PerGroup) -> Step:
        """Advance every copy by one step; copies whose episode ended begin the next."""
        actions = {group.name: action[group.name].detach().cpu().numpy().copy() for group in self.spec.groups}
        moves = [{name: rows[copy] for name, rows in actions.items()} for copy in range(self.num_envs)]
        for name, rows in actions.items():
            self._board.actions[name][...] = rows
        self._board.called[...] = True
        gone = self._survive(self._crew.step(), self._episodes, moves)
        ended = set(np.flatnonzero(self._board.done).tolist()) - gone
        outcome = self._board.taken()
        if ended or gone:
            episodes = [episode + (copy in ended or copy in gone) for copy, episode in enumerate(self._episodes)]
            gone |= self._begin(ended | gone, episodes) - ended
            for copy in gone:
                self._discard(outcome.at(copy), copy)
            self._episodes = episodes
        return self._commit(outcome, moves, ended | gone)

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
        differs = self._replay({name: obs.cpu().numpy() for name, obs in state["obs"].items()})
        for copy in differs:
            self._episodes[copy] += 1
        with self._before_training():
            differs |= self._begin(differs, self._episodes)
        for copy in differs:
            self._played[copy].clear()
        self.replay_differs = tuple(sorted(differs))
        self._keep_observations()
        return self._observations()

    def close(self) -> None:
        """Close every copy."""
        self._crew.close()

    @contextlib.contextmanager
    def _before_training(self) -> Iterator[None]:
        """The first episodes of all: an environment that cannot begin those is none to train on."""
        try:
            yield
        except EnvironmentFailure as failure:
            if self._fresh:
                raise UsageError(str(failure)) from failure.__cause__
            raise
        self._fresh = False

    def _begin(self, copies: Iterable[int], episodes: list[int]) -> set[int]:
        """Begin the `episodes` of `copies`, or later ones where that fails; all copies that lost an episode by it."""
        gone: set[int] = set()
        while copies:
            self._call(copies, episodes)
            copies = self._survive(self._crew.begin(), episodes)
            for copy in copies:
                episodes[copy] += 1
            gone.update(copies)
        return gone

    def _call(self, copies: Iterable[int], episodes: list[int]) -> None:
        """Make the next order one for `copies`, with the seeds of their episodes."""
        self._board.called[...] = False
        for copy in copies:
            self._board.called[copy] = True
            self._board.seeds[copy] = episode_seed(self._seed, copy, episodes[copy])

    def _survive(self, failures: list[Failure], episodes: list[int], moves: list[Moves] | None = None) -> set[int]:
        """Note `failures` of a step with `moves`, or of a beginning; the copies that lost their episodes.

        Raises EnvironmentFailure at the first that is one too many.
        """
        for failure in failures:
            told = self._told(failure, episodes, moves)
            self._failures += 1
            fatal = self._failures > self._max_failures
            if failure.worker is not None:
                where = {"worker": failure.worker} | ({} if failure.copy is None else {"copy": failure.copy})
                self.mishaps.append(Mishap(where, told, self._failures, self._max_failures, fatal))
                told += f" (failure {self._failures}; env.max_failures is {self._max_failures})" if fatal else ""
            if fatal:
                raise EnvironmentFailure(told) from failure.error
        return {copy for failure in failures for copy in failure.lost}

    def _told(self, failure: Failure, episodes: list[int], moves: list[Moves] | None) -> str:
        """One sentence: what failed, where, and why."""
        parts = [] if failure.worker is None else [f"worker {failure.worker}"]
        if failure.copy is None:
            event = "failed between steps"
            parts.append(f"copies {', '.join(map(str, failure.lost))}")
        else:
            copy = failure.copy
            parts += [f"copy {copy}", f"seed {episode_seed(self._seed, copy, episodes[copy])}"]
            event = "failed in reset"
            if moves is not None:
                event = f"failed in step {len(self._played[copy]) + 1} of an episode"
                action = {name: rows.tolist() for name, rows in moves[copy].items()}
                parts.append(f"action {textwrap.shorten(str(action), 300)}")
        return f"{self.spec.id} {event} ({', '.join(parts)}): {failure.reason}"

    def _discard(self, outcome: Arrays, copy: int) -> None:
        """Let one copy's step be one in which nobody acted, cut off where the copy last was."""
        for name, obs in outcome.obs.items():
            obs[...] = self._obs[name][copy]
        for name in outcome.reward:
            outcome.reward[name][...] = 0
            outcome.terminated[name][...] = False
            outcome.truncated[name][...] = True
            outcome.alive[name][...] = False
        for terms in outcome.terms.values():
            terms[...] = 0

    def _commit(self, outcome: Arrays, moves: list[Moves], over: set[int]) -> Step:
        """Write down the step only now that it went well, so that the state always is that of a whole step."""
        for copy, played in enumerate(self._played):
            if copy in over:
                played.clear()
            else:
                played.append(moves[copy])
        self._keep_observations()
        next_obs, reward, terminated, truncated, alive, terms = (self._tensors(kind) for kind in outcome)
        obs = self._observations() if over else next_obs
        done = np.zeros(self.num_envs, np.bool_)
        done[list(over)] = True
        return Step(obs, next_obs, reward, terminated, truncated, alive, self._tensor(done), terms)

    def _replay(self, wanted: dict[str, NDArray[np.float32]]) -> set[int]:
        """Repeat every copy's running episode; the copies that fail or do not arrive, bit for bit, at `wanted`."""
        everyone = range(self.num_envs)
        self._call(everyone, self._episodes)
        differs = {copy for failure in self._crew.begin() for copy in failure.lost}
        for t in range(max(map(len, self._played))):
            copies = [copy for copy in everyone if t < len(self._played[copy]) and copy not in differs]
            self._board.called[...] = False
            for copy in copies:
                self._board.called[copy] = True
                for name, rows in self._played[copy][t].items():
                    self._board.actions[name][copy] = rows
            differs.update(copy for failure in self._crew.step() for copy in failure.lost)
            differs.update(copy for copy in copies if self._board.done[copy])
        for name, obs in self._board.arrays.obs.items():
            differs.update(copy for copy in everyone if obs[copy].tobytes() != wanted[name][copy].tobytes())
        return differs

    def _keep_observations(self) -> None:
        for name, array in self._board.arrays.obs.items():
            self._obs[name][...] = array

    def _observations(self) -> PerGroup:
        """What was last returned, in memory of its own: whoever gets it may change it."""
        return {name: self._tensor(array.copy()) for name, array in self._obs.items()}

    def _tensors(self, arrays: dict[str, NDArray[Any]]) -> PerGroup:
        return {name: self._tensor(array) for name, array in arrays.items()}

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        """`array` on the device; where that is the CPU, in the same memory."""
        return torch.from_numpy(array).to(self.device)

    def _refuse_other_shape(self, state: dict[str, Any]) -> None:
        copies = len(state["episodes"])
        if copies != self.num_envs:
            raise UsageError(f"the saved state has {copies} copies of {self.spec.id}; env.num_envs is {self.num_envs}.")
        saved = {name: tuple(obs.shape) for name, obs in state["obs"].items()}
        here = {name: obs.shape for name, obs in self._obs.items()}
        if saved != here:
            raise UsageError(f"the saved state has observations {saved}; {self.spec.id} now has {here}.")


def _moves_of(actions: dict[str, Tensor]) -> list[Moves]:
    """The steps of one episode from their stacked form."""
    steps = len(next(iter(actions.values()))) if actions else 0
    arrays = {name: rows.cpu().numpy().copy() for name, rows in actions.items()}
    return [{name: rows[step] for name, rows in arrays.items()} for step in range(steps)]
