"""Scales, round numbers, and what is stacked."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marl_stable.report.svg import Frame, Scale, drawing, fitted, short, span, stacked, ticks

NUMBERS = st.floats(-1e9, 1e9)


@given(NUMBERS, st.floats(1e-6, 1e9), st.integers(3, 9))
def test_ticks_are_few_and_within(low: float, size: float, most: int) -> None:
    high = low + size
    if high - low < 1e-6 * abs(low):
        return  # beyond what a float can tell apart
    found = ticks(low, high, most)
    slack = 1e-6 * max(abs(low), abs(high), size)
    assert len(found) <= most + 1
    assert found == sorted(set(found))
    assert all(low - slack <= value <= high + slack for value in found)


def test_ticks_are_round() -> None:
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(-0.12, 0.31) == pytest.approx([-0.1, 0, 0.1, 0.2, 0.3])
    assert 0.0 in ticks(-3.3, 7)


@given(st.lists(NUMBERS, max_size=9), st.booleans())
def test_a_span_holds_all_with_some_room(values: list[float], zero: bool) -> None:
    low, high = span(values, zero)
    assert low < high
    assert all(low < value < high for value in [*values, *[0.0] * zero])


def test_a_span_minds_no_number_that_is_not_finite() -> None:
    assert span([float("nan"), float("inf")]) == span([])


def test_numbers_are_short() -> None:
    told = {0.0: "0", 5000: "5k", 40_000: "40k", 2.5e6: "2.5M", -0.25: "\N{MINUS SIGN}0.25", 1234: "1.23k"}
    assert {value: short(value) for value in told} == told
    assert short(2e-5) == "2.0e\N{MINUS SIGN}5"
    assert short(3e15) == "3.0e15"


@given(st.lists(st.floats(-2, 2), max_size=6))
def test_parts_are_stacked_to_either_side_without_overlap(shares: list[float]) -> None:
    ends = stacked(shares)
    assert [end - begin for begin, end in ends] == pytest.approx(shares, abs=1e-9)
    assert max([0.0, *(end for _, end in ends)]) == pytest.approx(sum(x for x in shares if x > 0))
    assert min([0.0, *(end for _, end in ends)]) == pytest.approx(sum(x for x in shares if x < 0))


def test_marks_lie_where_the_scales_say() -> None:
    frame = Frame(Scale(0, 10, 50, 150), Scale(-1, 1, 100, 0))
    made = ET.fromstring(drawing(200, 120, 'told "so" <here>', [
        frame.line([0, 5, 10], [1, None, -1], "c0"), frame.dot(5, 0, "c1", "5 & 0"),
        frame.box((2, 4), (1, 0), "c2"), frame.upright(5, -1, 1, "c3"),
    ]))  # fmt: skip
    assert made.attrib["aria-label"] == 'told "so" <here>'
    line, dot, box, whisker = made
    assert line.attrib["d"] == "M50.0,0.0M150.0,100.0"  # with a gap
    assert (dot.attrib["cx"], dot.attrib["cy"], dot[0].text) == ("100.0", "50.0", "5 & 0")
    assert [box.attrib[part] for part in ("x", "y", "width", "height")] == ["70.0", "0.0", "20.0", "50.0"]
    assert whisker.attrib["d"] == "M100.0,100.0V0.0"


def test_what_is_too_long_is_cut() -> None:
    assert fitted("agent_0", 80) == "agent_0"
    assert fitted("leadadversary_0", 50) == "leadadv\N{HORIZONTAL ELLIPSIS}"
