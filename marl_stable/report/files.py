"""Writing files that survive full disks, killed processes and strict readers: all at once, or record by record."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from marl_stable.types import UsageError

PAGES = (".html", ".htm")


def replace_file(path: Path, content: Iterable[bytes]) -> None:
    """Write `content` to `path` so that a reader sees the old file or the whole new one, never a part.

    Raises OSError and leaves no temporary file behind where it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(name: str) -> Path:
    """The file that a page will be written to: ask before working.

    UsageError where it is a folder, lies in none, or is named like anything but a page, which it would replace.
    """
    path = Path(name)
    if path.is_dir():
        what = "is a folder"
    elif not path.parent.is_dir():
        what = f"lies in {str(path.parent)!r}, which is no folder"
    elif path.suffix.lower() not in PAGES:
        what = f"does not end in {' or '.join(PAGES)}"
    else:
        return path
    raise UsageError(f"{name!r} {what}; name a file for the page, such as page.html.")


def write_page(path: Path, content: str) -> None:
    """Write a page as a whole. Raises UsageError where that cannot be done."""
    try:
        replace_file(path, [content.encode()])
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be written ({error.strerror}); name another file.") from error


def to_json(value: Any, indent: int | None = None) -> str:
    """`value` as JSON that every reader takes: NaN and infinities, which JSON does not have, are null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


class RecordFile:
    """A file that grows by whole records, each handed to the operating system before `append` returns.

    A file deleted under way is begun anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._head = b""

    def begin(self, head: bytes, records: Iterable[bytes] = ()) -> None:
        """Replace the file by `head` and `records`, atomically. Raises OSError."""
        replace_file(self.path, (head, *records))
        self._head = head

    def append(self, record: bytes) -> None:
        """Add one record. Raises OSError; the file then still holds every record before it, and no part of this one."""
        if not self.path.exists():
            self.begin(self._head)
        with self.path.open("r+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            try:
                _write_all(file, record)
            except BaseException:  # an interruption tears a record as well
                with contextlib.suppress(OSError):
                    file.truncate(end)
                raise


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_all(file: io.FileIO, data: bytes) -> None:
    left = memoryview(data)
    while left:  # on a disk that is nearly full a write may take a part only
        left = left[file.write(left) :]
