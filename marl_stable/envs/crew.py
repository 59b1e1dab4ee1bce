"""Copies of a Python environment, stepped one after the other in one process. NumPy only, as workers have no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from marl_stable.envs.board import Board
from marl_stable.envs.copies import Copy
from marl_stable.envs.terms import find_terms
from marl_stable.types import EnvironmentFailure, EnvSpec, UsageError

MakeCopy: TypeAlias = "Callable[[], Copy]"
TermNames: TypeAlias = "Mapping[str, tuple[str, ...]]"


class Failure(NamedTuple):
    """Why copies cannot go on with their episodes; they must begin others."""

    reason: str
    lost: tuple[int, ...]
    copy: int | None  # the one at fault, where that is known
    worker: int | None = None  # None: this process
    error: BaseException | None = None


class Crew(Protocol):
    """All copies of an environment, wherever they run."""

    spec: EnvSpec
    board: Board

    def begin(self) -> list[Failure]:
        """Begin an episode from `board.seeds` in every copy of `board.called`, making anew what had failed."""

    def step(self) -> list[Failure]:
        """Advance every copy of `board.called` by its `board.actions`, and note the ends in `board.done`."""

    def close(self) -> None:
        """Release what the copies hold."""


class LocalCrew:
    """Copies `first`, `first + 1`, ... in this process, each made by one call of `make_copy`.

    Raises UsageError where the environment cannot be made or is not supported.
    """

    def __init__(
        self, make_copy: MakeCopy, env_id: str, count: int, first: int = 0, terms: TermNames | None = None
    ) -> None:
        """`terms`: names by group; where they are not given, the first copy is played to find them."""
        self._make_copy = make_copy
        self._copies = dict(enumerate(_make_copies(make_copy, env_id, range(first, first + count)), first))
        self._terms = find_terms(self._copies[first]) if terms is None else terms
        for copy in self._copies.values():
            copy.name_terms(self._terms)
        self._broken: set[int] = set()
        self.spec = self._copies[first].spec
        self.use(Board(self.spec, first + count))

    def use(self, board: Board) -> None:
        """Take orders from another `board`, and write to it."""
        self.board = board
        for index, copy in self._copies.items():
            copy.write_into(board.arrays.at(index))

    def begin(self) -> list[Failure]:
        """Begin an episode in every copy that is called, in a new environment where the last one failed."""
        return self._each(self._begin)

    def step(self) -> list[Failure]:
        """Advance every copy that is called; one that fails keeps none of the others from going on."""
        return self._each(self._step)

    def close(self) -> None:
        """Close every copy; what fails in closing is of no consequence any more."""
        for copy in self._copies.values():
            with contextlib.suppress(Exception):
                copy.close()

    def _each(self, work: Callable[[int], None]) -> list[Failure]:
        failures = []
        busy = self.board.busy
        for index in np.flatnonzero(self.board.called).tolist():
            if index not in self._copies:
                continue
            busy[index] = True
            try:
                work(index)
            except (Exception, SystemExit) as error:  # a window that is closed may end the program
                self._broken.add(index)
                failures.append(Failure(in_words(error), (index,), index, error=error))
            busy[index] = False
        return failures

    def _begin(self, index: int) -> None:
        if index in self._broken:
            with contextlib.suppress(Exception):
                self._copies[index].close()
            copy = self._make_copy()
            copy.name_terms(self._terms)
            copy.write_into(self.board.arrays.at(index))
            self._copies[index] = copy
            self._broken.remove(index)
        self._copies[index].reset(int(self.board.seeds[index]))

    def _step(self, index: int) -> None:
        board = self.board
        moves = {name: rows[index] for name, rows in board.actions.items()}
        board.done[index] = self._copies[index].step(moves).done


def in_words(error: BaseException) -> str:
    """The error in one line."""
    text = str(error) if isinstance(error, EnvironmentFailure | UsageError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def _make_copies(make_copy: MakeCopy, env_id: str, indices: Iterable[int]) -> list[Copy]:
    copies: list[Copy] = []
    for index in indices:
        try:
            copies.append(make_copy())
        except UsageError:
            raise
        except (Exception, SystemExit) as error:
            raise UsageError(f"{env_id} cannot be made (copy {index}): {in_words(error)}") from error
        if (copies[-1].spaces, copies[-1].spec) != (
            copies[0].spaces,
            copies[0].spec,
        ):  # masks in infos show in specs only
            raise UsageError(f"copy {index} of {env_id} has other agents or spaces than copy 0; they must be equal.")
    if len({id(getattr(copy.env, "unwrapped", copy.env)) for copy in copies}) < len(copies):
        raise UsageError(f"{env_id} gives the same object again; its factory must make a new one at every call.")
    return copies
