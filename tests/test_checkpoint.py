"""Checkpoints: what may go in, what comes out, and what becomes of damaged, planted and unfinished files."""

from __future__ import annotations

import enum
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from marl_stable import checkpoint
from marl_stable.agents.config import MAPPOConfig
from marl_stable.checkpoint import FORMAT, Damaged, load, load_newest, load_run, save
from marl_stable.types import Discrete, EnvSpec, Group, UsageError, spec_to_dict
from tests.runs import assert_equal

CPU = torch.device("cpu")
SPEC = EnvSpec("walk", ("a",), (Group("a", ("a",), 2, Discrete(2), "team"),))


class Point(NamedTuple):
    x: int


class Colour(enum.Enum):
    RED = 1


class Text(str):
    __slots__ = ()


class Evil:
    """Runs a command where it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.sentinel}",)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "last.pt"


def run_state(steps: int, **more: Any) -> dict[str, Any]:
    """What `last.pt` says of a run at `steps`."""
    return {"steps": steps, "algo": {"name": "mappo"}, "spec": spec_to_dict(SPEC), "training": {}} | more


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


def test_everything_plain_comes_back_bit_for_bit(path: Path) -> None:
    state = {
        "f32": torch.tensor([1.5, -0.0, torch.nan, torch.inf]),
        "bool": torch.tensor([True, False]),
        "u8": torch.get_rng_state(),
        "none": None,
        "numbers": [1, 2.5, True, (3, "x")],
        "nested": {0: {"a": torch.zeros(0, 3)}},
    }
    save(path, state)
    assert_equal(load(path, CPU), state | {"format": FORMAT})
    assert names(path) == ["last.pt"]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (np.float64(1.0), "numpy.float64"),
        (np.int64(1), "numpy.int64"),
        (np.zeros(2), "numpy.ndarray"),
        (Point(1), "Point"),
        (Colour.RED, "Colour"),
        (Path("x"), "Path"),
        ({1, 2}, "set"),
        (OrderedDict(), "OrderedDict"),
        (Text("x"), "Text"),
        (torch.float32, "dtype"),
        (b"bytes", "bytes"),
    ],
)
def test_what_could_not_be_loaded_is_refused_when_it_is_saved_and_named_by_its_place(
    path: Path, value: Any, kind: str
) -> None:
    save(path, {"steps": 1})
    with pytest.raises(TypeError, match=rf"state\['a'\]\[1\]\['b'\] is a .*{kind}; store a plain type or a tensor"):
        save(path, {"a": [0, {"b": value}]})
    with pytest.raises(TypeError, match=r"state\['a'\] has the key"):
        save(path, {"a": {2.5: 1}})
    assert load(path, CPU)["steps"] == 1
    assert names(path) == ["last.pt"]


def test_the_one_before_is_kept(path: Path) -> None:
    previous = path.with_name("previous.pt")
    for steps in (1, 2, 3):
        save(path, {"steps": steps}, keep_as=previous)
    assert (load(path, CPU)["steps"], load(previous, CPU)["steps"]) == (3, 2)
    assert names(path) == ["last.pt", "previous.pt"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(path, {"steps": 1})

    def half(state: Any, file: Any) -> None:
        file.write(b"half of it")
        raise RuntimeError("[enforce fail at inline_container.cc] unexpected pos")  # torch's words for a full disk

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(RuntimeError):
        save(path, {"steps": 2}, keep_as=path.with_name("previous.pt"))
    assert load(path, CPU)["steps"] == 1
    assert names(path) == ["last.pt"]


@pytest.mark.parametrize("step", ["write", "fsync", "first rename", "second rename", "folder"])
def test_a_process_killed_anywhere_in_a_save_leaves_a_good_checkpoint(
    path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends before `step`; what is on disk then is all there is."""
    previous = path.with_name("previous.pt")
    for steps in (1, 2):
        save(path, run_state(steps), keep_as=previous)

    class Killed(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    renames = iter([step == "first rename", step == "second rename"])
    replace = Path.replace
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)  # the dead clean nothing up
    if step == "write":
        monkeypatch.setattr(torch, "save", killed)
    elif step == "fsync":
        monkeypatch.setattr(os, "fsync", killed)
    elif step == "folder":
        monkeypatch.setattr(checkpoint, "_sync_folder", killed)
    else:
        monkeypatch.setattr(Path, "replace", lambda self, to: killed() if next(renames) else replace(self, to))
    with pytest.raises(Killed):
        save(path, run_state(3), keep_as=previous)
    monkeypatch.setattr(Path, "unlink", unlink)
    monkeypatch.undo()
    kept, warning = load_newest(path.parent, CPU)
    assert kept.steps == (3 if step == "folder" else 2)
    assert (warning is not None) == (step == "second rename")
    save(path, run_state(4), keep_as=previous)
    assert load_newest(path.parent, CPU)[0].steps == 4
    assert not [name for name in names(path) if name.endswith(".tmp")]


