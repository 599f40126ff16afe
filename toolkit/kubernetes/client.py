"""One Kubernetes cluster: objects as the API gives them, as plain dictionaries. Thread-safe; decides nothing.

lightkube reads the kubeconfig and makes the connection. Its typed objects are of one Kubernetes version; the servers we
meet are of many, so kinds are looked up in what the server says it serves.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

from toolkit.errors import RackproofError
from toolkit.kubernetes.discovery import Discovery, Resource
from toolkit.kubernetes.errors import ApiRefusedError, ApiUnreachableError, ExpiredError, refusal
from toolkit.kubernetes.transport import Request, Transport, decoded

Object = dict[str, Any]
How = Literal["merge", "json", "strategic"]

MANAGER = "rackproof"
_PAGE = 500
_MAX_OBJECTS = 200_000
_MAX_LINE_BYTES = 8 << 20  # of a watch: one object. etcd takes 1.5 MiB
_WATCH_SLACK_S = 5.0
_LIST_TRIES = 3
_MAX_WORD_BYTES = 1024
_MAX_LOG_BYTES = 64 << 20
_CONTENT_TYPES: Mapping[How, str] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}


@dataclass(frozen=True, slots=True)
class Listing:
    """Objects of one kind at one moment; `version` is where a watch goes on from there."""

    objects: tuple[Object, ...]
    version: str


class ApiServer:
    """A cluster's API.

    Every method raises ApiUnreachableError where nobody trusted answers, and ApiRefusedError where the server says no.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._discovery = Discovery(lambda path: self._ask("GET", path, f"what is served at {path}"))

    @classmethod
    def connect(cls, kubeconfig: Path, context: str = "", timeout_s: float = 10.0) -> ApiServer:
        """The cluster of that context, or of the current one. Nothing is sent before the first call.

        `timeout_s` holds for each request. Raises UsageError or InputError for a kubeconfig that cannot be used.
        """
        return cls(Transport(kubeconfig, context, timeout_s))

    def close(self) -> None:
        """Closes the connections. The object is of no use afterwards."""
        self._transport.close()

    @property
    def requests(self) -> int:
        """Requests sent so far, those for discovery and those repeated included."""
        return self._transport.sent

    def version(self) -> tuple[int, int]:
        """Major and minor, such as (1, 34)."""
        told = self._ask("GET", "/version", "ask the server's version")
        digits = ("".join(c for c in str(told.get(key, ""))[:9] if c in "0123456789") for key in ("major", "minor"))
        try:
            major, minor = (int(word) for word in digits)
        except ValueError:
            raise ApiUnreachableError(
                f"{self._transport.server} told no Kubernetes version", "is this address an API server?"
            ) from None
        return major, minor

    def ready(self) -> bool:
        """Whether the server says that it is ready to serve. Raises as every method does where it says no."""
        request = Request("GET", "/readyz", "ask whether the server is ready", {}, repeatable=True)
        return self._transport.fetch(request, _MAX_WORD_BYTES, cut=True) == b"ok"

    def serves(self, api_version: str, kind: str) -> bool:
        """Whether the server has the kind in this version: `policy/v1`, `Eviction`."""
        return self._discovery.find(api_version, kind) is not None

    def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> Object | None:
        """The object; None where there is none of that name."""
        path = self._resource(api_version, kind).path(name, namespace)
        try:
            return self._ask("GET", path, f"get {kind} {name}")
        except ApiRefusedError as refused:
            if _is_absent(refused):
                return None
            raise

    def list(
        self, api_version: str, kind: str, namespace: str = "", labels: str = "", fields: str = ""
    ) -> tuple[Object, ...]:
        """All objects, or those of a namespace that both selectors take."""
        return self.listing(api_version, kind, namespace, labels, fields).objects

    def listing(
        self,
        api_version: str,
        kind: str,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        *,
        page: int = _PAGE,
    ) -> Listing:
        """As `list`, with the version to watch from; asked for in pages of so many objects."""
        for turn in range(_LIST_TRIES):
            try:
                return self._pages(self._resource(api_version, kind), namespace, _selectors(labels, fields), page)
            except ExpiredError:  # the next page was compacted away
                if turn == _LIST_TRIES - 1:
                    raise
        raise AssertionError("the last turn returns or raises")

    def _pages(self, resource: Resource, namespace: str, selectors: Mapping[str, str], size: int) -> Listing:
        path, doing = resource.path(namespace=namespace), f"list {resource.kind}"
        found: list[Object] = []
        query = {**selectors, "limit": str(size)}
        for _ in range(_MAX_OBJECTS // size + 1):
            page = self._ask("GET", path, doing, query)
            items, meta = page.get("items") or [], page.get("metadata")
            whole = isinstance(items, builtins.list) and all(isinstance(item, dict) for item in items)
            if not whole or not isinstance(meta, dict):
                raise ApiUnreachableError(f"{doing}: the answer is no list", "is this address an API server?")
            # A list's objects come without their kind; with it they can be applied and replaced.
            found += ({**item, "apiVersion": resource.api_version, "kind": resource.kind} for item in items)
            if not meta.get("continue"):
                return Listing(tuple(found), str(meta.get("resourceVersion", "")))
            query["continue"] = str(meta["continue"])
        raise ApiUnreachableError(f"{doing}: over {_MAX_OBJECTS} objects; nothing of them was used", "select fewer")

    def watch(
        self,
        api_version: str,
        kind: str,
        namespace: str = "",
        labels: str = "",
        since: str = "",
        *,
        fields: str = "",
        timeout_s: float = 60.0,
    ) -> Iterator[tuple[str, Object]]:
        """(`ADDED` | `MODIFIED` | `DELETED` | `BOOKMARK`, object) as they happen; ends after `timeout_s`.

        Without `since` first one ADDED for each object there is. A BOOKMARK has only a version to go on from.
        ExpiredError where `since` is too old: list again.
        """
        path, doing = self._resource(api_version, kind).path(namespace=namespace), f"watch {kind}"
        query = {
            **_selectors(labels, fields),
            "watch": "1",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, round(timeout_s))),
        }
        if since:
            query["resourceVersion"] = since
        request = Request("GET", path, doing, query, repeatable=True)
        with self._transport.stream(request, timeout_s + _WATCH_SLACK_S) as parts:
            for line in _lines(parts, doing):
                yield _event(line, doing)

    def apply(self, body: Object, *, subresource: str = "", force: bool = False, manager: str = MANAGER) -> Object:
        """Server-side apply under our field manager. ConflictError where another owns a field, unless `force`."""
        query = {"fieldManager": manager, "force": str(force).lower()}
        path, what = self._own_path(body, subresource)
        return self._ask("PATCH", path, f"apply {what}", query, body, "application/apply-patch+yaml", repeatable=True)

    def patch(
        self,
        api_version: str,
        kind: str,
        name: str,
        body: Object | Sequence[Object],
        *,
        namespace: str = "",
        how: How,
        subresource: str = "",
    ) -> Object:
        """Changes the object; the object afterwards. A JSON patch whose `test` does not hold is refused with 422."""
        path = self._resource(api_version, kind).path(name, namespace, subresource)
        query = {"fieldManager": MANAGER}
        return self._ask("PATCH", path, f"patch {kind} {name}", query, body, _CONTENT_TYPES[how])

    def create(self, body: Object, *, namespace: str = "", subresource: str = "") -> Object:
        """A new object; ConflictError where the name is taken. An Eviction is created below its pod by itself."""
        api_version, kind, name, own = _identity(body)
        resource = self._resource(api_version, kind)
        below = subresource or resource.subresource
        path = resource.path(name if below else "", namespace or own, below)
        return self._ask("POST", path, f"create {kind} {name}", {"fieldManager": MANAGER}, body)

    def replace(self, body: Object, *, subresource: str = "") -> Object:
        """The whole object anew; ConflictError where it is no longer at the `resourceVersion` that the body has."""
        path, what = self._own_path(body, subresource)
        return self._ask("PUT", path, f"replace {what}", {"fieldManager": MANAGER}, body)

    def delete(
        self, api_version: str, kind: str, name: str, namespace: str = "", *, propagation: str = "Background"
    ) -> bool:
        """Deletes it; False where it was not there. What has finalizers is still there for a while."""
        path = self._resource(api_version, kind).path(name, namespace)
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        try:
            self._ask("DELETE", path, f"delete {kind} {name}", {}, options)
        except ApiRefusedError as refused:
            if _is_absent(refused):
                return False
            raise
        return True

    def logs(
        self, pod: str, namespace: str, *, container: str = "", max_bytes: int, since_s: int | None = None
    ) -> bytes:
        """The first `max_bytes` bytes of a container's output, as its node gives it; empty before it has a node."""
        wanted = min(max_bytes, _MAX_LOG_BYTES)
        query = {"limitBytes": str(wanted)}
        query |= {"container": container} if container else {}
        query |= {"sinceSeconds": str(since_s)} if since_s is not None else {}
        path = self._resource("v1", "Pod").path(pod, namespace, "log")
        return self._transport.fetch(
            Request("GET", path, f"logs of Pod {pod}", query, repeatable=True), wanted, cut=True
        )

    def _own_path(self, body: Object, subresource: str) -> tuple[str, str]:
        api_version, kind, name, namespace = _identity(body)
        return self._resource(api_version, kind).path(name, namespace, subresource), f"{kind} {name}"

    def _resource(self, api_version: str, kind: str) -> Resource:
        found = self._discovery.find(api_version, kind)
        if found is None:
            raise refusal(
                f"ask for {kind}",
                HTTPStatus.NOT_FOUND,
                f"this server has no {kind} in {api_version}",
                hint="is the cluster older or newer than this was made for, or a custom resource not installed?",
            )
        return found

    def _ask(
        self,
        method: str,
        path: str,
        doing: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        *,
        repeatable: bool = False,
    ) -> Object:
        again = repeatable or method == "GET"
        answer = self._transport.ask(Request(method, path, doing, query or {}, body, content_type, again))
        if not isinstance(answer, dict):
            raise ApiUnreachableError(f"{doing}: the answer is no object", "is this address an API server?")
        return answer


