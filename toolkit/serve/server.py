"""The server: where it listens, under what terms, and that it ends at once when it is told to."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from toolkit.errors import UsageError
from toolkit.serve.access import Access, host_names, is_loopback, token_of
from toolkit.serve.app import make_app
from toolkit.serve.live import MAX_CLIENTS, Hub
from toolkit.serve.site import Site

if TYPE_CHECKING:
    from types import FrameType

MAX_CONNECTIONS = 4 * MAX_CLIENTS
MAX_HEADERS = 16 << 10  # bytes
HEADERS_S = 10.0  # a connection that has sent no whole request by then is cut
_BACKLOG = 128
_GRACE_S = 2


@dataclass(frozen=True, slots=True)
class Terms:
    """How the pages are offered.

    bind          address; `port` 0: any that is free
    names         further names that browsers may call the server by
    tls           (certificate, key) files; None: plain HTTP
    token_file    where the token is; made there where it is missing
    with_token    also on a loopback address
    behind_proxy  another server does TLS, and reaches us by `bind`
    """

    bind: str
    port: int
    token_file: Path
    names: tuple[str, ...] = ()
    tls: tuple[Path, Path] | None = None
    with_token: bool = False
    behind_proxy: bool = False

    @property
    def secure(self) -> bool:
        """Whether browsers reach it by https."""
        return self.tls is not None or self.behind_proxy

    @property
    def needs_token(self) -> bool:
        """Whoever is not on this machine shows one; through a proxy everybody comes from this machine."""
        return self.with_token or self.behind_proxy or not is_loopback(self.bind)


def serve(site: Site, terms: Terms, on_listening: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM. on_listening: told the address once it is answered there.

    Raises UsageError for terms that give too much away, for an address that cannot be had, for files that are wrong.
    """
    server, listening = make_server(site, terms, on_listening)
    with listening:
        server.run(sockets=[listening])


def make_server(
    site: Site, terms: Terms, on_listening: Callable[[str], None]
) -> tuple[PromptServer, socket.socket]:  # fmt: skip
    """The server, and the socket that it is to run with; raises as `serve` does."""
    context = _checked(terms)
    access = Access(host_names(terms.bind, terms.names), token_of(terms.token_file) if terms.needs_token else None)
    listening = listen(terms.bind, terms.port)
    hub = Hub(site.ledger, site.settings)
    config = Config(
        make_app(site, access, hub, secure=terms.secure), http=BoundedProtocol, ws="none", lifespan="on",
        log_config=None, access_log=False, server_header=False, proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS, h11_max_incomplete_event_size=MAX_HEADERS, backlog=_BACKLOG,
        timeout_graceful_shutdown=_GRACE_S,
    )  # fmt: skip
    if context is not None:
        config.load()
        config.ssl = context
    at = address(terms, listening.getsockname()[1])
    return PromptServer(config, hub, lambda: on_listening(at)), listening


def address(terms: Terms, port: int) -> str:
    """What to type into a browser."""
    name = f"[{terms.bind}]" if ":" in terms.bind else terms.bind
    return f"{'https' if terms.tls else 'http'}://{name}:{port}/"


def listen(bind: str, port: int) -> socket.socket:
    """A socket that listens. UsageError says who has the port, or why the address is none of ours."""
    try:
        found = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as failure:
        raise UsageError(f"{bind!r} is no address: {failure}", "rackproof serve --bind 127.0.0.1") from failure
    family, kind, protocol, _, place = found[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(place)
        made.listen(_BACKLOG)
    except OSError as failure:
        made.close()
        raise _unavailable(bind, port, failure) from failure
    made.setblocking(False)
    return made


def _unavailable(bind: str, port: int, failure: OSError) -> UsageError:
    if failure.errno == errno.EADDRINUSE:
        return UsageError(
            f"port {port} of {bind} is in use", f"ss -ltnp 'sport = :{port}' says by whom; or give another --port"
        )
    if failure.errno == errno.EACCES:
        return UsageError(f"port {port} is not for this user", "give a --port over 1023")
    return UsageError(
        f"{bind} port {port} cannot be listened on: {failure.strerror}", "ip address lists what --bind may be"
    )


def _checked(terms: Terms) -> ssl.SSLContext | None:
    """The terms give nothing away; the TLS context of their files."""
    if not is_loopback(terms.bind) and not terms.secure:
        raise UsageError(
            f"on {terms.bind} the token and every page would cross the network in the clear",
            "give --tls-cert and --tls-key; or --behind-proxy where another server does TLS in front of it;"
            " or stay on 127.0.0.1 and forward a port: ssh -L 8181:127.0.0.1:8181 HOST",
        )
    if terms.tls is None:
        return None
    certificate, key = terms.tls
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as failure:  # ssl.SSLError is an OSError
        raise UsageError(
            f"{certificate} and {key} are no certificate with its key: {failure}",
            "both are PEM, the certificate with its chain, the key without a password and mode 0600",
        ) from failure
    return context


def _no_password() -> str:
    raise ValueError("the key has a password")


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 on a connection that is cut when a whole request does not come in time, whatever trickles in."""

    headers_s = HEADERS_S

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The clock runs from the first byte, and before it."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """It runs while there is no request to answer."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """And again after an answer."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """No more."""
        super().connection_lost(exc)
        if self._deadline is not None:
            self._deadline.cancel()

    def _watch(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        elif not answering and self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self.headers_s, self.transport.abort)


class PromptServer(Server):
    """Says when it listens; when it is told to end, open streams end first, so that nothing is waited for."""

    def __init__(self, config: Config, hub: Hub, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._hub = hub
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As ever; then tells."""
        await super().startup(sockets)
        if self.started:
            self._on_listening()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ends on SIGINT and SIGTERM, and that is a good end: the signal is not raised again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Told to end."""
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Looks ten times a second whether it is to end."""
        ends = await super().on_tick(counter)
        if ends:
            self._hub.stop()
        return ends
