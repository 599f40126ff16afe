"""Untrusted text made fit for a terminal or for a cell of a spreadsheet."""

from __future__ import annotations


def printable(text: str, limit: int = 500) -> str:
    """`text` in one line, without control characters or escape sequences, cut at `limit` characters.

    What a node says may hold escapes that move the cursor or rewrite the screen: every character that is not
    printable becomes a visible stand-in.
    """
    line = text
    if not text.isprintable():
        line = "".join(c if c.isprintable() else " " if c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def cell(value: object) -> str:
    """A cell that no spreadsheet takes for a formula: one that begins like one gets an apostrophe (OWASP).

    Control characters are gone by then, so that no cell begins anew inside itself. A number of ours begins with a minus
    like a formula and is none.
    """
    if isinstance(value, int | float):
        return str(value)
    text = printable(str(value), 32_000)  # a spreadsheet's cell holds 32,767 characters
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text
