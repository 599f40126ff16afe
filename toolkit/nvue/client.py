"""One switch tray's NVUE over HTTPS. `NvueClient` is the seam; requests is behind it.

requests, because sushy has brought it already: one TLS stack and one bundle of bounds for BMCs and switches.

A switch is not trusted: its certificate is verified against the site's CA, its answers are bounded in size and time,
and whatever it says that is not NVUE ends as an UndecidedError, never as a traceback. The password goes into the
request's header and nowhere else.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

from toolkit.errors import UndecidedError, UnreachableError, UsageError
from toolkit.judge.nvlink.seen import AppSeen, ClusterSeen, LocationSeen, PartitionSeen, PortSeen
from toolkit.rack.model import Nvos
from toolkit.redfish import Credentials, printable, root_cause

if TYPE_CHECKING:
    from requests import Response, Session

T = TypeVar("T")

CONNECT_S = 4.0
ANSWER_S = 15.0  # between two pieces of an answer, and for a whole one: NVOS collects 144 ports while we wait
PAUSE_S = 0.5
MAX_ANSWER_BYTES = 4 * 1024 * 1024  # link diagnostics of 144 ports are under 32 KiB
ROOT = "/nvue_v1"
_OPERATIONAL = ("rev", "operational")
_HEADERS = {"Accept": "application/json", "Content-Type": "application/json"}


class NvueRefusedError(UndecidedError):
    """The switch answered, and its certificate, our password or our rights were refused: ask it nothing more."""


class NvueShapeError(UndecidedError):
    """The switch answered something that is not NVUE's operational state: HTML, cut JSON, configuration."""


class NvueClient(Protocol):
    """One switch tray. Raises UnreachableError, NvueRefusedError, NvueShapeError or UndecidedError, all in words."""

    def health(self) -> tuple[bool, tuple[tuple[str, str], ...]]:
        """Whether the tray is OK by its own word, and its issues (component, what is wrong)."""
        ...

    def cluster(self) -> ClusterSeen:
        """Whether the cluster is enabled here, and its connection to NMX-C."""
        ...

    def apps(self) -> tuple[AppSeen, ...]:
        """The cluster's applications."""
        ...

    def partitions(self) -> tuple[PartitionSeen, ...]:
        """The partitions of the NVLink domain; meaningful on the control tray."""
        ...

    def ports(self) -> tuple[PortSeen, ...]:
        """Link diagnostics of every NVLink port."""
        ...

    def firmware(self) -> tuple[tuple[str, str], ...]:
        """Versions by component."""
        ...

    def location(self) -> LocationSeen:
        """Where the tray believes it is."""
        ...

    def enable_cluster(self) -> None:
        """Asks for `cluster state enabled`, applied and saved. Its applications start by themselves, in seconds."""
        ...

    def set_chassis_id(self, number: int) -> None:
        """Gives the chassis its number; returns when the switch says that it took it."""
        ...

    def start_app(self, name: str) -> None:
        """Starts a cluster application; returns when the switch says that it did."""
        ...

    def stop_app(self, name: str) -> None:
        """Stops one. Drops the NVLink control plane of a live rack: through `change.stop_app` only."""
        ...

    def reset_sdn(self) -> None:
        """SDN back to factory default: partitions are lost. Through `change.reset_sdn` only."""
        ...


class Requests(Protocol):
    """Requests to one switch, as `Https` makes them: JSON in, JSON out, errors in words."""

    @property
    def unit(self) -> str:
        """Name of the tray."""
        ...

    @property
    def url(self) -> str:
        """Where it is, for messages."""
        ...

    def get(self, path: str, query: tuple[tuple[str, str], ...] = (), *, operational: bool = True) -> Any:
        """JSON at the path; the operational state unless the path has none."""
        ...

    def send(
        self, method: str, path: str, body: Mapping[str, object] | None, query: tuple[tuple[str, str], ...] = ()
    ) -> Any:
        """A change: asked once, never again by itself."""
        ...


def connect(unit: str, nvos: Nvos, credentials: Credentials, ca: Path) -> NvueClient:
    """A client of the tray, whose certificate must be signed by `ca` (PEM). Nothing is sent before the first call.

    Raises UsageError where there is no CA file.
    """
    from toolkit.nvue.rest import RestNvue

    if not ca.is_file():
        raise UsageError(f"NVUE of {unit}: no CA certificate at {ca}", "put the CA that signed your switches there")
    return RestNvue(Https(unit, nvos, credentials, ca))


