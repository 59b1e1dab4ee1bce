"""A replay of turn-based play against plain bookkeeping, one agent at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from marl_stable.buffers import Replay
from marl_stable.turns import Turns
from marl_stable.types import Box, Discrete, Group, PerGroup, Step

E, O = 3, 2  # noqa: E741 - the letters of the shape legend
CPU = torch.device("cpu")
GROUPS = (
    Group("a", ("a_0", "a_1"), O, Discrete(1_000_000), "team"),
    Group("b", ("b_0",), O + 1, Box((-1.0,), (1.0,)), "other"),
)
PLACES = [("a", 0), ("a", 1), ("b", 0)]


class Moment(NamedTuple):
    obs: PerGroup
    action: PerGroup
    step: Step


class Play:
    """Random turn-based play: in each copy somebody who is still there moves, everybody may be paid, and agents end
    one by one, in their turn or in another's, until the episode is over for all and anew."""

    def __init__(self, seed: int, ends: float) -> None:
        self.draw, self.ends = torch.Generator().manual_seed(seed), ends
        self.here = [set(range(len(PLACES))) for _ in range(E)]
        self.obs = self.random_obs()

    def random_obs(self) -> PerGroup:
        return {g.name: torch.randn(E, len(g.agents), g.obs_size, generator=self.draw) for g in GROUPS}

    def chance(self) -> float:
        return float(torch.rand((), generator=self.draw))

    def __call__(self) -> Moment:
        flags = {
            kind: {g.name: torch.zeros(E, len(g.agents), dtype=torch.bool) for g in GROUPS}
            for kind in ("terminated", "truncated", "alive")
        }
        done = torch.zeros(E, dtype=torch.bool)
        for e, here in enumerate(self.here):
            group, a = PLACES[sorted(here)[int(self.chance() * len(here))]]
            flags["alive"][group][e, a] = True
            all_over, kind = self.chance() < self.ends, "terminated" if self.chance() < 0.5 else "truncated"
            for n in list(here):
                if all_over or self.chance() < self.ends:
                    name, i = PLACES[n]
                    flags[kind][name][e, i] = True
                    here.discard(n)
            if not here:
                done[e] = True
                here.update(range(len(PLACES)))
        actions = {
            "a": torch.randint(1_000_000, (E, 2), generator=self.draw),
            "b": torch.rand(E, 1, 1, generator=self.draw),
        }
        reward = {g.name: torch.randn(E, len(g.agents), generator=self.draw) for g in GROUPS}
        led_to, obs = self.random_obs(), self.obs
        anew = self.random_obs()
        self.obs = {name: torch.where(done.reshape(-1, 1, 1), anew[name], led_to[name]) for name in led_to}
        step = Step(self.obs, led_to, reward, flags["terminated"], flags["truncated"], flags["alive"], done)
        return Moment(obs, actions, step)


class Turn:
    """One agent's turn, from when it moves until it moves again or ends."""

    def __init__(self) -> None:
        self.reward = 0.0
        self.next_obs: PerGroup = {}
        self.terminated = self.known = False

    def end(self, obs: PerGroup, e: int, terminated: bool) -> None:
        self.next_obs, self.terminated, self.known = {name: x[e] for name, x in obs.items()}, terminated, True


def bookkeeping(moments: list[Moment]) -> tuple[dict[tuple[int, int, int], Turn], dict[tuple[int, int], int]]:
    """Every turn by (step, copy, place), and the step of those still open by (copy, place)."""
    turns: dict[tuple[int, int, int], Turn] = {}
    opened: dict[tuple[int, int], int] = {}
    for t, (obs, _, step) in enumerate(moments):
        for e in range(E):
            for n, (group, a) in enumerate(PLACES):
                if step.alive[group][e, a]:
                    if (e, n) in opened:
                        turns[opened[e, n], e, n].end(obs, e, False)
                    opened[e, n], turns[t, e, n] = t, Turn()
                if (e, n) in opened:
                    turns[opened[e, n], e, n].reward += float(step.reward[group][e, a])
                if step.missing and step.missing[group][e, a]:
                    opened.pop((e, n), None)  # for good: nobody will learn from that turn
            for n, (group, a) in enumerate(PLACES):
                ended = bool(step.terminated[group][e, a] | step.truncated[group][e, a])
                if ended and (e, n) in opened:
                    turns[opened.pop((e, n)), e, n].end(step.next_obs, e, bool(step.terminated[group][e, a]))
    return turns, opened


def fresh(slots: int) -> Turns:
    return Turns({g.name: Replay(slots, E, g, CPU) for g in GROUPS})


def written(slots: int, moments: list[Moment]) -> Turns:
    turns = fresh(slots)
    for t, moment in enumerate(moments):
        turns.write(t, *moment)
    return turns


