"""A unit's BMC over Redfish: power, boot override, identity. `BmcClient` is the seam; sushy is behind it.

A BMC is not trusted: its certificate is verified against the site's CA, its answers are bounded in size and time, and
whatever it says that is not Redfish ends as an UndecidedError, never as a traceback.
"""

from __future__ import annotations

import io
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from toolkit.errors import InputError, Problem, UndecidedError, UnreachableError, UsageError
from toolkit.rack.model import Bmc

if TYPE_CHECKING:
    from requests import PreparedRequest, Response
    from requests.adapters import HTTPAdapter

T = TypeVar("T")

CONNECT_S = 4.0
ANSWER_S = 10.0  # between two pieces of an answer, and for a whole one
PAUSE_S = 0.5  # before something is asked once more
MAX_ANSWER_BYTES = 4 * 1024 * 1024

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MAX_NICS = 64
_MAX_TEXT = 128


class Power(StrEnum):
    """Power state as the BMC reports it."""

    ON = "On"
    OFF = "Off"
    POWERING_ON = "PoweringOn"
    POWERING_OFF = "PoweringOff"
    UNKNOWN = "Unknown"


class Reset(StrEnum):
    """What to do to the power."""

    ON = "On"
    FORCE_OFF = "ForceOff"
    FORCE_RESTART = "ForceRestart"


@dataclass(frozen=True, slots=True)
class SystemIdentity:
    """Who the machine behind the BMC is, by its own word (bounded, stripped)."""

    serial: str
    model: str
    bios_version: str
    bmc_version: str
    macs: tuple[str, ...]


class BmcRefusedError(UndecidedError):
    """The BMC answered, and either its certificate or our password was refused: nothing may be asked of it."""


class BmcClient(Protocol):
    """One BMC. Raises UnreachableError when it does not answer, BmcRefusedError when it or we are not trusted."""

    def identity(self) -> SystemIdentity:
        """Serial, model and firmware of the machine."""
        ...

    def power(self) -> Power:
        """Power state now."""
        ...

    def boot_once_from_network(self) -> None:
        """The next boot, and only that, is from the network."""
        ...

    def reset(self, kind: Reset) -> None:
        """Asks for it; the machine takes its time."""
        ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """A login at a BMC. The password shows in no repr and no error."""

    username: str
    password: str = field(repr=False)


def load_credentials(path: Path, name: str) -> Credentials:
    """The entry `name` of a site's bmc.yml: `{NAME: {username: ..., password: ...}}`.

    Raises UsageError where the file is missing or others may read it, InputError where it is wrong.
    """
    import yaml

    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(64 * 1024)
    except OSError as error:
        raise UsageError(
            f"reading BMC credentials: {path}: {error.strerror}", f"write it, with mode 0600: {name}: {{...}}"
        ) from None
    if mode & 0o077:
        raise UsageError(f"{path} has mode {mode:04o}: others can read the BMC passwords", f"chmod 600 {path}")
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)  # the error's text would quote the file
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise InputError((Problem(str(path), line, column, "", "not YAML"),)) from None
    entry = document.get(name) if isinstance(document, dict) else None
    values = [entry.get(key) if isinstance(entry, dict) else None for key in ("username", "password")]
    if not all(isinstance(value, str) and value for value in values):
        right = "{username: NAME, password: TEXT}; quote a password of digits"
        raise InputError((Problem(str(path), 1, 1, name, "no such login, or an incomplete one", right),))
    return Credentials(str(values[0]), str(values[1]))


def connect(bmc: Bmc, credentials: Credentials, ca: Path) -> BmcClient:
    """A client of the BMC, whose certificate must be signed by `ca` (PEM file). Nothing is sent before the first call.

    Raises UsageError where there is no CA file.
    """
    if not ca.is_file():
        raise UsageError(f"BMC {bmc.address}: no CA certificate at {ca}", "put the CA that signed your BMCs there")
    return SushyBmc(bmc, credentials, ca)