@dataclass(frozen=True, slots=True)
class Https:
    """Requests to one switch: checked on the way out and in."""

    unit: str
    nvos: Nvos
    credentials: Credentials
    ca: Path

    @property
    def url(self) -> str:
        """https://ADDRESS:PORT"""
        host = f"[{self.nvos.address}]" if ":" in self.nvos.address else self.nvos.address
        return f"https://{host}:{self.nvos.port}"

    def get(self, path: str, query: tuple[tuple[str, str], ...] = (), *, operational: bool = True) -> Any:
        """JSON at the path; the operational state unless the path has none. Asked once more when it is cut off."""
        asked = ((_OPERATIONAL,) if operational else ()) + query
        began = time.monotonic()
        try:
            return self._ask("GET", path, asked)
        except UnreachableError:
            if time.monotonic() - began > 2 * CONNECT_S:
                raise
        time.sleep(PAUSE_S)
        return self._ask("GET", path, asked)

    def send(
        self, method: str, path: str, body: Mapping[str, object] | None, query: tuple[tuple[str, str], ...] = ()
    ) -> Any:
        """A change: asked once, never again by itself."""
        return self._ask(method, path, query, body)

    def _ask(
        self, method: str, path: str, query: tuple[tuple[str, str], ...], body: Mapping[str, object] | None = None
    ) -> Any:
        from requests.exceptions import RequestException
        from urllib3.exceptions import HTTPError

        at = f"NVUE of {self.unit} ({self.url}): {method} {path}"
        try:
            with self._session() as session:
                response = session.request(
                    method, f"{self.url}{ROOT}{path}", params=query, verify=str(self.ca), stream=True,
                    data=None if body is None else json.dumps(body).encode(), headers=_HEADERS,
                    timeout=(CONNECT_S, ANSWER_S), allow_redirects=False,
                )  # fmt: skip
                content = _whole(response, at)
        except (RequestException, HTTPError) as error:
            self._no_answer(at, error)
        self._check_status(at, response, content)
        return _json(at, response, content)

    def _session(self) -> Session:
        from requests import Session

        session = Session()
        session.trust_env = False  # no proxy, no .netrc, no other CA bundle between us and a switch
        session.auth = (self.credentials.username, self.credentials.password)
        return session

    def _check_status(self, at: str, response: Response, content: bytes) -> None:
        code = response.status_code
        if code in (401, 403):
            what = "the password of" if code == 401 else "the rights of"
            raise NvueRefusedError(
                f"{at}: it refused {what} user {self.credentials.username!r} (HTTP {code})",
                "correct the site's nvos.yml",
            )
        if 300 <= code < 400:
            to = printable(response.headers.get("Location"))
            raise NvueShapeError(f"{at}: it redirects to {to!r}", "correct the address: NVUE answers at once")
        if code == 404:
            raise UndecidedError(
                f"{at}: it has no such resource (HTTP 404)", "is this an NVLink switch tray with NVOS 25?"
            )
        if not 200 <= code < 300:
            told = printable(_words(content))
            raise UndecidedError(f"{at}: HTTP {code}{f': {told}' if told else ''}", "look at nvued's log on the switch")

    def _no_answer(self, at: str, error: Exception) -> NoReturn:
        text = str(error)
        if "CERTIFICATE_VERIFY_FAILED" in text:
            raise NvueRefusedError(
                f"{at}: its certificate does not verify against {self.ca}",
                "put the CA that signed this switch's certificate there; never switch verification off",
            ) from error
        cut = any(word in text for word in ("IncompleteRead", "InvalidChunkLength", "Connection broken"))
        late = "timed out" in text
        cause = "broke off" if cut else "did not answer in time" if late else f"does not answer ({root_cause(error)})"
        raise UnreachableError(f"{at}: it {cause}", "check the switch's power, cable and address") from error


def understood(at: str, read: Callable[[Any], T], data: Any) -> T:
    """The data as a value. Raises NvueShapeError where it is not what was asked for."""
    from toolkit.nvue.wire import AppliedDataError, NotNvueError

    try:
        return read(data)
    except AppliedDataError as error:
        raise NvueShapeError(
            f"{at}: it answered configuration (rev=applied), not state: {error}",
            "something on the way drops `rev=operational`; what is configured says nothing of the fabric",
        ) from None
    except NotNvueError as error:
        raise NvueShapeError(
            f"{at}: its answer is not NVUE's: {error}", "check NVOS's release and the address"
        ) from None


def _whole(response: Response, at: str) -> bytes:
    """The body, no longer than the bounds allow."""
    until = time.monotonic() + ANSWER_S
    body = bytearray()
    with response:
        while piece := response.raw.read1(64 * 1024, decode_content=True):
            body += piece
            if len(body) > MAX_ANSWER_BYTES or time.monotonic() > until:
                raise NvueShapeError(
                    f"{at}: the answer did not end within {MAX_ANSWER_BYTES} bytes and {ANSWER_S:.0f} s",
                    "check the address: is NVUE there?",
                )
    return bytes(body)


def _json(at: str, response: Response, content: bytes) -> Any:
    kind = printable(response.headers.get("Content-Type")).partition(";")[0].lower()
    if kind == "text/html" or content.lstrip()[:1] == b"<":
        raise NvueShapeError(f"{at}: it answered a web page, not JSON", "check address and port: is NVUE there?")
    try:
        return json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise NvueShapeError(
            f"{at}: its answer is not JSON ({len(content)} bytes: {printable(error)})", "check address and port"
        ) from None


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _words(content: bytes) -> str:
    """What an error answer says, of its `title` or `detail`; empty for what is no JSON object."""
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    return str(said.get("detail") or said.get("title") or "") if isinstance(said, dict) else ""
