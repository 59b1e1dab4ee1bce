"""What cannot be made, begun or waited for."""

from __future__ import annotations

from typing import Any

from tests.investigate.doctor.planted.sound import Sound


class NeverBegins(Sound):
    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        raise RuntimeError("no simulator")


class CannotBeMade(Sound):
    def __init__(self) -> None:
        raise FileNotFoundError("no map")


class Configured(Sound):
    def __init__(self, limit: Any) -> None:
        super().__init__(limit())


class Waiting(Sound):
    """Waits for an answer that never comes, in its third step."""

    def move(self, agent: str, action: Any) -> None:
        if self.t == 3:
            wait_for_ever()
        super().move(agent, action)


def wait_for_ever() -> None:
    while True:
        pass
