"""The right to regulate a pool, which may be lost and taken again."""

from __future__ import annotations

from contextlib import ExitStack, suppress

from toolkit.errors import UndecidedError
from toolkit.pool.model import Pool


class Leadership:
    """One holder's hold of a pool's lead."""

    def __init__(self, pool: Pool, holder: str) -> None:
        self._pool = pool
        self._holder = holder
        self._held = ExitStack()

    def take(self) -> None:
        """Raises BusyError where another leads, UndecidedError where the pool does not answer."""
        self._held.enter_context(self._pool.leading(self._holder))

    def drop(self) -> None:
        """Gives it back. That it was lost meanwhile is no failure any more: whoever needed it has asked for it."""
        held, self._held = self._held, ExitStack()
        with suppress(UndecidedError):
            held.close()
