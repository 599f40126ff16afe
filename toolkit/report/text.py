"""Untrusted text made fit for a terminal."""

from __future__ import annotations


def printable(text: str, limit: int = 500) -> str:
    """`text` in one line, without control characters or escape sequences, cut at `limit` characters.

    What a node says may hold escapes that move the cursor or rewrite the screen: every character that is not
    printable becomes a visible stand-in.
    """
    line = "".join(c if c.isprintable() else " " if c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return line if len(line) <= limit else line[: limit - 1] + "…"
