"""Datagrams to clients, in the order they were sent: what a socket has no room for waits; none is lost in silence.

A client's library has no time-outs of its own: an answer that is lost is one it waits for until its user gives up.
"""

from __future__ import annotations

import socket
import sys
from collections import deque
from collections.abc import Callable

Address = bytes | tuple[str, int]

MOST_WAITING = 65_536  # of one client: 18 MiB of frames. One that does not read at all must not fill the memory
# A datagram socket of the UNIX family is writable by its own buffer, whatever its peer's queue: that tells nothing.
_AGAIN_S = 0.002


class Outbox:
    """Sends, now or later. Not safe between threads.

    after  has something done after that many seconds
    gone   is told an address that nobody has any more
    """

    def __init__(self, after: Callable[[float, Callable[[], None]], None], gone: Callable[[Address], None]) -> None:
        self._after = after
        self._gone = gone
        self._waiting: dict[tuple[socket.socket, Address], deque[bytes]] = {}

    @property
    def waiting(self) -> int:
        """Datagrams that have not gone out yet."""
        return sum(len(queue) for queue in self._waiting.values())

    def send(self, wire: socket.socket, raw: bytes | bytearray, address: Address) -> None:
        """After all that waits for the same address."""
        queue = self._waiting.get((wire, address))
        if queue is None:
            if not self._sent(wire, raw, address):
                if not self._waiting:
                    self._after(_AGAIN_S, self._again)
                self._waiting[wire, address] = deque((bytes(raw),))
        elif len(queue) < MOST_WAITING:
            queue.append(bytes(raw))
        else:
            sys.stderr.write(f"fabric: {address!r} does not read: {len(queue):,} datagrams wait, one more is lost\n")

    def _again(self) -> None:
        for (wire, address), queue in list(self._waiting.items()):
            while queue and self._sent(wire, queue[0], address):
                queue.popleft()
            if not queue:
                del self._waiting[wire, address]
        if self._waiting:
            self._after(_AGAIN_S, self._again)

    def _sent(self, wire: socket.socket, raw: bytes | bytearray, address: Address) -> bool:
        """False where there is no room yet. What is for nobody is done with."""
        try:
            wire.sendto(raw, address)
        except BlockingIOError:
            return False
        except OSError:
            # Of UDP it may be another client's error: who is gone is told in the error queue.
            if wire.family != socket.AF_INET:
                self._gone(address)
        return True
