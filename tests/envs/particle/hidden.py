"""What of a task's state is neither a place nor a velocity, brought from one of our copies into mpe2's world."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from marl_stable.envs.particle import ParticleEnv
from marl_stable.envs.particle.collect_treasure import CollectTreasure
from marl_stable.envs.particle.simple_adversary import SimpleAdversary
from marl_stable.envs.particle.simple_crypto import SimpleCrypto
from marl_stable.envs.particle.simple_line import SimpleLine
from marl_stable.envs.particle.simple_push import SimplePush
from marl_stable.envs.particle.simple_reference import SimpleReference
from marl_stable.envs.particle.simple_speaker_listener import SimpleSpeakerListener

Hiding = tuple[torch.Tensor, torch.Tensor]


def speaker_listener(env: SimpleSpeakerListener, copy: int, mpe2: Any) -> None:
    mpe2.world.agents[0].goal_b = mpe2.world.landmarks[int(env.goal[copy])]


def reference(env: SimpleReference, copy: int, mpe2: Any) -> None:
    for agent, goal in zip(mpe2.world.agents, env.goal[:, copy].tolist(), strict=True):
        agent.goal_b = mpe2.world.landmarks[goal]


def adversary(env: SimpleAdversary, copy: int, mpe2: Any) -> None:
    (goal,) = [mark for mark in mpe2.world.landmarks if (mark.state.p_pos == env.pos[-2:, copy].numpy()).all()]
    for agent in mpe2.world.agents:
        agent.goal_a = goal


def push(env: SimplePush, copy: int, mpe2: Any) -> None:
    number = int(env.goal[0, copy])
    for agent in mpe2.world.agents:
        agent.goal_a = mpe2.world.landmarks[number]
    colour = np.full(3, 0.25)
    colour[number + 1] += 0.5
    mpe2.world.agents[1].color = colour


def crypto(env: SimpleCrypto, copy: int, mpe2: Any) -> None:
    landmarks = mpe2.world.landmarks
    for agent in mpe2.world.agents:
        agent.goal_a = landmarks[int(env.message[copy].argmax())]
    mpe2.world.agents[2].key = landmarks[int(env.key[copy].argmax())].color


def line(env: SimpleLine, copy: int, mpe2: Any) -> None:
    first, other = (mark.state.p_pos for mark in mpe2.world.landmarks)
    np.testing.assert_allclose(np.linalg.norm(other - first), 1.25, rtol=1e-12)
    parts = np.linspace(0, 1, len(mpe2.world.agents))  # one agent stands at the first
    mpe2.scenario._expected_positions = [first + part * (other - first) for part in parts]


def treasure(env: CollectTreasure, copy: int, mpe2: Any) -> None:
    for number, mark in enumerate(mpe2.world.landmarks):
        mark.type = int(env.kind[number, copy])


BRING: dict[type[ParticleEnv], Callable[[Any, int, Any], None]] = {
    SimpleSpeakerListener: speaker_listener,
    SimpleReference: reference,
    SimpleAdversary: adversary,
    SimplePush: push,
    SimpleCrypto: crypto,
    SimpleLine: line,
    CollectTreasure: treasure,
}


def bring(env: ParticleEnv, copy: int, mpe2: Any) -> None:
    """Let mpe2's unwrapped environment, whose entities are where those of the copy are, know what else there is."""
    if type(env) in BRING:
        BRING[type(env)](env, copy, mpe2)


def told(env: ParticleEnv) -> list[Hiding]:
    """A list to which the environment adds, from now on, all the treasures it draws."""
    drawn: list[Hiding] = []
    if isinstance(env, CollectTreasure):
        hide = env._hide

        def tell() -> Hiding:
            drawn.append(hide())
            return drawn[-1]

        env._hide = tell  # type: ignore[method-assign]
    return drawn


class Repeated:
    """Stands for the generator with which mpe2 lets treasures appear, and repeats what our copy drew."""

    def __init__(self, hiding: Hiding, copy: int, world: Any) -> None:
        self.places = hiding[0][:, copy].reshape(-1, 2).numpy()
        self.kinds = hiding[1][:, copy].tolist()
        self.away = iter([number for number, mark in enumerate(world.landmarks) if not mark.alive])
        self.number = -1

    def uniform(self, low: float = 0.0, high: float = 1.0, size: int | None = None) -> float | NDArray[np.float64]:
        """Without a size, whether one appears, which always comes true; else where the next of those away does."""
        if size is None:
            return 0.0
        self.number = next(self.away)
        place: NDArray[np.float64] = self.places[self.number].copy()
        return place

    def integers(self, low: int, high: int) -> int:
        """Of which kind it is."""
        kind: int = self.kinds[self.number]
        return kind
