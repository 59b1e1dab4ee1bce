"""Games on a court that report their reward terms, with a fault in them or without: factories `NAME(num_envs, device)`.

Agents step about on [-1, 1]^2 and see where they are and where they are to go. Shapes: E copies, A agents.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from marl_stable.types import Discrete, EnvSpec, Group, PerGroup, Step

MOVES = ((0.0, 0.0), (1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))


class Court:
    """Copies whose episodes end one by one. A game says what `terms` it has, and what ends it."""

    names: tuple[str, ...] = ("approach",)
    agents, length, stride = 2, 12, 0.25

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self.num_envs, self.device = num_envs, device
        who = tuple(f"agent_{i}" for i in range(self.agents))
        group = Group("agent", who, 4, Discrete(5), "team", terms=self.names)
        self.spec = EnvSpec(f"{__name__}:{type(self).__name__}", who, (group,))
        self.replay_differs: tuple[int, ...] = ()
        self.generator = torch.Generator(device)
        self.moves = self.stride * torch.tensor(MOVES, device=device)

    def reset(self, seed: int) -> PerGroup:
        self.generator.manual_seed(seed)
        self.age = torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
        self.place, self.target = self.begun()
        return self.seen()

    def begun(self) -> tuple[Tensor, Tensor]:
        """Where agents begin, and where they are to go, `(E, A, 2)` each."""
        return self.drawn(), self.drawn()

    def drawn(self) -> Tensor:
        """Places `(E, A, 2)`."""
        shape = (self.num_envs, self.agents, 2)
        return 2 * torch.rand(shape, generator=self.generator, device=self.device) - 1

    def normal(self) -> Tensor:
        """`(E, A)`."""
        return torch.randn(self.num_envs, self.agents, generator=self.generator, device=self.device)

    def seen(self) -> PerGroup:
        return {"agent": torch.cat([self.place, self.target], -1)}

    def far(self, place: Tensor) -> Tensor:
        """`(E, A)` how far agents are from where they are to go."""
        distance: Tensor = (place - self.target).norm(dim=-1)
        return distance

    def terms(self, before: Tensor, moved: Tensor) -> dict[str, Tensor]:
        """What a step from the places `before (E, A, 2)` pays, `(E, A)` each; `moved` is false where nobody went."""
        return {"approach": -self.far(self.place)}

    def arrived(self) -> Tensor:
        """`(E, A)` who is where it was to go."""
        return self.far(self.place) < 0.4

    def over(self) -> Tensor:
        """`(E,)` whether the game has ended."""
        return torch.zeros_like(self.age, dtype=torch.bool)

    def step(self, action: PerGroup) -> Step:
        before, move = self.place, self.moves[action["agent"]]
        self.place = (before + move).clamp(-1, 1)
        self.age = self.age + 1
        paid = self.terms(before, action["agent"] > 0)
        assert tuple(paid) == self.names
        terms = torch.stack(list(paid.values()), -1)
        led_to, ended = self.seen(), self.over()
        cut = (self.age >= self.length) & ~ended
        done = ended | cut
        place, target = self.begun()
        self.place = torch.where(done.view(-1, 1, 1), place, self.place)
        self.target = torch.where(done.view(-1, 1, 1), target, self.target)
        self.age = self.age.masked_fill(done, 0)
        wide = {"shape": (self.num_envs, self.agents)}
        terminated, truncated = (flags.unsqueeze(1).expand(wide["shape"]).contiguous() for flags in (ended, cut))
        alive = {"agent": torch.ones_like(terminated)}
        over = ({"agent": terminated}, {"agent": truncated})
        return Step(self.seen(), led_to, {"agent": terms.sum(-1)}, *over, alive, done, {"agent": terms})

    def state_dict(self) -> dict[str, Any]:
        state = {"age": self.age, "place": self.place, "target": self.target}
        return {name: x.clone() for name, x in state.items()} | {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> PerGroup:
        self.age, self.place, self.target = (state[name].clone() for name in ("age", "place", "target"))
        self.generator.set_state(state["generator"])
        return self.seen()

    def close(self) -> None:
        pass


class Effort(Court):
    """Every step costs `price`."""

    names, price = ("approach", "effort"), 0.02

    def terms(self, before: Tensor, moved: Tensor) -> dict[str, Tensor]:
        return super().terms(before, moved) | {"effort": -self.price * moved.float()}


class DearEffort(Effort):
    """It costs far more than there is to be won by it."""

    price = 20.0


class Opposed(Court):
    """What is paid for being near is charged again, but for a thousandth."""

    names, taken_back = ("approach", "stay_away"), 0.0

    def terms(self, before: Tensor, moved: Tensor) -> dict[str, Tensor]:
        other = self.taken_back * self.far(self.place) + 0.01 * self.normal()
        return super().terms(before, moved) | {"stay_away": other}


class Undone(Opposed):
    taken_back = 0.995


class Weather(Court):
    """Noise that nobody can do anything about."""

    names, strength = ("approach", "weather"), 0.05

    def terms(self, before: Tensor, moved: Tensor) -> dict[str, Tensor]:
        return super().terms(before, moved) | {"weather": self.strength * self.normal()}


class Storm(Weather):
    strength = 300.0


class Race(Court):
    """From the middle to somewhere near the edge; to arrive ends the game."""

    agents, length = 1, 60

    def begun(self) -> tuple[Tensor, Tensor]:
        target = self.drawn()
        return 0.3 * self.drawn(), 0.9 * target / target.norm(dim=-1, keepdim=True).clamp_min(1e-6)

    def over(self) -> Tensor:
        return self.arrived().all(1)


class Alive(Race):
    """To arrive pays, and a little does every step that the game lasts."""

    names, living = ("prize", "alive"), 0.01

    def terms(self, before: Tensor, moved: Tensor) -> dict[str, Tensor]:
        prize = 2.0 * self.arrived().float()
        return {"prize": prize, "alive": torch.full_like(prize, self.living)}


class Lingering(Alive):
    """A long life is worth more than to arrive."""

    living = 1.0


class Cliff(Court):
    """Every step costs; who leans over the edge is out. To be near the middle pays, which is far from the edge."""

    names, agents, length, living = ("centre", "time"), 1, 30, -0.01

    def over(self) -> Tensor:
        return (self.place.abs().amax(-1) >= 1).all(1)

    def terms(self, before: Tensor, moved: Tensor) -> dict[str, Tensor]:
        centre = (0.7 - self.place.norm(dim=-1)).clamp_min(0)
        return {"centre": centre, "time": torch.full_like(centre, self.living)}


class Suicide(Cliff):
    """To be out is better than to go on."""

    living = -2.0


class Hints(Race):
    """To arrive pays; coming nearer pays at once, and going away costs as much."""

    names, fair = ("prize", "progress"), True

    def terms(self, before: Tensor, moved: Tensor) -> dict[str, Tensor]:
        nearer = 4.0 * (self.far(before) - self.far(self.place))
        return {"prize": self.arrived().float(), "progress": nearer if self.fair else nearer.clamp_min(0)}


class Loops(Hints):
    """Going away costs nothing: to and fro pays for ever."""

    fair = False


class Wall(Court):
    """Closeness pays; so does, by next to nothing, to lean against a wall."""

    names, stride, lure = ("closeness", "wall"), 0.15, 0.0

    def drawn(self) -> Tensor:
        return 0.4 * super().drawn()

    def terms(self, before: Tensor, moved: Tensor) -> dict[str, Tensor]:
        near, edge = (0.8 - self.far(self.place)).clamp_min(0), self.place.abs().amax(-1)
        return {"closeness": near, "wall": 0.01 * edge + self.lure * edge**12}


class Lure(Wall):
    """It pays far more than closeness, but chance hardly ever gets there."""

    lure = 6.0


dear_effort, effort, undone, opposed, storm, weather = DearEffort, Effort, Undone, Opposed, Storm, Weather
lingering, alive, suicide, cliff = Lingering, Alive, Suicide, Cliff
loops, hints, lure, wall = Loops, Hints, Lure, Wall
