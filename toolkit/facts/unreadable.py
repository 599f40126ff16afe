"""What a parser raises when a text is not of its kind."""

from __future__ import annotations


class UnreadableError(ValueError):
    """The text cannot be read as what it should be: nothing of it is used. Lines and columns count from 1."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column
