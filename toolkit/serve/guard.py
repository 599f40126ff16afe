"""What every request passes before a page sees it, and every answer on its way out: names, sizes, methods, token,
headers that leave the browser nothing to run.
"""

from __future__ import annotations

from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from toolkit.serve.access import Access, host_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOGIN, LOGOUT = "/login", "/logout"
MAX_TARGET = 2_048  # bytes of path and query
MAX_BODY = 4_096  # of a form: a token and where to go then
OPEN_PATHS = (LOGIN, "/static/")  # without a token: a form has to look like one
SCHEME = "Bearer "
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),  # for what does not know frame-ancestors
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"cache-control", b"no-store"),
)
_HSTS = (b"strict-transport-security", b"max-age=31536000")


class Guard:
    """Starlette calls it as middleware. secure: the browser reaches us by https, ourselves or through a proxy."""

    def __init__(self, app: ASGIApp, access: Access, *, secure: bool) -> None:
        self._app = app
        self._access = access
        self._headers = (*HEADERS, _HSTS) if secure else HEADERS
        self.cookie = cookie_name(secure=secure)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers by itself what may not pass."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # a websocket is closed by being left alone: no page uses one

        async def finish(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *((n, v) for n, v in self._headers if n not in given)]
            await send(message)

        headers = _headers(scope["headers"])
        refused = self._refused(scope, headers)
        if refused is not None:
            await _answer(finish, *refused)
            return
        await self._app(scope, receive, finish)

    def _refused(self, scope: Scope, headers: dict[str, list[str]]) -> tuple[int, str, str] | None:
        """(status, what is said, where to go instead) of a request that may not pass."""
        hosts = headers.get("host", [])
        if len(hosts) != 1 or host_of(hosts[0]) not in self._access.names:
            return 421, "this server does not go by that name; rackproof serve --name NAME adds one", ""
        path, query = scope["path"], scope["query_string"]
        if len(path) + len(query) > MAX_TARGET:
            return 414, "the address is too long", ""
        if (wrong := self._method(scope["method"], path, headers)) is not None:
            return wrong
        if self._access.token is None or path == LOGIN or path.startswith(OPEN_PATHS[1]) or self._let_in(headers):
            return None
        if "text/html" in ",".join(headers.get("accept", [])) and not headers.get("authorization"):
            beyond = quote(path, safe="/") + (f"?{query.decode('ascii', 'replace')}" if query else "")
            return 303, "log in first", f"{LOGIN}?next={quote(beyond, safe='/')}"
        return 401, "a token is needed: Authorization: Bearer TOKEN", ""

    def _method(self, method: str, path: str, headers: dict[str, list[str]]) -> tuple[int, str, str] | None:
        if method in ("GET", "HEAD"):
            return None
        if method != "POST" or path not in (LOGIN, LOGOUT):
            return 405, "these pages are only read", ""
        if not _same_origin(headers):
            return 403, "the form was sent from another site", ""
        length = headers.get("content-length", [""])[0]
        if not length.isascii() or not length.isdigit() or int(length) > MAX_BODY:
            return 413, "the form is too long", ""
        return None

    def _let_in(self, headers: dict[str, list[str]]) -> bool:
        given = headers.get("authorization", [])
        if given:
            return len(given) == 1 and given[0].startswith(SCHEME) and self._access.knows(given[0][len(SCHEME) :])
        return any(self._access.holds(number) for number in session_numbers(headers.get("cookie", []), self.cookie))


def cookie_name(*, secure: bool) -> str:
    """A `__Host-` cookie can be set by no other machine of the domain, and takes https."""
    return "__Host-rackproof" if secure else "rackproof"


def session_numbers(cookies: Iterable[str], name: str) -> tuple[str, ...]:
    """What the browser gives as its session's number."""
    found = []
    for header in cookies:
        try:
            jar = SimpleCookie(header[:MAX_BODY])
        except CookieError:
            continue
        found += [jar[name].value] if name in jar else []
    return tuple(found)


def safe_next(target: str) -> str:
    """A path of ours to go on to after the log-in; the fleet for anything else."""
    parts = urlsplit(target)
    plain = target.isprintable() and "\\" not in target and len(target) <= MAX_TARGET
    ours = target.startswith("/") and not target.startswith("//") and not parts.scheme and not parts.netloc
    return target if plain and ours and not target.startswith((LOGIN, LOGOUT)) else "/"


def _same_origin(headers: dict[str, list[str]]) -> bool:
    """What browsers say of where a form comes from (fetch.spec.whatwg.org, Sec-Fetch-Site and Origin)."""
    if headers.get("sec-fetch-site", ["same-origin"])[0] not in ("same-origin", "none"):
        return False
    origin = headers.get("origin", [])
    # "null": a page without a referrer (ours: no-referrer) sends no more than that; Sec-Fetch-Site then decides
    return all(urlsplit(one).netloc == headers["host"][0] or one == "null" for one in origin) and (
        "null" not in origin or "sec-fetch-site" in headers
    )


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in raw:
        found.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    return found


async def _answer(send: Send, status: int, words: str, location: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    headers += [(b"location", location.encode("ascii"))] if location else []
    headers += [(b"www-authenticate", b'Bearer realm="rackproof"')] if status == 401 else []
    headers += [(b"allow", b"GET, HEAD")] if status == 405 else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"rackproof: {words}\n".encode()})
