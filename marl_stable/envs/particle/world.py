"""What all tasks of the particle world share: copies in step, episodes of one length, motion, state.

Two choices make it fast: state is laid out features x copies, so that each operation runs over contiguous copies, and
differences between entities and whole observations are products with constant matrices (`geometry.py`). State is
float64 because contacts are stiff: in float32 the twins part within an episode.

Shapes: E copies, A agents of one group, O observation features, M entities, V movers (entities that can move). Agents
come first among the entities, landmarks follow. Rows of `pos` (2M, E): x0, y0, x1, y1, ... of every entity; rows of
`vel` (2V, E): likewise of the movers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from marl_stable.conversion import require
from marl_stable.envs.particle.contacts import Contacts
from marl_stable.envs.particle.geometry import Sight, length
from marl_stable.generators import go_on
from marl_stable.types import Box, Discrete, EnvSpec, PerGroup, Step

DT = 0.1
DAMPING = 0.25
SENSITIVITY = 5.0
MOVES = ((0.0, 0.0), (-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))  # discrete actions as directions


def actions(count: int, continuous: bool) -> Discrete | Box:
    """The action space with `count` choices, or with as many numbers from 0 to 1."""
    return Box((0.0,) * count, (1.0,) * count) if continuous else Discrete(count)


def moves_and_words(words: int, continuous: bool) -> Discrete | Box:
    """The action space of who moves and says one of `words` at once; `move_and_word` takes its actions apart."""
    return actions(len(MOVES) + words if continuous else len(MOVES) * words, continuous)


def require_count(key: str, value: int, least: int = 1, most: int | None = None, more: str = "") -> None:
    """Refuse a number that is too small or too large; `more` is what follows on that."""
    expected = f"a whole number, {least} or more" if most is None else f"a whole number from {least} to {most}{more}"
    fits = least <= value <= (value if most is None else most)
    require(fits, f"env.kwargs {key}", value, expected)


def require_ratio(local_ratio: float) -> None:
    """Refuse a `local_ratio` that is no proportion."""
    require(0 <= local_ratio <= 1, "env.kwargs local_ratio", local_ratio, "from 0 to 1")


def chosen(landmarks: Tensor, which: Tensor) -> Tensor:
    """`(2K, E)`: where the chosen of the landmarks (2L, E) lie, `which` (K, E) saying their numbers."""
    places = landmarks.unflatten(0, (-1, 2))  # (L, 2, E)
    found: Tensor = places.gather(0, which.unsqueeze(1).expand(-1, 2, -1)).flatten(0, 1)
    return found


def said(action: Tensor, words: int) -> Tensor:
    """`(E, A, W)` float32: what listeners hear of actions `(E, A)` int64 or `(E, A, W)` float."""
    if action.dtype == torch.int64:
        return torch.zeros(*action.shape, words, device=action.device).scatter_(-1, action.unsqueeze(-1), 1.0)
    return action.clamp(0, 1)


def move_and_word(action: Tensor, words: int) -> tuple[Tensor, Tensor]:
    """The move, and what is heard as (E, A, W), of actions `move + 5 * word` (E, A) int64, or (E, A, 5 + W) float."""
    count = len(MOVES)
    if action.dtype == torch.int64:
        return action % count, said(action // count, words)
    return action[..., :count], said(action[..., count:], words)


class ParticleEnv(ABC):
    """Copies of one task of the particle world, all at the same step of their episodes.

    `movers`: the entities that move. `radii`: those of the first entities, which collide; the others touch nothing.
    `max_speed`: of each mover; no limits where empty. `REMEMBERED` names the tensors of a task that are part of its
    state; they are replaced, and never changed in place.
    """

    REMEMBERED: tuple[str, ...] = ()

    def __init__(
        self,
        spec: EnvSpec,
        num_envs: int,
        device: torch.device,
        max_cycles: int,
        *,
        entities: int,
        movers: range,
        radii: Sequence[float] = (),
        max_speed: Sequence[float] = (),
    ) -> None:
        require(max_cycles > 0, "env.kwargs max_cycles", max_cycles, "at least 1")
        self.spec, self.num_envs, self.device, self.max_cycles = spec, num_envs, device, max_cycles
        self.replay_differs: tuple[int, ...] = ()
        self.generator = torch.Generator(device)
        self.entities, self.movers = entities, movers
        self.contacts = Contacts(radii, movers, entities, num_envs, device)
        self.sight = Sight(movers, entities)
        self.cycle = 0
        self.pos = torch.zeros(2 * entities, num_envs, dtype=torch.float64, device=device)
        self.vel = torch.zeros(2 * len(movers), num_envs, dtype=torch.float64, device=device)
        self._max_speed = self._constant(max_speed).unsqueeze(1) if max_speed else None  # (V, 1)
        self._moves = self._constant(MOVES)
        flags = torch.zeros(num_envs, len(spec.agents), dtype=torch.bool, device=device)
        self._never = {g.name: flags[:, : len(g.agents)] for g in spec.groups}
        self._always = {name: ~never for name, never in self._never.items()}
        self._running = flags[:, 0]

    @abstractmethod
    def _begin(self) -> None:
        """Draw the initial state of an episode in every copy."""

    @abstractmethod
    def _advance(self, action: PerGroup) -> PerGroup:
        """Apply one action and move the world; the rewards `(E, A)` of each group."""

    @abstractmethod
    def _observe(self) -> PerGroup:
        """What each agent sees now, `(E, A, O)` float32."""

    def reset(self, seed: int) -> PerGroup:
        """Begin the first episode of every copy; the same seed draws the same episodes."""
        self.generator.manual_seed(seed)
        self.cycle = 0
        self._begin()
        return self._observe()

    def step(self, action: PerGroup) -> Step:
        """Advance every copy by one step; all copies are cut off together after `max_cycles` steps."""
        reward = self._advance(action)
        self.cycle += 1
        next_obs = self._observe()
        if self.cycle < self.max_cycles:
            return Step(next_obs, next_obs, reward, self._never, self._never, self._always, self._running)
        self.cycle = 0
        self._begin()
        return Step(self._observe(), next_obs, reward, self._never, self._always, self._always, ~self._running)

    def state_dict(self) -> dict[str, Any]:
        """Positions, velocities, step of the episode, the generator, and what the task remembers."""
        state = {"pos": self.pos, "vel": self.vel, "cycle": self.cycle, "generator": self.generator.get_state()}
        state |= {name: getattr(self, name) for name in self.REMEMBERED}
        return {key: value.clone() if isinstance(value, Tensor) else value for key, value in state.items()}

    def load_state_dict(self, state: dict[str, Any]) -> PerGroup:
        """Go on where `state_dict` was taken."""
        self.pos = state["pos"].to(self.device, copy=True)  # moved in place, which must not move the state
        self.vel, self.cycle = state["vel"].to(self.device), state["cycle"]
        for name in self.REMEMBERED:
            setattr(self, name, state[name].to(self.device))
        go_on(self.generator, state["generator"])
        self.contacts.measure(self.pos)
        return self._observe()

    def close(self) -> None:
        """Nothing to release."""

    def _constant(self, rows: Any) -> Tensor:
        return torch.as_tensor(rows, dtype=torch.float64, device=self.device)

    def _draw(self, rows: int) -> Tensor:
        """`(rows, E)` uniform in [-1, 1)."""
        shape = (rows, self.num_envs)
        return torch.rand(shape, generator=self.generator, dtype=torch.float64, device=self.device).mul_(2).sub_(1)

    def _place(self, pos: Tensor) -> None:
        """Everything at `pos` (2M, E), at rest."""
        self.pos, self.vel = pos, torch.zeros_like(self.vel)
        self.contacts.measure(self.pos)

    def _push(self, action: Tensor, accel: float = SENSITIVITY) -> Tensor:
        """Control force `(2A, E)` of actions `(E, A)` int64 or `(E, A, 5)` float, per unit of mass."""
        if action.dtype == torch.int64:
            direction = self._moves[action]  # (E, A, 2)
        else:
            pushes = action.clamp(0, 1)  # nothing, left, right, down, up; float32, in which mpe2 subtracts them
            direction = (pushes[..., 2::2] - pushes[..., 1::2]).to(torch.float64)  # (E, A, 2)
        return direction.flatten(1).T * accel

    def _move(self, force: Tensor) -> None:
        """Move by the control force `(2V, E)`: positions by the old velocity, then the velocity, as mpe2 1.1.1 does."""
        force = self.contacts.add_to(force)
        self.pos[2 * self.movers.start : 2 * self.movers.stop] += self.vel * DT
        self.vel = self.vel * (1 - DAMPING) + force * DT
        if self._max_speed is not None:
            velocity = self.vel.unflatten(0, (len(self.movers), 2))  # (V, 2, E)
            slower = (self._max_speed / length(velocity)).clamp(max=1)  # infinite, so 1, for what is at rest
            self.vel = (velocity * slower.unsqueeze(1)).flatten(0, 1)
        self.contacts.measure(self.pos)

    def _see(self, view: Tensor, agents: int) -> Tensor:
        """`(E, A, O)` float32: the features that the constant `view` (A * O, 2V + 2M) makes of the state."""
        state = torch.cat([self.vel, self.pos])  # (2V + 2M, E)
        seen: Tensor = (state.T @ view.T).to(torch.float32).unflatten(1, (agents, -1))
        return seen
