"""The API server as a node's programs see it: JSON over verified TLS, with a token or a client certificate."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from .kube_files import Access

Object = dict[str, Any]
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"

_TIMEOUT_S = 10.0
_MAX_BYTES = 32 << 20
_WORDS = 400


class ApiError(Exception):
    """The server did not do it. `status` is its HTTP status; 0 where nobody, or nobody trusted, answered."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NodeApi:
    """One cluster, one identity. Safe between threads: every request has a connection of its own."""

    def __init__(self, access: Access, *, agent: str = "kubelet") -> None:
        """Raises OSError for a client certificate that cannot be loaded."""
        self._access = access
        self._agent = agent
        parts = urlsplit(access.server)
        self._host, self._port = parts.hostname or "", parts.port or 443
        self._tls = ssl.create_default_context(cadata=access.ca or None)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        if access.certificate:
            self._tls.load_cert_chain(access.certificate, access.key or None)

    def get(self, path: str, **query: str) -> Object:
        """The object at a path; ApiError(404) where there is none."""
        return self._ask("GET", path, query)

    def create(self, path: str, body: Object) -> Object:
        """POST."""
        return self._ask("POST", path, {}, body)

    def replace(self, path: str, body: Object) -> Object:
        """PUT; ApiError(409) where the object has changed meanwhile."""
        return self._ask("PUT", path, {}, body)

    def patch(self, path: str, body: Object, kind: str = STRATEGIC, manager: str = "kubelet") -> Object:
        """PATCH, as that field manager."""
        return self._ask("PATCH", path, {"fieldManager": manager}, body, kind)

    def delete(self, path: str, body: Object) -> Object:
        """DELETE with DeleteOptions."""
        return self._ask("DELETE", path, {}, body)

    def watch(self, path: str, seconds: int, **query: str) -> Iterator[tuple[str, Object]]:
        """Events (type, object) until the time is over or the connection ends. ApiError as of any request."""
        query |= {"watch": "1", "timeoutSeconds": str(seconds)}
        connection, answer = self._open("GET", path, query, None, "", seconds + _TIMEOUT_S)
        try:
            for line in answer:
                event = json.loads(line)
                yield str(event["type"]), event["object"]
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            raise ApiError(0, f"watch {path}: {error}") from error
        finally:
            connection.close()

    def _ask(self, method: str, path: str, query: dict[str, str], body: Object | None = None, kind: str = "") -> Object:
        connection, answer = self._open(method, path, query, body, kind, _TIMEOUT_S)
        try:
            found = json.loads(answer.read(_MAX_BYTES))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ApiError(0, f"{method} {path}: {error}") from error
        finally:
            connection.close()
        if not isinstance(found, dict):
            raise ApiError(0, f"{method} {path}: the answer is no object")
        return found

    def _open(
        self, method: str, path: str, query: dict[str, str], body: Object | None, kind: str, timeout_s: float
    ) -> tuple[http.client.HTTPSConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=self._tls)
        headers = {"Accept": "application/json", "User-Agent": self._agent, "Connection": "close"}
        if self._access.token:
            headers["Authorization"] = f"Bearer {self._access.token}"
        if body is not None:
            headers["Content-Type"] = kind or "application/json"
        sent = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, f"{path}?{urlencode(query)}" if query else path, sent, headers)
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ApiError(0, f'{method} "{self._access.server}{path}": {error}') from error
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            try:
                raise ApiError(answer.status, _words(answer))
            finally:
                connection.close()
        return connection, answer


def segment(name: str) -> str:
    """A name as a part of a URL's path."""
    return quote(name, safe="")


def _words(answer: http.client.HTTPResponse) -> str:
    """What the server said, from its Status object."""
    try:
        said = json.loads(answer.read(1 << 20))
        text = str(said["message"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        text = f"HTTP {answer.status} {answer.reason}"
    return "".join(c if c.isprintable() else " " for c in text)[:_WORDS]
