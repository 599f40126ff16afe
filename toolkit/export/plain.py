"""Every text of a document made fit to be shown: one line, no control characters, bounded. Pure."""

from __future__ import annotations

from typing import Any

from toolkit.report.text import printable

MAX_TEXT = 4000  # characters of one text


def plain(text: str, most: int = MAX_TEXT) -> str:
    """A text that may quote a node, as UTF-8 can hold it."""
    return printable(text, most).encode("utf-8", "replace").decode("utf-8")


def plain_document(value: Any) -> Any:
    """The same JSON document with every text in it plain. Keys are ours."""
    if isinstance(value, dict):
        return {key: plain_document(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain_document(one) for one in value]
    return plain(value) if isinstance(value, str) else value
