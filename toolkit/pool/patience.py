"""A pool that does not answer for a while: waited for, but not for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from toolkit.errors import UnreachableError

T = TypeVar("T")


class Patience:
    """Asks again until the pool has been silent for `patience_s`. Shared by threads: they wait out one silence."""

    def __init__(
        self, patience_s: float, poll_s: float, clock: Callable[[], datetime], sleep: Callable[[float], None]
    ) -> None:
        self._patience_s = patience_s
        self._poll_s = poll_s
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._silent_since: datetime | None = None
        self.tried = False  # whether there was a silence since somebody last set this to False

    def ask(self, question: Callable[[], T]) -> T:
        """The answer. Raises UnreachableError once patience is at its end, and anything else at once."""
        while True:
            try:
                answer = question()
            except UnreachableError:
                if not self._bears():
                    raise
                self._sleep(self._poll_s)
            else:
                with self._lock:
                    self._silent_since = None
                return answer

    def _bears(self) -> bool:
        with self._lock:
            self.tried = True
            now = self._clock()
            self._silent_since = self._silent_since or now
            return (now - self._silent_since).total_seconds() < self._patience_s
