"""What the numbers of a recording are called: their signals, their places, and the tags that they come from."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_stable.monitor.table import NETWORKS, SIGNALS, Axis, Column, columns, signal_of

AGENTS = ("red", "blue", "green")
NAMES: dict[Axis, list[str]] = {"layer": ["hidden.0", "final"], "unit": ["hidden.0"]}
AXES = {"row", "agent", "dimension", "feature", "layer", "unit", "term"}

# What a tensor of this tag and shape is called, number by number, without the group.
PLACES = [
    ("stability/reward_std", (3,), [{"agent": "red"}, {"agent": "blue"}, {"agent": "green"}]),
    ("stability/saturation", (3, 1), [{"agent": name, "dimension": 0} for name in AGENTS]),
    ("stability/responsiveness", (3,), [{"agent": name} for name in AGENTS]),  # discrete: no dimensions
    ("stability/obs_peak", (3, 2), [{"agent": name, "feature": i} for name in AGENTS for i in range(2)]),
    ("stability/obs_peak", (2,), [{"feature": 0}, {"feature": 1}]),  # many features: agents are one
    ("stability/obs_peak", (), [{}]),  # still too many
    ("stability/ends_terminated", (), [{}]),
    ("stability/grad_spike/actor", (1,), [{"network": "actor"}]),  # shared
    ("stability/grad_spike/critic", (3,), [{"network": "critic", "agent": name} for name in AGENTS]),
    ("stability/layer_grad/actor", (1, 2), [{"network": "actor", "layer": name} for name in NAMES["layer"]]),
    ("stability/layer_grad/actor", (2,), [{"network": "actor", "layer": name} for name in NAMES["layer"]]),
    (
        "stability/layer_grad/critic",
        (3, 2),
        [{"network": "critic", "agent": name, "layer": layer} for name in AGENTS for layer in NAMES["layer"]],
    ),
    ("stability/layer_grad/critic", (1, 3), [{"network": "critic", "layer": i} for i in range(3)]),  # not named
    ("stability/dormant/actor", (1,), [{"network": "actor", "layer": "hidden.0"}]),
    ("stability/dormant/actor", (2,), [{"network": "actor", "layer": 0}, {"network": "actor", "layer": 1}]),
    ("stability/effective_rank/actor", (), [{"network": "actor"}]),
    ("losses/critic", (3,), [{"agent": name} for name in AGENTS]),
    ("losses/entropy", (), [{}]),
    ("grad_norm/actor", (1,), [{"network": "actor"}]),
    ("grad_norm/actor_clipped_fraction", (3,), [{"network": "actor", "agent": name} for name in AGENTS]),
    ("non_finite/critic", (1,), [{"network": "critic"}]),
    ("actions/saturation", (3,), [{"agent": name} for name in AGENTS]),
]


@pytest.mark.parametrize(("tag", "shape", "expected"), PLACES, ids=[f"{tag}{shape}" for tag, shape, _ in PLACES])
def test_every_number_is_called_by_its_place(tag: str, shape: tuple[int, ...], expected: list[dict[str, object]]):
    found = list(columns(tag, "team", shape, AGENTS, NAMES))
    assert [dict(column.place) for column in found] == [{"group": "team"} | place for place in expected]
    assert {column.signal for column in found} == {signal_of(tag)[0]}


def test_places_of_several_groups_are_apart():
    left, right = (list(columns("stability/reward_std", group, (2,), (group + "_0", "x"))) for group in ("a", "b"))
    assert left == [
        Column("reward_std", (("group", "a"), ("agent", "a_0"))),
        Column("reward_std", (("group", "a"), ("agent", "x"))),
    ]
    assert not set(left) & set(right)


def test_an_agent_alone_is_named_by_what_is_its_own_but_not_by_its_network():
    assert dict(next(columns("stability/reward_std", "g", (1,), ("me",))).place) == {"group": "g", "agent": "me"}
    parts = columns("stability/term_share", "g", (2, 2), ("a", "b"), {"term": ("goal", "cost")})
    assert [tuple(dict(part.place).values()) for part in parts] == [
        *(("g", "a", "goal"), ("g", "a", "cost"), ("g", "b", "goal"), ("g", "b", "cost"))
    ]
    found = next(columns("stability/grad_spike/actor", "g", (1,), ("me",)))
    assert dict(found.place) == {"group": "g", "network": "actor"}


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("stability/reward_std", ("reward_std", None)),
        ("stability/grad_spike/actor", ("grad_spike", "actor")),
        ("stability/dormant/critic", ("dormant", "critic")),
        ("grad_norm/critic", ("grad_norm", "critic")),
        ("grad_norm/critic_clipped_fraction", ("grad_norm_clipped_fraction", "critic")),
        ("non_finite/actor", ("non_finite", "actor")),
        ("skipped/actor", ("skipped", "actor")),
        ("losses/actor", ("losses/actor", None)),  # a loss is no signal of the network alone
        ("losses/critic", ("losses/critic", None)),
        ("charts/return", ("charts/return", None)),
        ("rewards/terms/actor", ("rewards/terms/actor", None)),  # a term may be called anything
        ("sameness", ("sameness", None)),
        ("actor", ("actor", None)),
        ("", ("", None)),
    ],
)
def test_tags_tell_signal_and_network(tag: str, expected: tuple[str, str | None]):
    assert signal_of(tag) == expected


@pytest.mark.parametrize("name", SIGNALS)
def test_the_table_is_in_order(name: str):
    signal = SIGNALS[name]
    assert set(signal.axes) <= AXES
    assert signal.axes in ((), *((axis,) for axis in signal.axes)) or signal.axes[0] in ("row", "agent")
    assert signal.told_as in ("mean", "max")
    assert len(signal.says) > 8
    assert signal_of(f"stability/{name}") == (name, None)
    assert all(signal_of(f"stability/{name}/{network}") == (name, network) for network in NETWORKS)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_columns_are_as_many_as_numbers_each_its_own_and_in_the_order_of_flattening(data: st.DataObject):
    name = data.draw(st.sampled_from(sorted(SIGNALS)))
    agents = data.draw(st.lists(st.text(), min_size=1, max_size=4, unique=True))
    sizes: dict[Axis, int] = {"agent": len(agents), "row": data.draw(st.sampled_from([1, len(agents)]))}
    for axis in ("dimension", "feature", "layer", "unit", "term"):
        sizes[axis] = data.draw(st.integers(1, 4))
    shape = tuple(sizes[axis] for axis in SIGNALS[name].axes)
    names: dict[Axis, list[str]] = {"layer": [f"l{i}" for i in range(data.draw(st.integers(0, 4)))]}
    found = list(columns(f"stability/{name}", "g", shape, agents, names))
    assert len(found) == math.prod(shape)
    assert len(set(found)) == len(found)
    for axis, size in zip(SIGNALS[name].axes, shape, strict=True):
        if axis in ("dimension", "feature"):
            assert [dict(column.place)[axis] for column in found] == list(range(size)) * (len(found) // size)
