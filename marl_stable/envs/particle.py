"""The particle world of mpe2 1.1.1, every copy at once on the device: `particle/NAME` is the twin of `mpe2/NAME`.

Physics, rewards and observations equal mpe2's within 1e-6 over whole episodes; initial states are drawn by a generator
of our own. Two choices make it fast: state is laid out features x copies, so that each operation runs over contiguous
copies, and differences between entities and whole observations are products with constant matrices. State is float64
because contacts are stiff: in float32 the twins part within an episode.

Shapes: E copies, N agents, L landmarks, M = N + L entities (agents first), P pairs of agents, C channel width.
Rows of `pos` (2M, E): x0, y0, x1, y1, ... of every entity; rows of `vel` (2N, E) likewise.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from marl_stable.config import require, unknown
from marl_stable.types import Box, Discrete, EnvSpec, Group, PerGroup, Step, UsageError

DT = 0.1
DAMPING = 0.25
CONTACT_FORCE = 100.0
CONTACT_MARGIN = 1e-3
SENSITIVITY = 5.0
MOVES = ((0.0, 0.0), (-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))  # discrete actions as directions
PUSHES = ((0.0, -1.0, 1.0, 0.0, 0.0), (0.0, 0.0, 0.0, -1.0, 1.0))  # continuous actions (5) to a direction (2)


class ParticleEnv(ABC):
    """Copies of one task of the particle world, all at the same step of their episodes."""

    def __init__(self, spec: EnvSpec, num_envs: int, device: torch.device, max_cycles: int, entities: int) -> None:
        require(max_cycles > 0, "env.kwargs max_cycles", max_cycles, "at least 1")
        self.spec, self.num_envs, self.device, self.max_cycles = spec, num_envs, device, max_cycles
        self.replay_differs: tuple[int, ...] = ()
        self.generator = torch.Generator(device)
        self.entities = entities
        self.cycle = 0
        self.pos = torch.zeros(2 * entities, num_envs, dtype=torch.float64, device=device)
        self.vel = torch.zeros(0, num_envs, dtype=torch.float64, device=device)
        self._moves = self._constant(MOVES)
        self._pushes = self._constant(PUSHES)
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
        """Positions, velocities, step of the episode and the generator."""
        state = {"pos": self.pos, "vel": self.vel, "cycle": self.cycle, "generator": self.generator.get_state()}
        return {key: value.clone() if isinstance(value, Tensor) else value for key, value in state.items()}

    def load_state_dict(self, state: dict[str, Any]) -> PerGroup:
        """Go on where `state_dict` was taken."""
        self.pos = state["pos"].to(self.device, copy=True)  # moved in place, which must not move the state
        self.vel, self.cycle = state["vel"].to(self.device), state["cycle"]
        self.generator.set_state(state["generator"].cpu())
        return self._observe()

    def close(self) -> None:
        """Nothing to release."""

    def _constant(self, rows: Any) -> Tensor:
        return torch.as_tensor(rows, dtype=torch.float64, device=self.device)

    def _draw(self, rows: int) -> Tensor:
        """`(rows, E)` uniform in [-1, 1)."""
        shape = (rows, self.num_envs)
        return torch.rand(shape, generator=self.generator, dtype=torch.float64, device=self.device).mul_(2).sub_(1)

    def _push(self, action: Tensor) -> Tensor:
        """Control force `(2A, E)` of actions `(E, A)` int64 or `(E, A, 5)` float, per unit of mass."""
        if action.dtype == torch.int64:
            direction = self._moves[action]  # (E, A, 2)
        else:
            direction = action.to(torch.float64).clamp(0, 1) @ self._pushes.T  # (E, A, 2)
        return direction.flatten(1).T * SENSITIVITY

    def _integrate(self, force: Tensor) -> None:
        """Positions move by the old velocity, then the velocity changes: the order of mpe2 1.1.1."""
        rows = self.vel.shape[0]
        start = self._first_mover * 2
        self.pos[start : start + rows] += self.vel * DT
        self.vel = self.vel * (1 - DAMPING) + force * DT

    _first_mover = 0


class SimpleSpread(ParticleEnv):
    """N agents cover N landmarks; each pays the landmarks' distances (shared) and its own collisions."""

    RADIUS = 0.15

    def __init__(
        self,
        num_envs: int,
        device: torch.device,
        N: int = 3,  # noqa: N803 - mpe2's name
        local_ratio: float = 0.5,
        max_cycles: int = 25,
        continuous_actions: bool = False,
    ) -> None:
        require(isinstance(N, int) and N > 0, "env.kwargs N", N, "at least 1")
        require(0 <= local_ratio <= 1, "env.kwargs local_ratio", local_ratio, "from 0 to 1")
        agents = tuple(f"agent_{i}" for i in range(N))
        action = Box((0.0,) * 5, (1.0,) * 5) if continuous_actions else Discrete(5)
        size = 4 + 2 * N + 4 * (N - 1)
        spec = EnvSpec("particle/simple_spread_v3", agents, (Group("agent", agents, size, action, "team"),))
        super().__init__(spec, num_envs, device, max_cycles, entities=2 * N)
        self.agents, self.local_ratio = N, local_ratio
        self._pairs = tuple(combinations(range(N), 2))
        self._pair_difference = self._constant(_differences(self._pairs, 2 * N, len(self._pairs)))
        reach = tuple((i, N + j) for j in range(N) for i in range(N))
        self._reach_difference = self._constant(_differences(reach, 2 * N, len(reach)))
        self._touches = self._constant([[float(i in pair) for pair in self._pairs] or [0.0] for i in range(N)])
        self._view = self._constant(_spread_view(N))

    def _begin(self) -> None:
        self.pos = self._draw(4 * self.agents)
        self.vel = torch.zeros(2 * self.agents, self.num_envs, dtype=torch.float64, device=self.device)
        self._measure()

    def load_state_dict(self, state: dict[str, Any]) -> PerGroup:
        """Go on where `state_dict` was taken."""
        obs = super().load_state_dict(state)
        self._measure()
        return obs

    def _measure(self) -> None:
        """Differences (P, 2, E) and distances (P, E) between agents, for this step's reward and the next contacts."""
        self._apart = (self._pair_difference @ self.pos).unflatten(0, (len(self._pairs), 2))
        self._gap = _length(self._apart)

    def _advance(self, action: PerGroup) -> PerGroup:
        force = self._push(action["agent"])
        if self._pairs:
            depth = softplus((2 * self.RADIUS - self._gap) / CONTACT_MARGIN, threshold=500) * CONTACT_MARGIN
            contact = self._apart * (CONTACT_FORCE * depth / self._gap).unsqueeze(1)  # (P, 2, E)
            force = torch.addmm(force, self._pair_difference[:, : 2 * self.agents].T, contact.flatten(0, 1))
        self._integrate(force)
        self._measure()
        return {"agent": self._reward().T.to(torch.float32)}

    def _reward(self) -> Tensor:
        """`(N, E)`."""
        n = self.agents
        reach = _length((self._reach_difference @ self.pos).unflatten(0, (n * n, 2)))  # (L * N, E)
        covered: Tensor = -reach.unflatten(0, (n, n)).amin(dim=1).sum(dim=0)  # (E,)
        shared = covered * (1 - self.local_ratio)
        if not self._pairs:
            return shared.unsqueeze(0)
        collisions = self._touches @ (self._gap < 2 * self.RADIUS).to(torch.float64)  # (N, E)
        return shared - collisions * self.local_ratio

    def _observe(self) -> PerGroup:
        state = torch.cat([self.vel, self.pos])  # (2N + 2M, E)
        obs = state.T @ self._view.T  # (E, N * O)
        return {"agent": obs.to(torch.float32).unflatten(1, (self.agents, -1))}


