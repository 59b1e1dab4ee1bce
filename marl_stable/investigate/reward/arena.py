"""An environment to play in, and how much of it is played.

That follows from the environment alone and never from the speed of the machine, so that whoever asks twice is told the
same. Only where a minute is not enough, what matters least is left out, and that is said.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

import torch

from marl_stable.config import EnvConfig
from marl_stable.envs import catalog
from marl_stable.envs.base import BatchedEnv
from marl_stable.investigate.reward.play import Choose, Played, Roster, at_random, roster, watch
from marl_stable.types import EnvSpec

CPU = torch.device("cpu")
SEED = 1_357
LONGEST = 60  # steps of an episode; a longer one counts as far as it was played
BATCHED = 64  # copies that are computed together; twice as many, and twice, where episodes are short
STEPS = 800  # of all copies in one play, where copies are stepped one by one; there are some 30 to 50 plays
COPIES, FEWEST = 48, 8
SECONDS = 60.0  # after which only what matters most is asked


@dataclass
class Arena:
    """An environment to play in, within bounds."""

    env: BatchedEnv
    seed: int
    longest: int
    rounds: int  # plays of each candidate
    most: int  # constant actions tried per group
    until: float = math.inf  # moment on the monotonic clock after which only what matters most is asked
    left_out: list[str] = field(default_factory=list)  # what was not, in words
    who: Roster = field(init=False)
    steps: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.who = roster(self.env.spec)

    @property
    def spec(self) -> EnvSpec:
        """The environment's."""
        return self.env.spec

    def generator(self, offset: int) -> torch.Generator:
        """Of actions: with a seed of an environment they would draw what it draws."""
        return torch.Generator(self.env.device).manual_seed(self.seed + 10_007 + offset)

    def play(self, choose: Choose, episode: int) -> Played:
        """The episodes that begin with seed number `episode`."""
        played = watch(self.env, choose, self.seed + 101 * episode, self.longest)
        self.steps += len(played.live) * self.env.num_envs
        return played

    def allows(self, what: str) -> bool:
        """Whether there is time for `what`; where there is none, it is noted as left out."""
        if time.monotonic() <= self.until:
            return True
        if what not in self.left_out:
            self.left_out.append(what)
        return False


def opened(config: EnvConfig) -> Arena:
    """The environment that `config` names with as many copies, and its episodes played as far, as suits it."""
    until = time.monotonic() + SECONDS
    pilot = catalog.make(config, CPU, FEWEST)
    try:
        first = watch(pilot, at_random(pilot.spec, torch.Generator().manual_seed(SEED)), SEED, LONGEST)
    finally:
        pilot.close()
    longest = max(2, len(first.live))
    together = catalog.resolve_num_envs(replace(config, num_envs="auto")) == catalog.ON_DEVICE
    copies, rounds = sizes(longest, together)
    return Arena(catalog.make(config, CPU, copies), SEED, longest, rounds, max(2 * FEWEST, copies), until)


def sizes(longest: int, together: bool) -> tuple[int, int]:
    """Copies, and plays of each way to behave, for episodes of so many steps; copies may be computed `together`."""
    if together:
        twice = 2 if 2 * longest <= LONGEST else 1
        return twice * BATCHED, twice
    return max(FEWEST, min(COPIES, STEPS // longest)), 2 if 2 * COPIES * longest <= STEPS else 1
