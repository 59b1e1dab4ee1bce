"""Episodes that end for another reason than is told, or never."""

from __future__ import annotations

from tests.investigate.doctor.planted.expected import Planted
from tests.investigate.doctor.planted.sound import NEAR, Sound


class TimeLimitTerminates(Sound):
    def terminates(self) -> bool:
        return self.t >= self.max_cycles

    def truncates(self) -> bool:
        return False


class SeldomReachedLimitTerminates(Sound):
    """Most episodes end before the limit, which only setting it shows."""

    def __init__(self, max_cycles: int = 500) -> None:
        super().__init__(max_cycles)

    def terminates(self) -> bool:
        return self.t >= self.max_cycles or (self.t > 25 and any(self.distance(a) < 3 * NEAR for a in self.agents))

    def truncates(self) -> bool:
        return False


class Endless(Sound):
    def truncates(self) -> bool:
        return False


class LongLimitTerminates(TimeLimitTerminates):
    def __init__(self, max_cycles: int = 150) -> None:
        super().__init__(max_cycles)


PLANTED: Planted = {
    "TimeLimitTerminates": ("time_limit_as_termination", "warning", {}),
    "SeldomReachedLimitTerminates": ("time_limit_as_termination", "warning", {"argument": "max_cycles"}),
    "Endless": ("endless_episode", "error", {}),
    "LongLimitTerminates": ("time_limit_as_termination", "warning", {}),
}
