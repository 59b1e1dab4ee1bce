"""A `Walk` in which things go wrong on demand; without torch, for it runs in workers."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from tests.envs.fakes import Walk

TROUBLE = {"raise": 3, "exit": 4, "kill": 5, "hang": 6, "nan": 7, "talk": 8, "leave": 9}
"""agent_0's actions that call for it; the others are harmless."""


class Trouble(Walk):
    """Goes wrong as agent_0 says. A file `step` in the folder `tokens` is used up by a third step that raises, and a
    file `reset` by a reset that does."""

    def __init__(self, tokens: str | None = None, actions: int = 10, length: int = 5) -> None:
        super().__init__(length=length, action=spaces.Discrete(actions))
        self.tokens = tokens

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        if self.use_up("reset"):
            raise OSError("no more levels")
        return super().reset(seed)

    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        wanted = int(actions["agent_0"])
        if wanted == TROUBLE["raise"] or (self.steps == 2 and self.use_up("step")):
            raise ValueError("the door is stuck")
        if wanted == TROUBLE["exit"]:
            os._exit(3)
        if wanted == TROUBLE["leave"]:
            if os.fork() == 0:  # a program that the environment started, and that has all that was open
                time.sleep(10)
                os._exit(0)
            os._exit(4)
        if wanted == TROUBLE["kill"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if wanted == TROUBLE["hang"]:
            time.sleep(600)
        obs, rewards, *rest = super().step(actions)
        if wanted == TROUBLE["nan"]:
            rewards = dict.fromkeys(rewards, np.nan)
        if wanted == TROUBLE["talk"]:
            sys.stdout.write("environments may talk\n")
            os.write(1, b"and their libraries too\n")
            rewards = dict.fromkeys(rewards, float("torch" in sys.modules))
        return obs, rewards, *rest

    def use_up(self, kind: str) -> bool:
        """Whether there was a token of this kind left; each serves once, whichever process takes it."""
        for token in sorted(Path(self.tokens).glob(f"{kind}*")) if self.tokens else []:
            try:
                token.unlink()
            except FileNotFoundError:
                continue
            return True
        return False
