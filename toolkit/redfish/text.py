"""What a device said, made fit to print; and what broke, in the operating system's words."""

from __future__ import annotations

_MAX_TEXT = 128


def printable(value: object, most: int = _MAX_TEXT) -> str:
    """Text a device said, bounded and printable. Empty for what is not there."""
    if value is None:
        return ""
    return "".join(c if c.isprintable() else " " for c in str(value)[: 4 * most]).strip()[:most]


def root_cause(error: BaseException) -> str:
    """The operating system's word for what broke, from under the layers of sushy, requests and urllib3."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return printable(seen.strerror)
        error, seen = seen, seen.__cause__ or seen.__context__
    return type(error).__name__
