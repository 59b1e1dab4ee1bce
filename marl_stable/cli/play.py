"""`marl-stable eval` and `render`: what a trained policy does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from marl_stable.cli.words import Usage, say, tell
from marl_stable.report.files import to_json
from marl_stable.types import UsageError

EVAL = Usage("eval", "RUN [--env ID] [--against RUN|random --team TEAM]")
RENDER = Usage("render", "RUN -o FILE.gif")


@dataclass(frozen=True)
class Place:
    """Where to play; unset: the run's own environment, with its arguments."""

    id: str | None = None
    """Another environment with the same spaces, `--env` for short."""
    kwargs: dict[str, Any] | None = None
    """Arguments for the environment."""


@dataclass(frozen=True)
class Evaluate:
    """Play greedy episodes with the policy in a run folder."""

    episodes: int = 100
    """Number of episodes."""
    seed: int = 0
    """Seed of the episodes."""
    checkpoint: Literal["best", "last"] | None = None
    """Which checkpoint; unset: the best, else the last."""
    stochastic: bool = False
    """Draw actions instead of taking the likeliest."""
    against: str | None = None
    """Opponent that acts for all other teams: a run folder (its best checkpoint, else its last), or random."""
    team: str | None = None
    """Team that RUN acts for, with --against."""
    json: bool = False
    """Print one JSON object."""
    env: Place = Place()


@dataclass(frozen=True)
class Render:
    """Draw greedy episodes of the policy in a run folder; a particle/ run is drawn by its mpe2 twin."""

    output: str | None = None
    """File to write, .gif, .webp or .mp4; `-o` for short."""
    episodes: int = 3
    """Number of episodes."""
    seed: int = 0
    """Seed of the first episode."""
    checkpoint: Literal["best", "last"] | None = None
    """Which checkpoint; unset: the best, else the last."""
    env: Place = Place()


def evaluate(words: list[str]) -> int:
    """Evaluate a trained policy"""
    others, asked = EVAL.read(words, Evaluate())
    run = EVAL.run_folder(others)
    from marl_stable import showing
    from marl_stable.evaluation import MAX_STEPS
    from marl_stable.report.aside import prints_aside

    place = asked.env
    with prints_aside():
        found = showing.evaluate(
            run,
            place.id,
            place.kwargs,
            asked.episodes,
            asked.seed,
            asked.checkpoint,
            asked.stochastic,
            asked.against,
            asked.team,
        )
    if found["episodes"] < asked.episodes:
        tell(
            f"warning: only {found['episodes']} of {asked.episodes} episodes ended; each copy of the environment plays "
            f"{MAX_STEPS:,} steps at most."
        )
    say(to_json(found) if asked.json else showing.in_words(found))
    return 0


def render(words: list[str]) -> int:
    """Draw greedy episodes as GIF, WebP or MP4"""
    others, asked = RENDER.read(words, Render())
    run = RENDER.run_folder(others)
    if asked.output is None:
        raise UsageError("-o has no value; render needs a file to write, such as -o episode.gif.")
    from marl_stable import showing
    from marl_stable.report.aside import prints_aside

    place, output = asked.env, Path(asked.output)
    with prints_aside():
        showing.render(run, output, place.id, place.kwargs, asked.episodes, asked.seed, asked.checkpoint)
    say(str(output))
    return 0
