"""A TCP proxy that tears, resets or delays what a server answers: a bad network on loopback."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["torn", "reset", "slow"]


@dataclass(frozen=True)
class Fault:
    """A fault of the answer on one connection, after a number of its bytes."""

    kind: Kind
    after: int = 0


@dataclass
class Proxy:
    """The port of a proxy, the faults of the next connections, and the fault of all others."""

    port: int
    faults: deque[Fault] = field(default_factory=deque)
    always: Fault | None = None
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    """Stand in front of a port of this machine until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        mine = Proxy(listener.getsockname()[1])

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                fault = mine.faults.popleft() if mine.faults else mine.always
                threading.Thread(target=_relay, args=(client, target, fault, mine.over), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield mine
        mine.over.set()
        listener.shutdown(socket.SHUT_RDWR)


def _relay(client: socket.socket, target: int, fault: Fault | None, over: threading.Event) -> None:
    # one thread for both directions: a socket that another thread reads is not reset by closing it
    with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", target)) as server:
        left = None if fault is None else fault.after
        while True:
            for source in select.select([client, server], [], [])[0]:
                chunk = source.recv(65_536)
                if not chunk:
                    return
                if source is client:
                    server.sendall(chunk)
                    continue
                client.sendall(chunk if left is None else chunk[:left])
                if left is not None and fault is not None and len(chunk) >= left:
                    _spoil(client, fault, over)
                    return
                left = None if left is None else left - len(chunk)


def _spoil(client: socket.socket, fault: Fault, over: threading.Event) -> None:
    if fault.kind == "slow":
        over.wait()
    elif fault.kind == "reset":  # a lingering time of 0: RST in place of FIN
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    else:
        client.shutdown(socket.SHUT_RDWR)
