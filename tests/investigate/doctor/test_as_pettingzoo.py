"""Whatever PettingZoo's own tests refuse, the doctor reports, by its own observations."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import pytest

from marl_stable.investigate.doctor import checkup
from tests.investigate.doctor import refused
from tests.investigate.doctor.hurry import hurry
from tests.investigate.doctor.planted import sound
from tests.investigate.doctor.refused import REFUSED

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports environments in a way that it has deprecated itself
    import pettingzoo.test  # type: ignore[import-untyped]

HERE = Path(__file__).with_name("refused.py")
CYCLES = 60


@pytest.fixture(autouse=True)
def _briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, 2.0)
    monkeypatch.setattr(checkup, "check_import", lambda env_id, kwargs, notes: None)


def refusal(test: str, kind: Any) -> Exception | None:
    """What one of PettingZoo's tests raises, an assertion or what comes of a broken promise; warnings do not count."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            getattr(pettingzoo.test, test)(kind if "seed" in test else kind(), CYCLES)
        except Exception as error:
            return error
    return None


@pytest.mark.parametrize("name", REFUSED)
def test_what_pettingzoo_refuses_is_reported(name: str) -> None:
    test, id, where = REFUSED[name]
    assert refusal(test, getattr(refused, name)) is not None
    found = checkup.examine(f"{HERE}:{name}", {}).findings
    assert (id, True) in [(finding.id, where.items() <= finding.where.items()) for finding in found]


@pytest.mark.parametrize(
    ("test", "name"),
    [("parallel_api_test", "Sound"), ("parallel_seed_test", "Sound"), ("api_test", "Turns"), ("seed_test", "Turns")],
)
def test_the_environments_that_are_sabotaged_pass_all_of_them(test: str, name: str) -> None:
    assert refusal(test, getattr(sound, name)) is None


def test_each_of_the_four_refuses_some() -> None:
    assert {test for test, _, _ in REFUSED.values()} == {
        "parallel_api_test", "parallel_seed_test", "api_test", "seed_test",
    }  # fmt: skip
