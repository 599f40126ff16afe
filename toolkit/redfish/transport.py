"""HTTP over verified TLS to a BMC: who is trusted, and how much and how long an answer may be.

A certificate is verified against the site's CA, or is exactly the one whose fingerprint the rack file pins: a BMC that
signs its own has no CA to ask. There is no third way.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import UndecidedError, UsageError
from toolkit.rack.model import Bmc

if TYPE_CHECKING:
    from requests import PreparedRequest, Response, Session
    from requests.adapters import HTTPAdapter

CONNECT_S = 4.0
ANSWER_S = 10.0  # between two pieces of an answer, and for a whole one
PAUSE_S = 0.5  # before something is asked once more
MAX_ANSWER_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Trust:
    """Why a BMC's certificate is believed: the site's CA (PEM file), or its own sha256 (hexadecimal); never neither."""

    ca: Path
    sha256: str = ""

    def __str__(self) -> str:
        return f"the pinned fingerprint {self.sha256[:16]}..." if self.sha256 else str(self.ca)


def trust_of(bmc: Bmc, ca: Path) -> Trust:
    """The pin where the rack file has one, else the CA. UsageError where there is neither."""
    if not bmc.certificate_sha256 and not ca.is_file():
        raise UsageError(
            f"BMC {bmc.address}: no CA certificate at {ca}",
            "put the CA that signed your BMCs there, or pin its own certificate: bmc: {certificate_sha256: ...}",
        )
    return Trust(ca, bmc.certificate_sha256)


def url_of(bmc: Bmc) -> str:
    """Where the BMC answers."""
    host = f"[{bmc.address}]" if ":" in bmc.address else bmc.address
    return f"https://{host}:{bmc.port}"


def secure(session: Session, trust: Trust) -> None:
    """Makes an HTTP session ask this BMC only as it is trusted, and read no more than the bounds allow."""
    session.mount("https://", _adapter(trust))
    session.verify = str(trust.ca)
    session.trust_env = False  # no proxy, no .netrc, no other CA bundle between us and a BMC


def _adapter(trust: Trust) -> HTTPAdapter:
    """An adapter that reads an answer whole before anybody parses it, and no more than the bounds allow."""
    from requests.adapters import HTTPAdapter
    from requests.exceptions import ConnectionError
    from urllib3.exceptions import HTTPError

    class Bounded(HTTPAdapter):
        def cert_verify(self, conn: Any, url: str, verify: bool | str, cert: Any) -> None:
            if not trust.sha256:
                super().cert_verify(conn, url, verify, cert)
                return
            # urllib3 compares the fingerprint after the handshake and before the first byte of a request.
            conn.cert_reqs, conn.assert_fingerprint = "CERT_NONE", trust.sha256

        def build_connection_pool_key_attributes(
            self, request: PreparedRequest, verify: bool | str | None, cert: Any = None
        ) -> tuple[dict[str, Any], dict[str, Any]]:
            host, pool = super().build_connection_pool_key_attributes(request, verify, cert)  # type: ignore[arg-type]
            if trust.sha256:
                pool = {"cert_reqs": "CERT_NONE", "assert_fingerprint": trust.sha256}
            return host, pool

        def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
            response = super().send(request, *args, **kwargs)
            try:
                body = _read_bounded(response.raw.read1, str(request.url))
            except HTTPError as error:
                raise ConnectionError(error) from error
            finally:
                response.close()
                # We ask the BMC to close every connection. Kept in the pool, the next request may meet the moment.
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
