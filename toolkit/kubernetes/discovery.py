"""Which kinds a server serves, and at which path: asked of the server itself, so that its version does not matter."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from toolkit.errors import RackproofError
from toolkit.kubernetes.errors import ApiRefusedError

_CORE = "v1"
_FRESH_S = 10.0  # a kind that was not there is asked for again after this long: a CRD may have come


@dataclass(frozen=True, slots=True)
class Resource:
    """Where objects of a kind are: at `plural`, or, where a kind is only that, at a `subresource` of others."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool
    subresource: str = ""

    def path(self, name: str = "", namespace: str = "", subresource: str = "") -> str:
        """The URL path, of all objects or of one. A name that would lead elsewhere is refused."""
        root = f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"
        parts = [root]
        if self.namespaced and namespace:
            parts += ["namespaces", _segment(namespace)]
        elif self.namespaced and name:
            raise RackproofError(f"{self.kind} {name} is in a namespace, and none was given")
        parts.append(self.plural)
        parts += [_segment(name)] if name else []
        parts += [part for part in (subresource or self.subresource,) if part]
        return "/".join(parts)


def _segment(name: str) -> str:
    if name in (".", ".."):
        raise RackproofError(f"{name!r} names no object")
    return quote(name, safe="")


class Discovery:
    """Resources by API version and kind, asked for once. `fetch` gives the JSON at a path."""

    def __init__(self, fetch: Callable[[str], Any]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, Mapping[str, Resource]]] = {}

    def find(self, api_version: str, kind: str) -> Resource | None:
        """None where the server has no such kind in this version."""
        found = self._look_up(api_version, kind)
        # Eviction, TokenRequest: of a group of their own, and served below a core resource.
        return found or self._look_up(_CORE, f"{api_version} {kind}")

    def _look_up(self, api_version: str, key: str) -> Resource | None:
        with self._lock:
            asked_at, known = self._known.get(api_version, (float("-inf"), {}))
        if key not in known and time.monotonic() - asked_at > _FRESH_S:
            known = self._ask(api_version)
            with self._lock:
                self._known[api_version] = (time.monotonic(), known)
        return known.get(key)

    def _ask(self, api_version: str) -> Mapping[str, Resource]:
        path = Resource(api_version, "", "", namespaced=False).path().rstrip("/")
        try:
            listed = self._fetch(path)
        except ApiRefusedError as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                return {}
            raise
        rows = listed.get("resources") if isinstance(listed, dict) else None
        return dict(_resource(api_version, row) for row in rows or () if isinstance(row, dict))


def _resource(listed_in: str, row: Mapping[str, Any]) -> tuple[str, Resource]:
    """A row of an APIResourceList, and what to find it by. `pods/eviction` is Eviction of the group the row names."""
    plural, _, subresource = str(row.get("name", "")).partition("/")
    kind, namespaced = str(row.get("kind", "")), bool(row.get("namespaced"))
    own = f"{row['group']}/{row['version']}" if row.get("group") and row.get("version") else listed_in
    resource = Resource(listed_in, kind, plural, namespaced, subresource)
    return (f"{own} {kind}" if subresource else kind), resource