class SushyBmc:
    """`BmcClient` over sushy."""

    def __init__(self, bmc: Bmc, credentials: Credentials, ca: Path) -> None:
        host = f"[{bmc.address}]" if ":" in bmc.address else bmc.address
        self._url = f"https://{host}:{bmc.port}"
        self._credentials = credentials
        self._ca = ca
        self._found: Any = None

    def identity(self) -> SystemIdentity:
        """Serial, model and firmware of the machine; UndecidedError if the BMC names no serial."""
        found = self._repeatable("reading its identity", self._identity)
        if not found.serial:
            raise UndecidedError(
                f"BMC {self._url}: reading its identity: it gives no serial number", "look at /redfish/v1/Systems"
            )
        return found

    def power(self) -> Power:
        """Power state now; UNKNOWN for words we don't have."""
        return self._repeatable("reading the power state", self._power)

    def boot_once_from_network(self) -> None:
        """Sets the override and reads it back: a BMC that takes it and drops it would boot the old disk."""
        if not self._repeatable("setting network boot", self._boot_once):
            raise UndecidedError(
                f"BMC {self._url}: it accepted network boot for the next start and does not show it",
                "look at the system's Boot property; a BMC reset often helps",
            )

    def reset(self, kind: Reset) -> None:
        """Asked once, never again by itself: two restarts are not one."""
        with self._translated(f"asking for {kind.value}"):
            import sushy

            self._system().reset_system(sushy.ResetType(kind.value))

    def _boot_once(self) -> bool:
        import sushy

        system = self._system()
        system.set_system_boot_options(sushy.BOOT_SOURCE_TARGET_PXE, enabled=sushy.BOOT_SOURCE_ENABLED_ONCE)
        system.refresh(force=True)
        wanted = (sushy.BOOT_SOURCE_TARGET_PXE, sushy.BOOT_SOURCE_ENABLED_ONCE)
        return system.boot is not None and (system.boot.target, system.boot.enabled) == wanted

    def _identity(self) -> SystemIdentity:
        import sushy

        system = self._system()
        system.refresh(force=True)
        managers = [m for m in system.managers if not _is_board(m.path)]
        try:
            nics = dict(system.ethernet_interfaces.summary)
        except sushy.exceptions.MissingAttributeError:
            nics = {}
        macs = {str(mac).strip().lower() for mac in list(nics)[:_MAX_NICS]}
        return SystemIdentity(
            serial=_text(system.serial_number),
            model=_text(system.model),
            bios_version=_text(system.bios_version),
            bmc_version=_text(managers[0].firmware_version) if managers else "",
            macs=tuple(sorted(mac for mac in macs if _MAC.fullmatch(mac))),
        )

    def _power(self) -> Power:
        system = self._system()
        system.refresh(force=True)
        try:
            return Power(system.power_state.value)
        except (AttributeError, ValueError):
            return Power.UNKNOWN

    def _system(self) -> Any:
        """The host's ComputerSystem. An HGX machine also lists its GPU baseboard as one."""
        if self._found is None:
            root = self._root()
            paths = [path for path in root.get_system_collection().members_identities if not _is_board(path)]
            if len(paths) != 1:
                raise UndecidedError(
                    f"BMC {self._url}: it lists {len(paths)} host systems, one was expected",
                    "check the unit's BMC address: this may be a chassis manager",
                )
            self._found = root.get_system(paths[0])
        return self._found

    def _root(self) -> Any:
        import sushy
        from sushy.auth import BasicAuth
        from sushy.connector import Connector

        logging.getLogger("sushy").setLevel(logging.CRITICAL)  # we report its errors ourselves
        # One attempt: we decide what may be repeated. 1 is "no retry", 0 means sushy's default of 3.
        connector = Connector(
            self._url, verify=str(self._ca), server_side_retries=1, server_side_retries_delay=PAUSE_S,
            default_request_timeout=ANSWER_S, connect_timeout=CONNECT_S,
        )  # fmt: skip
        connector._session.mount("https://", _bounded_adapter())
        connector._session.trust_env = False  # no proxy, no .netrc, no other CA bundle between us and a BMC
        # Basic: a session would stay open on the BMC, which has few, when our process is killed.
        auth = BasicAuth(self._credentials.username, self._credentials.password)
        return sushy.Sushy(self._url, auth=auth, connector=connector)

    def _repeatable(self, doing: str, read: Callable[[], T]) -> T:
        """What may be done twice is tried once more when the BMC did not answer: they drop connections.

        One that took long to say nothing is not asked again: a dead BMC is known as dead in about 10 s.
        """
        began = time.monotonic()
        try:
            with self._translated(doing):
                return read()
        except UnreachableError:
            if time.monotonic() - began > 2 * CONNECT_S:
                raise
        time.sleep(PAUSE_S)
        with self._translated(doing):
            return read()

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        """Turns everything sushy and requests raise into our words."""
        from requests.exceptions import RequestException
        from sushy.exceptions import AccessError, ConnectionError, HTTPError, SushyError

        at = f"BMC {self._url}: {doing}"
        try:
            yield
        except AccessError as error:
            raise self._forget(
                BmcRefusedError(
                    f"{at}: it refused user {self._credentials.username!r} (HTTP {error.status_code})",
                    "correct the site's bmc.yml",
                )
            ) from error
        except (ConnectionError, RequestException) as error:
            raise self._forget(self._no_answer(at, error)) from error
        except HTTPError as error:
            text = f"{at}: HTTP {error.status_code}: {_text(error.detail)}"
            raise self._forget(UndecidedError(text, "look at the BMC's log")) from error
        except SushyError as error:
            hint = "look at what the BMC offers under /redfish/v1"
            raise self._forget(UndecidedError(f"{at}: {_text(error)}", hint)) from error
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            # sushy does not check the shape of documents: a list where an object belongs ends in one of these
            text = f"{at}: its answer is not Redfish ({type(error).__name__})"
            raise self._forget(UndecidedError(text, "check the address: is a BMC there?")) from error

    def _forget(self, error: UndecidedError) -> UndecidedError:
        """What was half known of the system is asked again next time."""
        self._found = None
        return error

    def _no_answer(self, at: str, error: Exception) -> UndecidedError:
        text = str(error)
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return BmcRefusedError(
                f"{at}: its certificate does not verify against {self._ca}",
                "put the CA that signed this BMC's certificate there; never switch verification off",
            )
        cause = "did not answer in time" if "timed out" in text else f"does not answer ({_root_cause(error)})"
        return UnreachableError(f"{at}: it {cause}", "check the BMC's power, cable and address; then run again")


