"""`marl-stable reward`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from marl_stable.cli.words import Made, Usage, say
from marl_stable.envs import catalog
from marl_stable.report.files import require_writable, to_json, write_page
from marl_stable.types import UsageError

USAGE = Usage("reward", "ENV_OR_RUN [--expert FILE.py:policy] [--metric NAME] [--html FILE]")


@dataclass(frozen=True)
class Reward:
    """Ask whether it is the reward, of an environment or of a run's: terms, baselines, who moves what, what pays.
    Trains nothing; about a minute."""

    json: bool = False
    """Print one JSON object."""
    expert: str | None = None
    """A scripted policy to compare with, FILE.py:policy: observations by agent to actions by agent."""
    metric: str | None = None
    """A number in infos[agent] that is to rise, with a run or an expert: is what is paid more also better?"""
    html: str | None = None
    """File for a page with pictures: terms over an episode, shares, what each action changes, terms over training."""
    env: Made = Made()


def reward(words: list[str]) -> int:
    """Say whether it is the reward"""
    others, asked = USAGE.read(words, Reward())
    if not others:
        raise UsageError("ENV_OR_RUN is missing; reward needs an environment or a run folder (see `marl-stable envs`).")
    USAGE.refuse(others[1:])
    if not Path(others[0]).is_dir():
        catalog.require_known(others[0])
    pictures = None if asked.html is None else require_writable(asked.html)
    from marl_stable.investigate.reward import debugging
    from marl_stable.report import reward_html
    from marl_stable.report.aside import prints_aside
    from marl_stable.report.reward_page import page

    with prints_aside():
        found = debugging.examine(others[0], asked.env.kwargs, asked.expert, asked.metric, pictures is not None)
    if pictures is not None:
        write_page(pictures, reward_html.page(found, others[0]))
    say(to_json(found, indent=2) if asked.json else page(found, others[0]))
    return 0
