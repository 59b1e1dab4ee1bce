"""What is paid: one finite number each time, that can be learned from, and the sum of its terms where there are any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marl_stable.envs.terms import TERMS, TOLERANCE
from marl_stable.investigate.doctor.findings import Notebook, short
from marl_stable.investigate.doctor.play import Moment, Play
from marl_stable.investigate.doctor.turn_play import TurnPlay
from marl_stable.investigate.doctor.watching import Watched, info_of

FEWEST = 200  # rewards, before they are judged together
FEWEST_ENDS, MANY = 20, 3_000  # episodes, or rewards of agents that act at once, before there is no signal
LARGE, ABSURD = 1e4, 1e8  # 99th percentile, largest; beyond the second float32 cannot tell rewards apart
SMALL = 1e-4  # largest
OFFSET = 30.0  # median over deviation from it
SPIKE, RARE = 1_000.0, 0.01  # times the scale of the usual rewards; share of steps
OFTEN = 0.1  # share of steps in which others are paid

Floats = NDArray[np.float64]


class Rewards:
    """Watches rewards."""

    def __init__(self, notes: Notebook) -> None:
        self._notes = notes
        self._paid: dict[str, list[float]] = {}
        self._last: dict[str, list[bool]] = {}  # whether it was paid as the agent's life ended
        self._returns: list[float] = []
        self._return = 0.0
        self._with_terms: set[str] = set()
        self._play: Play | None = None

    def begin(self, play: Play, moment: Moment) -> None:
        """An episode begins."""
        self._play = play
        self._return = 0.0

    def step(self, play: Play, moment: Moment, given: dict[str, Any], kept: dict[str, Any]) -> None:
        """Agents have acted."""
        for agent in moment.rewards if play.turn_based else moment.acted:
            if agent not in moment.rewards:
                continue  # whoever watches the agents tells
            reward = self._number(agent, moment.rewards[agent])
            if reward is None:
                continue
            self._paid.setdefault(agent, []).append(reward)
            self._last.setdefault(agent, []).append(moment.over or agent not in moment.agents)
            self._return += reward
            if not play.turn_based or agent in moment.acted:
                self._check_terms(agent, reward, info_of(moment, agent))
        if moment.over:
            self._returns.append(self._return)

    def finish(self, watched: Watched) -> None:
        """Judge what each agent was paid."""
        paid = {agent: np.array(rewards) for agent, rewards in self._paid.items() if len(rewards) >= FEWEST}
        if isinstance(self._play, TurnPlay) and self._play.paid and not self._play.told:
            what = "env.rewards holds rewards, but env.last() never reports any: they are not added up."
            remedy = "Call self._accumulate_rewards() at the end of step, and clear env.rewards at its beginning."
            self._notes.note("no_reward_signal", "error", {"agent": next(iter(self._paid))}, 0.0, what, remedy)
            return
        for agent, rewards in paid.items():
            self._judge_size(agent, rewards, np.array(self._last[agent]))
        self._judge_signal(paid, self._play is not None and self._play.turn_based)

    def _number(self, agent: str, reward: Any) -> float | None:
        if isinstance(reward, int | float | np.number | np.bool_) or (
            isinstance(reward, np.ndarray) and reward.ndim == 0 and reward.dtype.kind in "biuf"
        ):
            value = float(reward)
            if np.isfinite(value):
                return value
            what = f"The reward of {agent} was {value} in random play."
            remedy = "Find where it divides by zero or takes a logarithm, and give a finite value there."
            self._notes.note("reward_non_finite", "error", {"agent": agent}, value, what, remedy)
            return None
        what = f"The reward of {agent} is {short(reward)}; it must be one number."
        remedy = "Return float(reward), the sum of its parts; tell the parts in infos[agent]['reward_terms']."
        self._notes.note("reward_type", "error", {"agent": agent}, short(reward), what, remedy)
        return None

    def _check_terms(self, agent: str, reward: float, info: Any) -> None:
        terms = info.get(TERMS) if isinstance(info, Mapping) else None
        if terms is None:
            if agent in self._with_terms:
                self._tell_terms(agent, 0.0, f"{agent} reports {TERMS} in some steps and none in others.")
            return
        self._with_terms.add(agent)
        try:
            values = np.array([float(value) for value in terms.values()])
        except (AttributeError, TypeError, ValueError):
            self._tell_terms(agent, short(terms), f"The {TERMS} of {agent} are {short(terms)}, not a number by name.")
            return
        total = float(values.sum())
        if not abs(total - reward) <= max(TOLERANCE * float(np.abs(values).sum()), TOLERANCE):
            told = f"The {TERMS} of {agent} sum to {total:.6g} where its reward is {reward:.6g}: {short(dict(terms))}."
            self._tell_terms(agent, total - reward, told)

    def _tell_terms(self, agent: str, value: Any, what: str) -> None:
        remedy = "Report every part of the reward, weights included, in every step."
        self._notes.note("reward_terms_sum", "error", {"agent": agent}, value, what, remedy)

    def _judge_size(self, agent: str, rewards: Floats, last: NDArray[np.bool_]) -> None:
        size = np.abs(rewards)
        peak, usual = float(size.max()), float(np.percentile(size, 99))
        where = {"agent": agent}
        if usual >= LARGE or peak >= ABSURD:
            value = peak if peak >= ABSURD else usual
            what = f"Rewards of {agent} are as large as {value:.3g}."
            remedy = "Divide rewards by a constant in the environment, to a size of about 1."
            severity = "error" if value >= ABSURD else "warning"
            self._notes.note("reward_scale_too_large", severity, where, value, what, remedy)  # type: ignore[arg-type]
            return
        if 0 < peak < SMALL:
            what = f"No reward of {agent} was larger than {peak:.3g}."
            remedy = "Multiply rewards by a constant in the environment, to a size of about 1."
            self._notes.note("reward_scale_too_small", "warning", where, peak, what, remedy)
        self._judge_shape(agent, rewards, last)

    def _judge_shape(self, agent: str, rewards: Floats, last: NDArray[np.bool_]) -> None:
        median = float(np.median(rewards))
        off = np.abs(rewards - median)
        differing = off[off > 0]
        if not len(differing):
            return
        scale = 1.4826 * float(np.median(off)) or float(np.median(differing))
        if abs(median) > OFFSET * scale and len(differing) > len(rewards) / 2:
            what = (
                f"Rewards of {agent} differ by about {scale:.3g} around {median:.3g}: the offset hides the differences."
            )
            remedy = "Subtract a constant, unless the length of an episode depends on what agents do."
            self._notes.note("reward_offset", "warning", {"agent": agent}, median, what, remedy)
        far = (off > SPIKE * scale) & ~last
        if far.any() and (off > SPIKE * scale).mean() < RARE:
            peak = float(rewards[int(np.argmax(off * far))])
            what = (
                f"A reward of {agent} was {peak:.3g}, {abs(peak - median) / scale:,.0f} times what rewards usually "
                f"differ by, in {far.sum()} of {len(rewards)} steps and not at an end."
            )
            remedy = "Look at what happens in that step; clip the term that jumps."
            self._notes.note("reward_outliers", "warning", {"agent": agent}, peak, what, remedy)

    def _judge_signal(self, paid: dict[str, Floats], turn_based: bool) -> None:
        """A reward that never varies teaches nothing, unless what agents do decides how often it comes."""
        still = {agent: rewards for agent, rewards in paid.items() if np.ptp(rewards) == 0}
        if paid and len(still) == len(paid):
            rewards = max(still.values(), key=len)
            enough = len(self._returns) >= FEWEST_ENDS or (len(rewards) >= MANY and not turn_based)
            if enough and len(set(self._returns)) <= 1:
                what = (
                    f"Every reward was {rewards[0]:.4g}, in {len(rewards)} steps of random play: nothing to learn from."
                )
                remedy = "Look whether it is computed at all; a reward for a far goal needs steps on the way to it."
                self._notes.note("no_reward_signal", "warning", {}, rewards[0], what, remedy)
            return
        often = any((rewards != 0).mean() > OFTEN for rewards in paid.values())
        for agent, rewards in still.items():
            if often and rewards[0] == 0:
                what = f"{agent} was never paid, in {len(rewards)} steps in which others often were."
                remedy = "Look whether its reward is written under another agent's name."
                self._notes.note("no_reward_signal", "warning", {"agent": agent}, 0.0, what, remedy)
