"""The replay beside the checkpoints: each step written once, nothing deleted too early, nothing damaged taken in."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from marl_stable.agents.base import Rings
from marl_stable.replay_files import ReplayFiles
from marl_stable.types import PerGroup, UsageError

SLOTS, E, A = 10, 2, 3


class Ring:
    """A ring whose every number says in which step it was written, and in which it was changed."""

    def __init__(self) -> None:
        self.steps = self.settled = 0
        self.groups: dict[str, PerGroup] = {
            "a": {"obs": torch.zeros(SLOTS, E, A, 2), "done": torch.zeros(SLOTS, E, A, dtype=torch.bool)},
            "b": {"action": torch.zeros(SLOTS, E, 1, dtype=torch.int64)},
        }

    def write(self, count: int = 1, unsettled: int = 0) -> Rings:
        """Write `count` steps, the last `unsettled` of which may still change, and change those that could."""
        for t in range(self.settled, self.steps):
            self.groups["b"]["action"][t % SLOTS] += 1_000_000
        for t in range(self.steps, self.steps + count):
            self.groups["a"]["obs"][t % SLOTS] = t + torch.arange(E * A * 2).reshape(E, A, 2) / 100
            self.groups["a"]["done"][t % SLOTS] = t % 3 == 0
            self.groups["b"]["action"][t % SLOTS] = t
        self.steps += count
        self.settled = max(0, self.steps - unsettled)
        return self.rings()

    def rings(self) -> Rings:
        return Rings(self.groups, self.steps, self.settled)

    def frozen(self) -> Rings:
        copies = {group: {name: x.clone() for name, x in parts.items()} for group, parts in self.groups.items()}
        return Rings(copies, self.steps, self.settled)


def emptied(rings: Rings) -> Rings:
    """Rings as they are before the replay is loaded: as far as the checkpoint knows, but without content."""
    none = {group: {name: torch.zeros_like(x) for name, x in parts.items()} for group, parts in rings.groups.items()}
    return rings._replace(groups=none)


def spans(folder: Path) -> list[tuple[int, int]]:
    found = (path.stem.split("-") for path in folder.glob("*"))
    return sorted((int(first), int(last)) for first, last in found)


def saved(files: ReplayFiles, rings: Rings) -> None:
    """As the run does it: the replay, then (here: successfully) the checkpoint, then what is not needed any more."""
    files.save(rings)
    files.forget(rings)


def assert_loads(folder: Path, expected: Rings) -> None:
    found = emptied(expected)
    ReplayFiles(folder, found).load(found)
    for group, parts in expected.groups.items():
        for name, ring in parts.items():
            assert torch.equal(found.groups[group][name], ring), (group, name)


def test_a_save_writes_new_steps_only_and_nothing_where_there_are_none(tmp_path: Path):
    ring = Ring()
    files = ReplayFiles(tmp_path, ring.rings())
    saved(files, ring.rings())
    assert spans(tmp_path) == []
    for _ in range(3):
        saved(files, ring.write(3))
        saved(files, ring.rings())
    assert spans(tmp_path) == [(0, 3), (3, 6), (6, 9)]
    assert_loads(tmp_path, ring.rings())


def test_of_more_steps_than_fit_the_last_are_saved(tmp_path: Path):
    ring = Ring()
    files = ReplayFiles(tmp_path, ring.rings())
    saved(files, ring.write(37))
    assert spans(tmp_path) == [(27, 37)]
    assert_loads(tmp_path, ring.rings())
    saved(files, ring.write(10))
    assert spans(tmp_path)[-1] == (37, 47)
    assert_loads(tmp_path, ring.rings())


@pytest.mark.parametrize("unsettled", [0, 1, 4, 25])
def test_both_checkpoints_find_what_they_need_and_no_file_stays_without_need(tmp_path: Path, unsettled: int):
    """`unsettled` steps of turn-based play change after they were saved; saved again, each checkpoint has its own."""
    ring, rng = Ring(), random.Random(unsettled)
    files = ReplayFiles(tmp_path, ring.rings())
    previous = ring.frozen()
    for _ in range(40):
        saved(files, ring.write(rng.choice([1, 2, 5, 9, 10, 13]), unsettled))
        last = ring.frozen()
        kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
        assert all(end > previous.steps - SLOTS for _, end in spans(tmp_path))
        assert_loads(tmp_path, last)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept
        if previous.steps:
            assert_loads(tmp_path, previous)  # drops what only `last.pt` knew
            for path, content in kept.items():
                path.write_bytes(content)
        previous = last


def test_steps_that_may_have_changed_are_written_again(tmp_path: Path):
    ring = Ring()
    files = ReplayFiles(tmp_path, ring.rings())
    saved(files, ring.write(4, unsettled=3))
    saved(files, ring.write(3, unsettled=0))
    saved(files, ring.write(1))
    assert spans(tmp_path) == [(0, 4), (1, 7), (7, 8)]
    assert ring.groups["b"]["action"][1, 0, 0] == 1_000_001
    assert_loads(tmp_path, ring.rings())


def test_nothing_goes_while_checkpoints_cannot_be_written(tmp_path: Path):
    """A disk that takes the replay but not `last.pt`: the checkpoints on it are those of steps 4 and 8."""
    ring = Ring()
    files = ReplayFiles(tmp_path, ring.rings())
    saved(files, ring.write(4))
    previous = ring.frozen()
    saved(files, ring.write(4))
    last = ring.frozen()
    for _ in range(8):
        files.save(ring.write(4))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert_loads(tmp_path, last)
    for path, content in before.items():
        path.write_bytes(content)
    assert_loads(tmp_path, previous)
    for path, content in before.items():
        path.write_bytes(content)
    saved(files, ring.write(4))  # there is room again
    assert_loads(tmp_path, ring.rings())
    assert spans(tmp_path)[0] == (0, 4)
    saved(files, ring.write(4))
    assert min(end for _, end in spans(tmp_path)) > 44 - SLOTS


def test_files_of_steps_that_no_checkpoint_knows_are_dropped(tmp_path: Path):
    ring = Ring()
    files = ReplayFiles(tmp_path, ring.rings())
    files.save(ring.write(3))
    known = ring.frozen()
    files.save(ring.write(4))
    files.save(ring.write(2))
    (tmp_path / "notes.txt").write_text("mine")
    again = ReplayFiles(tmp_path, known)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000000000-000000000003.pt", "notes.txt"]
    ring = Ring()
    ring.write(3)
    saved(again, ring.write(5))  # going on, in other steps than before
    assert (tmp_path / "000000000003-000000000008.pt").exists()
    assert_loads(tmp_path, ring.rings())


@pytest.mark.parametrize("damage", ["missing", "first missing", "last missing", "empty", "cut", "a bit", "no rings"])
def test_a_replay_that_is_not_whole_is_refused_by_name(tmp_path: Path, damage: str):
    ring = Ring()
    files = ReplayFiles(tmp_path, ring.rings())
    for _ in range(3):
        saved(files, ring.write(3))
    first, middle, last = sorted(tmp_path.iterdir())
    content = middle.read_bytes()
    if "missing" in damage:
        {"missing": middle, "first missing": first, "last missing": last}[damage].unlink()
        lacks = {"missing": "3 to 9", "first missing": "0 to 9", "last missing": "6 to 9"}[damage]
        said = f"the replay in {tmp_path} lacks steps {lacks}. Begin anew with --init-from this run."
    else:
        at = content.index(b"rings")
        flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        middle.write_bytes(
            {"empty": b"", "cut": content[: len(content) // 2], "a bit": flipped, "no rings": b"PK"}[damage]
        )
        said = f"the replay cannot be read: {middle} "
    with pytest.raises(UsageError) as refused:
        ReplayFiles(tmp_path, ring.rings()).load(emptied(ring.rings()))
    assert str(refused.value).startswith(said)
    assert str(refused.value).endswith("Begin anew with --init-from this run.")


def test_a_full_disk_leaves_the_old_files_and_the_next_save_has_all_steps(tmp_path: Path, small_files):
    ring = Ring()
    files = ReplayFiles(tmp_path, ring.rings())
    saved(files, ring.write(3))
    before = ring.frozen()
    with small_files(500), pytest.raises((OSError, RuntimeError)):
        files.save(ring.write(4))
    assert_loads(tmp_path, before)
    saved(files, ring.write(1))
    assert spans(tmp_path) == [(0, 3), (3, 8)]
    assert_loads(tmp_path, ring.rings())


def test_algorithms_without_a_replay_have_no_files(tmp_path: Path):
    nothing = Rings({}, 0, 0)
    files = ReplayFiles(tmp_path / "replay", nothing)
    saved(files, nothing)
    files.load(nothing)
    assert not (tmp_path / "replay").exists()