def _is_absent(refused: ApiRefusedError) -> bool:
    """Whether Kubernetes says that there is no such object. A proxy's 404 page says nothing of the kind."""
    return refused.status == HTTPStatus.NOT_FOUND and refused.reason == "NotFound"


def _selectors(labels: str, fields: str) -> dict[str, str]:
    both = {"labelSelector": labels, "fieldSelector": fields}
    return {key: text for key, text in both.items() if text}


def _identity(body: Object) -> tuple[str, str, str, str]:
    """apiVersion, kind, name, namespace of an object that we made ourselves."""
    meta = body.get("metadata", {})
    api_version, kind = str(body.get("apiVersion", "")), str(body.get("kind", ""))
    if not api_version or not kind:
        raise RackproofError(f"an object without apiVersion or kind was to be sent: {sorted(body)}")
    return api_version, kind, str(meta.get("name", "")), str(meta.get("namespace", ""))


def _lines(parts: Iterator[bytes], doing: str) -> Iterator[bytes]:
    rest = b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        yield from (line for line in whole if line.strip())
        if len(rest) > _MAX_LINE_BYTES:
            raise ApiUnreachableError(f"{doing}: one event is over {_MAX_LINE_BYTES} bytes", "list instead")


def _event(line: bytes, doing: str) -> tuple[str, Object]:
    try:
        event = decoded(line)
        kind, what = event["type"], event["object"]
    except (ValueError, KeyError, TypeError):
        raise ApiUnreachableError(
            f"{doing}: the server sent what is no event", "is this address an API server?"
        ) from None
    if kind == "ERROR" or not isinstance(what, dict):
        said = what if isinstance(what, dict) else {}
        code = said.get("code")
        raise refusal(doing, code if isinstance(code, int) else 500, str(said.get("message", "")))
    return str(kind), what
