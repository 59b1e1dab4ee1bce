"""A doctor in a hurry, for tests."""

from __future__ import annotations

import pytest

from marl_stable.investigate.doctor import checkup, ends, features, watching


def hurry(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """A fifth of the play that the doctor affords, each part within some seconds."""
    for name, value in (("ENOUGH_EPISODES", 20), ("ENOUGH_STEPS", 320), ("MOST_STEPS", 400), ("PATIENCE", 1_000)):
        monkeypatch.setattr(watching, name, value)
    monkeypatch.setattr(ends, "PATIENCE", 1_000)
    monkeypatch.setattr(ends, "LONG", 1_000)
    monkeypatch.setattr(features, "ROWS_OF_ZEROS", 300)
    for name in ("PLAY", "SEEDING", "LEAK", "EFFECTS", "LIMITS"):
        monkeypatch.setattr(checkup, name, seconds)
