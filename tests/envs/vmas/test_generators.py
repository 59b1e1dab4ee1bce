"""Random numbers of one's own from a library that draws from the process's generators."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import torch

from marl_stable.envs.vmas.generators import OwnGenerators

CPU = torch.device("cpu")


def draw() -> list[float]:
    return [float(torch.rand(())), float(np.random.rand()), random.random()]


def test_draws_follow_the_seed_and_leave_the_process_alone() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    expected = draw() + draw()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    own, twin = OwnGenerators(CPU), OwnGenerators(CPU)
    own.seed(5)
    twin.seed(5)
    outside = draw()
    with own.in_use():
        inside = draw()
    with twin.in_use():
        assert draw() == inside
    assert outside + draw() == expected
    with own.in_use():
        assert draw() != inside


def test_within_itself_the_stream_goes_on() -> None:
    own, twin = OwnGenerators(CPU), OwnGenerators(CPU)
    with own.in_use():
        expected = draw() + draw() + draw()
    with twin.in_use():
        drawn = draw()
        with twin.in_use():
            drawn += draw()
        assert drawn + draw() == expected


def test_they_are_put_back_where_something_fails() -> None:
    own = OwnGenerators(CPU)
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="zzz"), own.in_use():
        int(f"{draw()[0]} zzz")
    assert torch.equal(torch.get_rng_state(), before)


def test_they_go_on_where_they_were_saved() -> None:
    own, other = OwnGenerators(CPU), OwnGenerators(CPU)
    own.seed(3)
    with own.in_use():
        draw()
        np.random.standard_normal()  # keeps a second number for later
    file = io.BytesIO()
    torch.save(own.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    with own.in_use():
        expected = [draw(), np.random.standard_normal()]
    with other.in_use():
        assert [draw(), np.random.standard_normal()] == expected
