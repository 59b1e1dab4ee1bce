"""What a run's recording and preflight say of reward terms, agent by agent: what chance paid, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marl_stable.monitor.calibration import READS, Floats, sigma
from marl_stable.monitor.case import Case, place
from marl_stable.monitor.recording import Series

MEANS = "rewards/terms/"
FIGURES = ("std", "zero", "share", "conflict")
NOISES = 3.0  # deviations of a level, by which it must have moved
FLAT = 0.1  # deviation over mean, of a term that pays alike at every step
DENSE, SPARSE = 0.75, 0.9  # share of steps in which a term is exactly zero: at most, at least
UNMOVED = 1e-6  # share of what a term varies by that actions can change


class Change(NamedTuple):
    """How a level moved from random play, or else from the first readings, to the latest ones."""

    before: float
    after: float
    noise: float  # of a level

    @property
    def rose(self) -> bool:
        """By more than noise."""
        return self.after - self.before > NOISES * self.noise

    @property
    def fell(self) -> bool:
        """By more than noise."""
        return self.before - self.after > NOISES * self.noise


class Term(NamedTuple):
    """One agent's reward term, as it was read."""

    name: str
    mean: Series
    figures: dict[str, Floats]
    chance: Mapping[str, float]  # mean, zero and per_episode of random play; empty where not known

    def early(self, figure: str) -> float:
        """Its first level; NaN where it was never read."""
        return median(self.figures[figure][:READS])

    def late(self, figure: str) -> float:
        """Its latest level; NaN where it was never read."""
        return median(latest(self.figures[figure]))

    @property
    def zero(self) -> float:
        """In which share of the steps it was exactly zero before anything was learned."""
        return self.chance.get("zero", self.early("zero"))

    @property
    def agent(self) -> str | None:
        """Whose it is."""
        return self.mean.where.get("agent")

    @property
    def where(self) -> dict[str, Any]:
        """As `diagnosis.json` has it."""
        return place(self.mean) | {"term": self.name}

    @property
    def flat(self) -> bool:
        """Whether it pays alike at every step, from the first."""
        return self.early("std") <= FLAT * abs(median(self.mean.values[:READS]))


def accounts(case: Case) -> Iterator[list[Term]]:
    """The terms of each agent that has several and is paid by nothing else, where they were read at the same steps, and
    often enough."""
    left_out = _left_out(case)
    if left_out and _shared(case):  # what one agent's terms leave out is in everybody's reward
        return
    means: dict[tuple[Any, Any], list[Series]] = {}
    for signal in case.recording.signals():
        for series in case.recording.series(signal) if signal.startswith(MEANS) else []:
            if "agent" in series.where and series.where["agent"] not in left_out:  # metrics.csv has one for all of them
                means.setdefault((series.where.get("group"), series.where["agent"]), []).append(series)
    for members in means.values():
        alike = all(np.array_equal(series.steps, members[0].steps) for series in members)
        if len(members) > 1 and alike and len(members[0].values) >= 2 * READS:
            yield [_term(case, series) for series in members]


def lacks_terms(case: Case) -> str | None:
    """What is missing where no agent has an account, or one has that leaves something out."""
    if _left_out(case):
        return "reward terms that add up to the reward"
    return None if any(True for _ in accounts(case)) else f"two or more reward terms, and {2 * READS} readings of them"


def per_step(terms: Sequence[Term]) -> Change:
    """Of what `terms` pay together at a step."""
    return _change(paid(terms), [term.chance.get("mean") for term in terms])


def per_episode(case: Case, terms: Sequence[Term]) -> Change:
    """Of what `terms` pay together in an episode."""
    return _change(by_episode(case, terms), [term.chance.get("per_episode") for term in terms])


def paid(terms: Sequence[Term]) -> Floats:
    """`(n,)` what `terms` paid together at a step."""
    return np.asarray(np.sum([term.mean.values for term in terms], axis=0))


def by_episode(case: Case, terms: Sequence[Term]) -> Floats:
    """`(n,)` what `terms` paid together in an episode of the length that episodes then had."""
    lengths, steps = case.recording.mean("charts/episode_length"), terms[0].mean.steps
    return paid(terms) * (1.0 if lengths is None else np.interp(steps, lengths.steps, lengths.values))


def others(terms: Sequence[Term], but: Term) -> list[Term]:
    """All terms but one."""
    return [term for term in terms if term is not but]


def change(values: Floats, before: float | None = None) -> Change:
    """Of a curve that has rows enough for two levels, from `before` or its first level."""
    noise = sigma(np.diff(values)) / np.sqrt(2 * READS)  # a difference has two readings, and a level several
    return Change(median(values[:READS]) if before is None else before, median(latest(values)), noise)


def latest(values: Floats) -> Floats:
    """The last quarter."""
    return values[-max(READS, len(values) // 4) :]


def middle(values: Floats) -> float:
    """The level half-way."""
    half = len(values) // 2
    return median(values[half - 1 : half - 1 + READS])


def median(values: Floats) -> float:
    """NaN of nothing."""
    return float(np.median(values)) if len(values) else float("nan")


def moved(case: Case) -> dict[str, dict[str, float]]:
    """By agent and term, how far actions can move it, as the preflight has it.

    Where a team shares its reward, anybody's term is everybody's.
    """
    own = _preflight(case, "control")
    if not _shared(case):
        return own
    most: dict[str, float] = {}
    for terms in own.values():
        for term, share in terms.items():
            most[term] = max(share, most.get(term, 0.0))
    return dict.fromkeys(own, most)


def uncontrolled(case: Case, term: Term) -> bool:
    """Whether no action of anybody moves the term."""
    share = moved(case).get(str(term.agent), {}).get(term.name)
    return share is not None and share <= UNMOVED


def loudest(case: Case, where: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """`{"term": name}` of the term that was farthest from its mean in the reading at `steps`; empty without terms."""
    peaks = {
        series.where["term"]: float(series.values[series.steps == steps].max(initial=0.0))
        for series in case.recording.series("term_peak", **where)
    }
    return {"term": max(peaks, key=lambda term: peaks[term])} if any(peaks.values()) else {}


def steps_read(term: Term) -> NDArray[np.int64]:
    """`(n,)` how many steps each reading is about."""
    return np.diff(term.mean.steps, prepend=0)


def _change(values: Floats, chance: Sequence[float | None]) -> Change:
    known = [value for value in chance if value is not None]
    return change(values, sum(known) if len(known) == len(chance) else None)


def _term(case: Case, mean: Series) -> Term:
    name = mean.signal.removeprefix(MEANS)
    read = {figure: case.recording.series(f"term_{figure}", **mean.where, term=name) for figure in FIGURES}
    figures = {figure: found[0].values if found else np.empty(0) for figure, found in read.items()}
    known = {} if _shared(case) else _preflight(case, "terms").get(mean.where["agent"], {})  # of each agent's own
    return Term(name, mean, figures, known.get(name, {}))


def _left_out(case: Case) -> set[str | None]:
    """Agents whose rewards were not the sum of their terms, in random play or since."""
    since = [x.where.get("agent") for x in case.recording.series("term_left_out") if x.values.max(initial=0.0) > 0]
    return {*_preflight(case, "unaccounted"), *since}


def _shared(case: Case) -> bool:
    return case.config.get("env.reward") == "mean"


def _preflight(case: Case, part: str) -> dict[str, Any]:
    return dict((case.facts.get("preflight") or {}).get(part) or {})
