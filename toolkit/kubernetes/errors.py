"""What an API server may answer instead of what was asked for. None of it says anything about a node's hardware.

ApiUnreachableError     nobody answered, or nobody whose certificate the kubeconfig's CA signed
ApiRefusedError         the server answered no; `status` is the HTTP status, `reason` Kubernetes' own word for it
  ConflictError         409: somebody else changed the object, or owns the field
  ExpiredError          410: the version to watch from, or a list's next page, is no longer kept
"""

from __future__ import annotations

from http import HTTPStatus

from toolkit.errors import UndecidedError, UnreachableError

_MAX_WORDS = 400


class ApiUnreachableError(UnreachableError):
    """No answer in time, no connection, or a server that is not the one the kubeconfig trusts."""


class ApiRefusedError(UndecidedError):
    """The server's no. `causes` are the reasons it lists, such as `DisruptionBudget` or `FieldManagerConflict`."""

    def __init__(
        self, message: str, hint: str = "", *, status: int, reason: str = "", causes: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message, hint)
        self.status = status
        self.reason = reason
        self.causes = causes


class ConflictError(ApiRefusedError):
    """409. Read the object again and decide again; for an apply: another field manager owns the field."""


class ExpiredError(ApiRefusedError):
    """410. List again, and watch from there."""


_HINTS = {
    HTTPStatus.UNAUTHORIZED: "the server does not know this login: renew its token or client certificate",
    HTTPStatus.FORBIDDEN: "give this login the right, or use another kubeconfig: kubectl auth can-i --list",
    HTTPStatus.CONFLICT: "the same command again reads the object anew",
    HTTPStatus.TOO_MANY_REQUESTS: "the server, or a disruption budget, asks to wait: the same command again later",
}


def refusal(
    doing: str, status: int, words: str, *, reason: str = "", causes: tuple[str, ...] = (), hint: str = ""
) -> ApiRefusedError:
    """The error for an HTTP status; `words` are the server's, of any length and content."""
    kinds = {HTTPStatus.CONFLICT: ConflictError, HTTPStatus.GONE: ExpiredError}
    kind = kinds.get(HTTPStatus(status), ApiRefusedError) if status in set(HTTPStatus) else ApiRefusedError
    said = printable(words) or "no reason given"
    told = hint or (_HINTS.get(HTTPStatus(status), "") if status in set(HTTPStatus) else "")
    return kind(
        f"{doing}: the API server refused ({status}): {said}", told, status=status, reason=reason, causes=causes
    )


def printable(words: str, most: int = _MAX_WORDS) -> str:
    """The server's words on one line, without control characters, and no longer than a line or two, or `most`."""
    text = " ".join("".join(c if c.isprintable() else " " for c in words[: 4 * most]).split())
    return text if len(text) <= most else text[: most - 1] + "…"
