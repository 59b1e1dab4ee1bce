"""The state inside objects: taken, put back into another instance, and mixed copy by copy."""

from __future__ import annotations

import io
from enum import Enum
from typing import Any

import pytest
import torch
from torch import Tensor

from marl_stable.envs.vmas import object_state


class Colour(Enum):
    RED = 1


class Thing:
    def __init__(self, place: float) -> None:
        self.place = torch.full((3,), place)
        self.colour = Colour.RED  # neither data nor walked
        self.friend: Thing | None = None


class World:
    """Three copies of two things, with all that objects hold state in."""

    def __init__(self) -> None:
        self.things = [Thing(1.0), Thing(2.0)]
        self.goal = self.things[0]
        self.things[1].friend = self.things[0]  # a circle, with the next line
        self.things[0].friend = self.things[1]
        self.forces = {self.things[0]: torch.zeros(3), self.things[1]: torch.ones(3)}  # keyed by objects
        self.order = [self.things[0], self.things[1]]
        self.pair = (self.things[1], 7)
        self.past: list[Tensor] = []
        self.count = 0
        self.table = torch.arange(6.0).view(2, 3)
        self.view = self.table[1]
        self.rule = lambda: None
        self.type = Thing


def data(world: World) -> Any:
    file = io.BytesIO()
    torch.save(object_state.take(world), file)  # as a checkpoint has it
    file.seek(0)
    return torch.load(file, weights_only=True)


def changed() -> World:
    world = World()
    world.things[0].friend = None
    world.order.reverse()
    world.things[0].place += 5
    world.past.append(torch.ones(2))
    world.count = 3
    world.forces[world.things[1]] += 1
    world.table += 10
    world.late = torch.ones(3)  # type: ignore[attr-defined]
    return world


def test_another_instance_becomes_the_same() -> None:
    world, other = changed(), World()
    assert object_state.put(other, data(world))
    assert object_state._same(object_state.take(other), object_state.take(world))
    assert other.order == [other.things[1], other.things[0]]
    assert other.goal.place.tolist() == [6.0, 6.0, 6.0]
    assert other.count == 3
    assert torch.equal(other.__dict__["late"], torch.ones(3))


def test_what_came_later_goes_again() -> None:
    world, state = World(), data(World())
    world.late = 3  # type: ignore[attr-defined]
    assert object_state.put(world, state)
    assert not hasattr(world, "late")


def test_tensors_that_share_memory_still_do() -> None:
    world = World()
    assert object_state.put(world, data(changed()))
    world.table[1, 0] = -1
    assert world.view[0] == -1


def test_the_state_is_a_copy_both_ways() -> None:
    world = World()
    state = object_state.take(world)
    world.table.zero_()
    assert object_state.put(world, state)
    world.table.zero_()
    assert object_state.put(world, state)
    assert torch.equal(world.table, torch.arange(6.0).view(2, 3))


def test_other_objects_are_refused_and_nothing_changes() -> None:
    state = data(changed())
    other = World()
    other.things.append(Thing(3.0))
    assert not object_state.put(other, state)
    assert (other.count, len(other.things)) == (0, 3)
    swapped = World()
    swapped.pair = (swapped.things[0], 7)  # nothing can be put into a tuple
    assert not object_state.put(swapped, state)
    exchanged = World()
    exchanged.forces = dict(reversed(exchanged.forces.items()))
    assert not object_state.put(exchanged, state)
    fewer = World()
    del fewer.forces[fewer.things[0]]
    assert not object_state.put(fewer, state)


def test_rows_are_given_back() -> None:
    world = World()
    before = object_state.take(world)
    world.things[0].place = torch.tensor([7.0, 8.0, 9.0])
    world.forces[world.things[1]] = torch.tensor([4.0, 5.0, 6.0])
    assert object_state.keep_rows(world, before, torch.tensor([True, False, True]))
    assert world.things[0].place.tolist() == [1.0, 8.0, 1.0]
    assert world.forces[world.things[1]].tolist() == [1.0, 5.0, 1.0]


@pytest.mark.parametrize("what", ["number", "shape", "link", "new", "no rows", "no rows for sure"])
def test_rows_are_not_given_back_where_more_changed(what: str) -> None:
    world = World()
    world.square = torch.zeros(3, 3)  # type: ignore[attr-defined]
    before = object_state.take(world)
    world.things[0].place += 1
    match what:
        case "number":
            world.count += 1
        case "shape":
            world.past.append(torch.zeros(3))
        case "link":
            world.goal = world.things[1]
        case "new":
            world.late = torch.zeros(3)  # type: ignore[attr-defined]
        case "no rows":
            world.table += 1
        case _:
            world.square += 1  # type: ignore[attr-defined]
    assert not object_state.keep_rows(world, before, torch.tensor([True, False, True]))
    assert world.things[0].place.tolist() == [2.0, 2.0, 2.0]
