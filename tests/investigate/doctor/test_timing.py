"""Time that a step takes is told from time in which other programs kept it from the processor."""

from __future__ import annotations

import time

from marl_stable.investigate.doctor.timing import Stamp, seconds_between, stamp


def test_a_call_that_waits_is_as_long_as_the_clock_says() -> None:
    began = stamp()
    time.sleep(0.05)
    assert seconds_between(began, stamp()) >= 0.05


def test_a_call_that_was_kept_from_the_processor_is_as_long_as_it_computed() -> None:
    assert seconds_between(Stamp(0.0, 0.0, 7), Stamp(1.0, 0.25, 7)) == 0.25


def test_threads_compute_no_longer_than_the_clock_says() -> None:
    assert seconds_between(Stamp(0.0, 0.0, 7), Stamp(1.0, 3.0, 7)) == 1.0


def test_a_call_that_computes_is_as_long_as_it_computed() -> None:
    began = stamp()
    until = time.process_time() + 0.02
    while time.process_time() < until:
        pass
    assert seconds_between(began, stamp()) >= 0.02
