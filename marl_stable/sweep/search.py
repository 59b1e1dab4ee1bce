"""What a study searches: `--search` as text, the settings at the corners of it, and how a trial draws its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, get_args

from marl_stable.sweep.grid import keyed, kinds_of_flags, texts_of
from marl_stable.types import UsageError

if TYPE_CHECKING:
    from optuna.trial import Trial

FLAG = "--search"
SHAPE = "KEY=LOW..HIGH, KEY=log:LOW..HIGH or KEY=V1,V2, such as algo.lr=log:1e-4..1e-2"
LOG = "log:"
DIGITS = 6  # significant ones, with which a number is drawn, trained and told


class Span(NamedTuple):
    """A range of numbers, both ends in it."""

    key: str
    text: str
    low: float
    high: float
    log: bool
    whole: bool

    def ends(self) -> list[str]:
        """The values that must be fit for all others to be."""
        return [self._text(self.low), self._text(self.high)]

    def draw(self, trial: Trial) -> str:
        """What the trial is to use."""
        if self.whole:
            return self._text(trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log))
        drawn = trial.suggest_float(self.key, self.low, self.high, log=self.log)
        # Rounding must not leave the range: gamma below 1 shall not become 1.
        return self._text(min(max(float(f"{drawn:.{DIGITS}g}"), self.low), self.high))

    def _text(self, value: float) -> str:
        return str(int(value)) if self.whole else repr(value)


class Choices(NamedTuple):
    """Values that have no order."""

    key: str
    text: str
    texts: list[str]

    def ends(self) -> list[str]:
        """The values that must be fit."""
        return self.texts

    def draw(self, trial: Trial) -> str:
        """What the trial is to use."""
        return str(trial.suggest_categorical(self.key, self.texts))


Axis: TypeAlias = "Span | Choices"


def axes(words: Sequence[str]) -> list[Axis]:
    """What `--search` was given, as ranges and choices; UsageError where it is malformed or cannot be varied."""
    return [_axis(key, text) for key, text in keyed(words, FLAG, SHAPE)]


def corners(found: Sequence[Axis]) -> Iterator[dict[str, str]]:
    """Settings that hold every end and every choice at least once: where they are fit, so is what lies between."""
    for row in itertools.zip_longest(*(axis.ends() for axis in found)):
        yield {axis.key: axis.ends()[0] if text is None else text for axis, text in zip(found, row, strict=True)}


def _axis(key: str, text: str) -> Axis:
    kind = kinds_of_flags()[key]
    numeric = {int, float} & {kind, *get_args(kind)}
    if numeric and (text.startswith(LOG) or ".." in text):
        return _span(key, text, float not in numeric)
    texts = texts_of(key, text, FLAG)
    if len(set(texts)) < len(texts):
        raise UsageError(f"{FLAG} {key} is {text!r}; it must name each value once.")
    return Choices(key, text, texts)


def _span(key: str, text: str, whole: bool) -> Span:
    log = text.startswith(LOG)
    first, _, last = text.removeprefix(LOG).partition("..")
    try:
        low, high = float(first), float(last)
    except ValueError:
        raise UsageError(
            f"{FLAG} {key} is {text!r}; it must be numbers such as {LOG}1e-4..1e-2 or 0.9..0.99."
        ) from None
    if not -float("inf") < low < high < float("inf"):
        raise UsageError(f"{FLAG} {key} is {text!r}; its lower end must be below its upper one.")
    if log and low <= 0:
        raise UsageError(f"{FLAG} {key} is {text!r}; a range on a logarithmic scale must begin above 0.")
    if whole and (low % 1 or high % 1):
        raise UsageError(f"{FLAG} {key} is {text!r}; its ends must be whole numbers.")
    return Span(key, text, low, high, log, whole)