def played(steps: int, seed: int = 0, ends: float = 0.06) -> list[Moment]:
    play = Play(seed, ends)
    return [play() for _ in range(steps)]


def lossy(moments: list[Moment], share: float) -> list[Moment]:
    """The same, but of what steps brought something is missing."""
    draw = torch.Generator().manual_seed(5)
    found = []
    for moment in moments:
        missing = {g.name: torch.rand(E, len(g.agents), generator=draw) < share for g in GROUPS}
        found.append(moment._replace(step=moment.step._replace(missing=missing)))
    return found


@pytest.mark.parametrize("ends", [0.0, 0.06, 0.5])
@pytest.mark.parametrize("slots", [4, 17, 100])
@pytest.mark.parametrize("losses", [0.0, 0.1])
def test_every_turn_is_kept_as_bookkeeping_has_it(slots: int, ends: float, losses: float):
    moments = played(80, slots, ends)
    if losses:
        moments = lossy(moments, losses)
    replays = written(slots, moments).replays
    expected, _ = bookkeeping(moments)
    known = ended = 0
    for t in range(max(0, 80 - slots), 80):
        at, moment = t % slots, moments[t]
        for e in range(E):
            for n, (group, a) in enumerate(PLACES):
                replay, turn = replays[group], expected.get((t, e, n))
                assert bool(replay.alive[at, e, a]) is (turn is not None and turn.known)
                if turn is None or not turn.known:
                    continue
                known, ended = known + 1, ended + int(turn.terminated)
                assert float(replay.reward[at, e, a]) == pytest.approx(turn.reward, abs=1e-5)
                assert bool(replay.terminated[at, e, a]) is turn.terminated
                for name, other in replays.items():  # central critics see everybody
                    assert torch.equal(other.obs[at, e], moment.obs[name][e])
                    assert torch.equal(other.action[at, e], moment.action[name][e])
                    assert torch.equal(other.next_obs[at, e], turn.next_obs[name])
    assert known > 0
    assert ended > 0 or ends == 0 or slots == 4


def test_what_is_not_known_yet_becomes_known_and_is_told_from_what_will_not_change():
    moments = played(60, seed=3)
    turns, before = fresh(100), [Tensor()]
    for t, moment in enumerate(moments):
        turns.write(t, *moment)
        _, opened = bookkeeping(moments[: t + 1])
        settled = turns.settled(t + 1)
        assert settled == min([*opened.values(), t + 1])
        rings = [ring for replay in turns.replays.values() for ring in replay.tensors().values()]
        if t > 0:
            for ring, old in zip(rings, before, strict=True):
                assert torch.equal(ring[: len(old)], old)
        before = [ring[:settled].clone() for ring in rings]


def test_a_turn_that_outlives_the_ring_is_never_learned_from():
    """Agent 0 moves once and then never again, until it ends: by then its row is somebody else's."""
    moments = []
    for t in range(10):
        alive = {"a": torch.zeros(E, 2, dtype=torch.bool), "b": torch.zeros(E, 1, dtype=torch.bool)}
        alive["a"][:, 0 if t == 0 else 1] = True
        no = {name: torch.zeros_like(x) for name, x in alive.items()}
        ends = {"a": torch.tensor([[t == 9, False]]).expand(E, 2), "b": no["b"]}
        obs = {g.name: torch.full((E, len(g.agents), g.obs_size), float(t)) for g in GROUPS}
        then = {name: x + 1 for name, x in obs.items()}
        reward = {name: torch.ones(x.shape) for name, x in alive.items()}
        action = {"a": torch.full((E, 2), t), "b": torch.zeros(E, 1, 1)}
        moments.append(Moment(obs, action, Step(then, then, reward, ends, no, alive, torch.zeros(E, dtype=torch.bool))))
    replay = written(4, moments).replays["a"]
    assert not replay.alive[:, :, 0].any()
    assert replay.alive[:, :, 1].sum() == 3 * E
    for t in (6, 7, 8):
        assert replay.next_obs[t % 4, :, :, :].eq(t + 1).all()
        assert replay.reward[t % 4, :, 1].eq(1).all()


def test_open_turns_go_on_from_a_saved_state():
    moments = played(50, seed=8)
    whole, first = written(12, moments), written(12, moments[:23])
    again = fresh(12)
    for name, replay in again.replays.items():
        for key, ring in replay.tensors().items():
            ring.copy_(first.replays[name].tensors()[key])
    state: dict[str, Any] = first.state_dict()
    again.load_state_dict(state)
    first.opened.fill_(-7)
    for t in range(23, 50):
        again.write(t, *moments[t])
    assert torch.equal(again.opened, whole.opened)
    for name, replay in again.replays.items():
        for key, ring in replay.tensors().items():
            assert torch.equal(ring, whole.replays[name].tensors()[key]), key