class SimpleSpeakerListener(ParticleEnv):
    """The speaker sees which landmark is the goal and says one of three words; the listener must go there."""

    LANDMARKS = 3
    _first_mover = 1

    def __init__(
        self, num_envs: int, device: torch.device, max_cycles: int = 25, continuous_actions: bool = False
    ) -> None:
        speak = Box((0.0,) * 3, (1.0,) * 3) if continuous_actions else Discrete(3)
        move = Box((0.0,) * 5, (1.0,) * 5) if continuous_actions else Discrete(5)
        speaker = Group("speaker", ("speaker_0",), 3, speak, "team")
        listener = Group("listener", ("listener_0",), 11, move, "team")
        spec = EnvSpec("particle/simple_speaker_listener_v4", ("speaker_0", "listener_0"), (speaker, listener))
        super().__init__(spec, num_envs, device, max_cycles, entities=2 + self.LANDMARKS)
        to_landmarks = tuple((2 + j, 1) for j in range(self.LANDMARKS))
        self._to_landmarks = self._constant(_differences(to_landmarks, self.entities, self.LANDMARKS))
        self._colours = torch.full((3, 3), 0.15, device=device).fill_diagonal_(0.65)
        self.goal = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self.word = torch.zeros(num_envs, 3, device=device)

    def _begin(self) -> None:
        self.goal = torch.randint(self.LANDMARKS, (self.num_envs,), generator=self.generator, device=self.device)
        self.pos = self._draw(2 * self.entities)
        self.vel = torch.zeros(2, self.num_envs, dtype=torch.float64, device=self.device)
        self.word = torch.zeros(self.num_envs, 3, device=self.device)

    def state_dict(self) -> dict[str, Any]:
        """The world's state, the goal and the last word."""
        return super().state_dict() | {"goal": self.goal.clone(), "word": self.word.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> PerGroup:
        """Go on where `state_dict` was taken."""
        self.goal, self.word = state["goal"].to(self.device), state["word"].to(self.device)
        return super().load_state_dict(state)

    def _advance(self, action: PerGroup) -> PerGroup:
        said = action["speaker"][:, 0]
        if said.dtype == torch.int64:
            self.word = torch.zeros_like(self.word).scatter_(1, said.unsqueeze(1), 1.0)
        else:
            self.word = said.clamp(0, 1)
        self._integrate(self._push(action["listener"]))
        away = (self._to_landmarks @ self.pos).unflatten(0, (self.LANDMARKS, 2))  # (L, 2, E)
        missed = away.square().sum(dim=1).gather(0, self.goal.unsqueeze(0))  # (1, E)
        reward = -missed.T.to(torch.float32)
        return {"speaker": reward, "listener": reward}

    def _observe(self) -> PerGroup:
        away = self._to_landmarks @ self.pos  # (2L, E)
        seen = torch.cat([self.vel, away]).T.to(torch.float32)  # (E, 8)
        listener = torch.cat([seen, self.word], dim=1).unsqueeze(1)
        return {"speaker": self._colours[self.goal].unsqueeze(1), "listener": listener}


class _Task(NamedTuple):
    build: type[SimpleSpread] | type[SimpleSpeakerListener]


TASKS = {"simple_spread_v3": _Task(SimpleSpread), "simple_speaker_listener_v4": _Task(SimpleSpeakerListener)}


def make(name: str, num_envs: int, device: torch.device, **kwargs: Any) -> ParticleEnv:
    """The task called `name` with mpe2's arguments; UsageError for an unknown task or argument."""
    if name not in TASKS:
        raise unknown("environment", f"particle/{name}", [f"particle/{task}" for task in TASKS])
    build = TASKS[name].build
    known = [p for p in inspect.signature(build).parameters if p not in ("num_envs", "device")]
    for key in kwargs:
        if key not in known:
            raise unknown("argument", key, known, f"particle/{name} takes {', '.join(known)} in env.kwargs.")
    try:
        return build(num_envs, device, **kwargs)
    except TypeError as error:
        raise UsageError(f"env.kwargs {kwargs!r} do not fit particle/{name}: {error}.") from error


def _length(vectors: Tensor) -> Tensor:
    """Euclidean length (K, E) of vectors (K, 2, E)."""
    return vectors.square().sum(dim=1).sqrt()


def _differences(pairs: tuple[tuple[int, int], ...], entities: int, count: int) -> Tensor:
    """`(2 * count, 2 * entities)`: rows give x and y of the first entity minus the second, pair by pair."""
    matrix = torch.zeros(count, 2, entities, 2, dtype=torch.float64)
    for row, (first, second) in enumerate(pairs):
        for axis in range(2):
            matrix[row, axis, first, axis] = 1.0
            matrix[row, axis, second, axis] = -1.0
    return matrix.reshape(2 * count, 2 * entities)


def _spread_view(n: int) -> Tensor:
    """`(N * O, 2N + 4N)`: what each agent sees, from velocities and positions.

    Per agent: own velocity, own position, landmarks relative to it, other agents relative to it, and two zeros for
    each other agent's silent channel.
    """
    size = 4 + 2 * n + 4 * (n - 1)
    view = torch.zeros(n, size, 6 * n, dtype=torch.float64)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        for axis in range(2):
            view[i, axis, 2 * i + axis] = 1.0
            view[i, 2 + axis, 2 * n + 2 * i + axis] = 1.0
            for slot, entity in enumerate([*range(n, 2 * n), *others]):
                view[i, 4 + 2 * slot + axis, 2 * n + 2 * entity + axis] = 1.0
                view[i, 4 + 2 * slot + axis, 2 * n + 2 * i + axis] -= 1.0
    return view.reshape(n * size, 6 * n)