def _root_cause(error: BaseException) -> str:
    """The operating system's word for what broke, from under the layers of sushy, requests and urllib3."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return _text(seen.strerror)
        error, seen = seen, seen.__cause__ or seen.__context__
    return type(error).__name__


def _is_board(path: str) -> bool:
    """Resources of an HGX baseboard stand beside those of the machine it sits in."""
    return path.rstrip("/").rsplit("/", 1)[-1].startswith("HGX_")


def _text(value: object) -> str:
    """Text a BMC said, bounded and printable. Empty for what is not there."""
    if value is None:
        return ""
    return "".join(c if c.isprintable() else " " for c in str(value)[: 4 * _MAX_TEXT]).strip()[:_MAX_TEXT]


def _bounded_adapter() -> HTTPAdapter:
    """An adapter that reads an answer whole before anybody parses it, and no more than the bounds allow."""
    from requests.adapters import HTTPAdapter
    from requests.exceptions import ConnectionError
    from urllib3.exceptions import HTTPError

    class Bounded(HTTPAdapter):
        def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
            response = super().send(request, *args, **kwargs)
            try:
                body = _read_bounded(response.raw.read1, str(request.url))
            except HTTPError as error:
                raise ConnectionError(error) from error
            finally:
                response.close()
                # sushy asks the BMC to close every connection. Kept in the pool, the next request may meet the moment.
                self.close()
            response.raw = io.BytesIO(body)
            return response

    return Bounded()


def _read_bounded(read: Callable[[int], bytes], url: str) -> bytes:
    until = time.monotonic() + ANSWER_S
    body = bytearray()
    while piece := read(64 * 1024):
        body += piece
        if len(body) > MAX_ANSWER_BYTES or time.monotonic() > until:
            raise UndecidedError(
                f"{url}: the answer did not end within {MAX_ANSWER_BYTES} bytes and {ANSWER_S:.0f} s",
                "check the address: is a BMC there?",
            )
    return bytes(body)
