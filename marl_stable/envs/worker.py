"""The process that runs some copies of an environment for another: `python -m marl_stable.envs.worker SOCKET MEMORY`.

It is told once what to make, and then takes orders of one byte; arrays are shared memory. No torch, no output, and no
life of its own: it ends when the other side closes the socket, by whatever cause.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from typing import Any

BEGIN, STEP = b"B", b"S"  # orders
DONE, FAILED = b".", b"!"  # answers; a length and JSON, [[copy or null, reason], ...], follow the second
LENGTH = struct.Struct("!I")
GRACE = 1.0  # seconds that environments have to close


def main(connection: socket.socket, memory: int) -> None:
    """Make the copies that the other side asks for, and serve."""
    threading.Thread(target=_leave_with, args=(connection.fileno(),), daemon=True).start()
    order = json.loads(_message(connection))
    try:
        crew = _crew(order, memory)
    except Exception as error:
        from marl_stable.envs.crew import in_words

        _answer(connection, [(None, in_words(error))])
        return
    _answer(connection, [])
    while order := connection.recv(1):
        failures = crew.begin() if order == BEGIN else crew.step()
        _answer(connection, [(failure.copy, failure.reason) for failure in failures])
    crew.close()


def _crew(order: dict[str, Any], memory: int) -> Any:
    from marl_stable.envs import catalog
    from marl_stable.envs.board import Board, Layout
    from marl_stable.envs.crew import LocalCrew
    from marl_stable.types import UsageError, spec_from_dict, spec_to_dict

    make_copy = catalog.copy_maker(order["id"], order["kwargs"], order["offered"])
    terms = {group.name: group.terms for group in spec_from_dict(json.loads(order["spec"])).groups}
    crew = LocalCrew(make_copy, order["id"], order["count"], order["first"], terms)
    if json.dumps(spec_to_dict(crew.spec)) != order["spec"]:
        raise UsageError(
            f"copy {order['first']} of {order['id']} has other agents or spaces than copy 0; they must be equal."
        )
    size = Layout(crew.spec, order["copies"]).size
    crew.use(Board(crew.spec, order["copies"], mmap.mmap(memory, size)))
    return crew


def _answer(connection: socket.socket, failures: list[tuple[int | None, str]]) -> None:
    if not failures:
        connection.sendall(DONE)
        return
    text = json.dumps(failures).encode()
    connection.sendall(FAILED + LENGTH.pack(len(text)) + text)


def _message(connection: socket.socket) -> bytes:
    (length,) = LENGTH.unpack(read(connection, LENGTH.size))
    return read(connection, length)


def read(connection: socket.socket, count: int) -> bytes:
    """Exactly `count` bytes; EOFError where the other side has closed."""
    parts = bytearray()
    while len(parts) < count:
        more = connection.recv(count - len(parts))
        if not more:
            raise EOFError
        parts += more
    return bytes(parts)


def _leave_with(connection: int) -> None:
    """End this process soon after the other side, also where an environment does not come back from a step."""
    watch = select.poll()
    watch.register(connection, 0)  # 0: nothing but the hang-up, which always counts
    watch.poll()
    time.sleep(GRACE)
    os._exit(1)


def _ignore(number: int, frame: object) -> None:
    """Leave it to the other side to end this process: it may still want to save."""


if __name__ == "__main__":
    # A function, unlike SIG_IGN, does not reach the programs that an environment starts.
    signal.signal(signal.SIGINT, _ignore)
    signal.signal(signal.SIGTERM, _ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    for descriptor in sys.argv[1:]:
        os.set_inheritable(int(descriptor), False)
    try:
        main(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
    except (EOFError, OSError):  # the other side is gone
        os._exit(1)
