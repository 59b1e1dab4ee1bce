from __future__ import annotations

import errno
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from marl_stable.report.files import RecordFile, replace_file, to_json

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs the always full device of Linux")


def test_replaces_the_whole_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old and longer")
    replace_file(path, (b"new", b"!"))
    assert path.read_bytes() == b"new!"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_replacement_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    def content() -> Iterator[bytes]:
        yield b"half"
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="No space"):
        replace_file(path, content())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_every_record_is_on_disk_when_append_returns(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "file")
    file.begin(b"head\n", (b"1\n",))
    for record in (b"2\n", b"3\n"):
        file.append(record)
        assert file.path.read_bytes().endswith(record)
    assert file.path.read_bytes() == b"head\n1\n2\n3\n"


def test_a_full_disk_leaves_no_part_of_a_record(tmp_path: Path, small_files) -> None:
    file = RecordFile(tmp_path / "file")
    file.begin(b"head\n")
    with small_files(10), pytest.raises(OSError, match="too large"):
        file.append(b"a long record\n")
    assert file.path.read_bytes() == b"head\n"
    file.append(b"next\n")
    assert file.path.read_bytes() == b"head\nnext\n"


@needs_full
def test_a_really_full_device_raises_and_the_file_goes_on_when_it_is_back(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "file")
    file.begin(b"head\n")
    aside = file.path.rename(tmp_path / "aside")
    file.path.symlink_to(FULL)
    with pytest.raises(OSError, match="No space left"):
        file.append(b"lost\n")
    aside.replace(file.path)
    file.append(b"next\n")
    assert file.path.read_bytes() == b"head\nnext\n"


def test_a_file_deleted_under_way_is_begun_anew(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "file")
    file.begin(b"head\n")
    file.append(b"1\n")
    file.path.unlink()
    file.append(b"2\n")
    assert file.path.read_bytes() == b"head\n2\n"


def test_json_has_no_constants_that_strict_readers_refuse() -> None:
    value = {"a": [math.nan, math.inf, 1.5], "b": {"c": -math.inf}, "d": (1, None, True, "NaN")}
    assert to_json(value) == '{"a": [null, null, 1.5], "b": {"c": null}, "d": [1, null, true, "NaN"]}'
    assert to_json({"a": 1}, indent=2) == '{\n  "a": 1\n}'
