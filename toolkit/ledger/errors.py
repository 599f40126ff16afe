"""What the ledger answers when it will not or cannot.

UndecidedError
  LedgerError          exit 3   the database or the artifact store cannot be used
    LedgerFullError    exit 3   no room: nothing was recorded
    ArtifactError      exit 3   an artifact is missing or its bytes are not those of its name
  StaleMoveError       exit 3   the node is no longer in the state the move starts from
BusyError
  LeaseLostError       exit 3   somebody else holds the lease this write was made under
"""

from __future__ import annotations

from toolkit.errors import BusyError, UndecidedError


class LedgerError(UndecidedError):
    """The ledger cannot be read or written."""


class LedgerFullError(LedgerError):
    """There is no room for the ledger. Nothing of the refused write was recorded."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(
            f"the ledger {where} could not be written: {reason}; nothing was recorded",
            "free space there and run the same command again",
        )


class ArtifactError(LedgerError):
    """Raw evidence is missing or altered; what rests on it is not proven."""


class StaleMoveError(UndecidedError):
    """A node moved meanwhile. Nothing of the refused write was recorded."""


class LeaseLostError(BusyError):
    """The lease was taken by somebody else or given up. Nothing of the refused write was recorded."""