def flipped(data: bytes) -> bytes:
    """One bit of the tensor's own numbers, which torch would load without a word."""
    at = data.index(b"\x00\x00\x80\x3f" * 100)  # ones, as float32
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGE = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "without its end": lambda data: data[:-1],
    "flipped": flipped,
    "text": lambda data: b"not a checkpoint",
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_seen_and_the_one_before_is_used(path: Path, kind: str) -> None:
    previous = path.with_name("previous.pt")
    for steps in (1_000, 2_000):
        save(path, run_state(steps, ones=torch.ones(1000)), keep_as=previous)
    if kind == "flipped":
        torch.load(path, weights_only=True)  # this is all right
        path.write_bytes(flipped(path.read_bytes()))
        torch.load(path, weights_only=True)  # and this is not, but torch does not see it
    path.write_bytes(DAMAGE[kind](path.read_bytes()) if kind != "flipped" else path.read_bytes())
    broken = path.read_bytes()
    with pytest.raises(Damaged, match=r"last.pt (is damaged|cannot be read)"):
        load(path, CPU)
    kept, warning = load_newest(path.parent, CPU)
    assert kept.steps == 1_000
    assert warning is not None
    assert "last.pt" in warning
    assert "going on from previous.pt at 1,000 steps" in warning
    assert path.with_name("damaged.pt").read_bytes() == broken  # set aside, not deleted
    save(path, run_state(3_000), keep_as=previous)
    assert load(previous, CPU)["steps"] == 1_000  # and never moved over the good one


def test_both_damaged_is_one_sentence_and_nothing_is_deleted(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"")
    path.with_name("previous.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(
        UsageError, match=r"no checkpoint to go on from: .*last\.pt cannot be read .*previous\.pt"
    ) as said:
        load_newest(path.parent, CPU)
    assert "\n" not in str(said.value)
    assert names(path) == ["last.pt", "previous.pt"]


@pytest.mark.parametrize("zipped", [True, False])
def test_a_planted_pickle_is_never_executed(path: Path, tmp_path: Path, zipped: bool) -> None:
    sentinel = tmp_path / "sentinel"
    path.parent.mkdir()
    if zipped:
        torch.save({"format": FORMAT, "steps": 1, "training": Evil(sentinel)}, path)
    else:
        path.write_bytes(pickle.dumps(Evil(sentinel)))
    with pytest.raises(Damaged, match="cannot be read"):
        load(path, CPU)
    with pytest.raises(UsageError):
        load_newest(path.parent, CPU)
    assert not sentinel.exists()
    if zipped:  # the weapon is a real one
        torch.load(path, weights_only=False)
        assert sentinel.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"weight": torch.zeros(2)}, "is not a checkpoint of marl_stable"),
        ([1, 2], "is not a checkpoint of marl_stable"),
        (torch.zeros(2), "is not a checkpoint of marl_stable"),
        ({"format": "pt", "steps": 1}, "is not a checkpoint of marl_stable"),
        ({"format": FORMAT + 1, "steps": 1}, rf"was written by a later release \(format {FORMAT + 1}, this one reads"),
    ],
)
def test_a_foreign_checkpoint_is_refused_politely(path: Path, content: Any, said: str) -> None:
    path.parent.mkdir()
    torch.save(content, path)
    with pytest.raises(Damaged, match=said):
        load(path, CPU)


def test_a_zip_archive_of_something_else_and_a_policy_alone_are_refused(path: Path) -> None:
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(Damaged, match="cannot be read"):
        load(path, CPU)
    policy = run_state(1, policy={})
    del policy["training"]
    save(path, policy)  # best.pt under the name of last.pt
    with pytest.raises(UsageError, match=r"last\.pt holds a policy only"):
        load_newest(path.parent, CPU)


def test_a_checkpoint_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(Damaged, match=r"last\.pt does not exist"):
        load(path, CPU)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"steps": None}, r"\(steps: None\)"),
        ({"steps": "1"}, r"\(steps: '1'\)"),
        ({"algo": [1]}, r"\(TypeError: .*\)"),
        ({"algo": {}}, r"\(KeyError: 'name'\)"),
        ({"spec": {"groups": [1]}}, r"\(TypeError: .*\)"),
        ({"spec": {"groups": []}}, r"\(KeyError: 'id'\)"),
        ({"training": [1]}, r"\(training: list\)"),
        ({"training": {"agent": {}}}, r"\(its training lacks envs\)"),
    ],
    ids=str,
)
def test_a_checkpoint_that_does_not_hold_a_run_is_damaged_and_the_one_before_is_used(
    path: Path, changed: dict[str, Any], said: str
) -> None:
    previous, whole = path.with_name("previous.pt"), run_state(1_000, training={"agent": {}, "envs": {}})
    save(path, whole)
    save(path, whole | changed, keep_as=previous)
    kept, warning = load_newest(path.parent, CPU, ("agent", "envs"))
    assert warning is not None
    assert re.search(rf"last\.pt is damaged {said}; going on from previous\.pt at 1,000 steps\.", warning)
    assert (kept.steps, kept.spec, kept.algo) == (1_000, SPEC, MAPPOConfig())


@pytest.mark.parametrize("part", ["steps", "algo", "spec"])
def test_a_checkpoint_without_a_word_on_itself_is_damaged(path: Path, part: str) -> None:
    state = run_state(1)
    del state[part]
    save(path, state)
    with pytest.raises(Damaged, match=rf"last\.pt is damaged \(KeyError: '{part}'\)"):
        load_run(path, CPU)
