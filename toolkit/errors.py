"""Errors an operator sees. Each says what failed, while doing what, and what to do next.

    RackproofError            exit 4   a defect of ours unless a subclass says otherwise
      UsageError              exit 2   the command line or the request cannot be carried out as asked
        InputError            exit 2   a file an operator wrote is wrong; carries file:line:column
      UndecidedError          exit 3   could not tell; trying again may help
        UnreachableError      exit 3   a host, BMC or server of ours did not answer
        BusyError             exit 3   somebody else holds the rack
      EvidenceError           exit 1   the evidence says no (a certificate that does not verify)

Exit 0 is "all at goal"; no error has it.
"""

from __future__ import annotations

from dataclasses import dataclass


class RackproofError(Exception):
    """Base of every error we raise on purpose.

    `message` says what failed while doing what; `hint` says what to do next.
    """

    exit_code = 4

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  next: {self.hint}" if self.hint else self.message


class UsageError(RackproofError):
    """The request cannot be carried out as asked."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in an operator-written file: where, which field, what is wrong, what would be right."""

    file: str
    line: int
    column: int
    field: str
    wrong: str
    right: str = ""

    def __str__(self) -> str:
        right = f" ({self.right})" if self.right else ""
        field = f"{self.field}: " if self.field else ""
        return f"{self.file}:{self.line}:{self.column}: {field}{self.wrong}{right}"


class InputError(UsageError):
    """An operator-written file is wrong. Carries every problem found, not only the first."""

    def __init__(self, problems: tuple[Problem, ...], hint: str = "") -> None:
        super().__init__("\n".join(str(p) for p in problems), hint)
        self.problems = problems


class UndecidedError(RackproofError):
    """We could not tell. Never a pass, never a fault of the hardware."""

    exit_code = 3


class UnreachableError(UndecidedError):
    """A host, a BMC or a server did not answer in time."""


class BusyError(UndecidedError):
    """Another run holds the lease on this rack."""


class EvidenceError(RackproofError):
    """The evidence says no: a certificate is expired, altered or of another rack."""

    exit_code = 1
