"""HTTPS to one API server: every request has a deadline, every reply a bound, every failure a name."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import UsageError
from toolkit.kubernetes import kubeconfig
from toolkit.kubernetes.errors import ApiRefusedError, ApiUnreachableError, printable, refusal

if TYPE_CHECKING:
    from httpx2 import Client, Response
    from lightkube.config.kubeconfig import SingleConfig

MAX_REPLY_BYTES = 64 << 20  # a page of 500 nodes with their images is some 10 MiB
_MAX_REFUSAL_BYTES = 1 << 20
_MAX_WAIT_S = 10.0  # for one Retry-After
_MAX_WAITS = 3
_OK = range(200, 300)
_THROTTLED = 429


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked. `doing` is for errors: `get Node gpu-1`.

    repeatable  whether it may be sent once more where it may have been carried out already
    """

    method: str
    path: str
    doing: str
    query: Mapping[str, str]
    body: Any = None
    content_type: str = "application/json"
    repeatable: bool = False


class Transport:
    """Sends requests. Thread-safe."""

    def __init__(self, path: Path, context: str, timeout_s: float) -> None:
        config = kubeconfig.load(path, context)
        self._path = path
        self._login = config
        self._timeout_s = timeout_s
        self._client = _client(path, config, timeout_s)
        self._lock = threading.Lock()
        self._sent = 0
        self.server = config.cluster.server

    @property
    def sent(self) -> int:
        """Requests sent so far."""
        return self._sent

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def ask(self, request: Request) -> Any:
        """The JSON answer. Waits, a bounded number of times, where the server says to come again later."""
        raw = self.fetch(request, MAX_REPLY_BYTES)
        try:
            return decoded(raw)
        except ValueError as error:
            raise ApiUnreachableError(
                f"{request.doing}: {self.server} did not answer in JSON: {printable(str(error))}",
                "is this address an API server?",
            ) from error

    def fetch(self, request: Request, max_bytes: int, *, cut: bool = False) -> bytes:
        """The answer's bytes. Longer than `max_bytes` is an error, or is cut off there."""
        for waits in range(_MAX_WAITS + 1):
            try:
                with self._answer(request, self._timeout_s) as answer:
                    return _read(answer, max_bytes, self._deadline(), request.doing, cut=cut)
            except _LaterError as later:
                if waits == _MAX_WAITS:
                    raise later.refused from None
                time.sleep(later.wait_s)
        raise AssertionError("the last turn returns or raises")

    @contextmanager
    def stream(self, request: Request, timeout_s: float) -> Iterator[Iterator[bytes]]:
        """The answer's bytes as they come; nothing for `timeout_s` seconds is an error."""
        try:
            with self._answer(request, timeout_s) as answer:
                yield answer.iter_raw()
        except _LaterError as later:
            raise later.refused from None

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout_s

    @contextmanager
    def _answer(self, request: Request, read_s: float) -> Iterator[Response]:
        """An answer that is a yes; everything else raises."""
        import httpx2

        try:
            answer = self._send(request, read_s)
            try:
                if answer.status_code not in _OK:
                    raise self._refused(request, answer)
                yield answer
            finally:
                answer.close()
        except httpx2.HTTPError as error:
            raise self._unreachable(request, error) from error

    def _send(self, request: Request, read_s: float) -> Response:
        import httpx2
        from lightkube.core.exceptions import ConfigError

        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        content = None
        if request.body is not None:
            headers["Content-Type"] = request.content_type
            content = json.dumps(request.body, allow_nan=False).encode()
        timeout = httpx2.Timeout(self._timeout_s, read=read_s)
        built = self._client.build_request(
            request.method, request.path, params=request.query, content=content, headers=headers, timeout=timeout
        )
        try:
            return self._sent_once(built)
        except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
            # A kept connection that the server closed meanwhile, as when it was restarted.
            if not request.repeatable:
                raise
            return self._sent_once(built)
        except ConfigError as error:
            raise UsageError(f"{self._path}: {error}", "write the token there again") from error

    def _sent_once(self, built: Any) -> Response:
        with self._lock:
            self._sent += 1
        return self._client.send(built, stream=True)

    def _refused(self, request: Request, answer: Response) -> ApiRefusedError | _LaterError:
        raw = _read(answer, _MAX_REFUSAL_BYTES, self._deadline(), request.doing, cut=True)
        status = _status(raw)
        details = status.get("details")
        listed = details.get("causes") if isinstance(details, dict) else None
        causes = tuple(str(c.get("reason", "")) for c in listed or () if isinstance(c, dict))
        hint = self._why_unknown(answer) if answer.status_code == 401 else ""
        refused = refusal(
            request.doing,
            answer.status_code,
            str(status.get("message") or raw.decode(errors="replace")),
            reason=str(status.get("reason", "")),
            causes=causes,
            hint=hint,
        )
        wait_s = _wait_s(answer, causes, request)
        return refused if wait_s is None else _LaterError(refused, wait_s)

    def _why_unknown(self, answer: Response) -> str:
        """401 does not say why; the client certificate's dates and the server's clock often do."""
        now = _date(answer) or datetime.now(UTC)
        dates = _certificate_dates(self._login)
        if dates is None:
            return ""
        if now > dates[1]:
            return f"the client certificate in {self._path} expired at {dates[1].isoformat()}: renew it"
        if now < dates[0]:
            return (
                f"the client certificate in {self._path} is valid from {dates[0].isoformat()}, and the server's clock "
                f"says {now.isoformat()}: set the clocks"
            )
        return ""

    def _unreachable(self, request: Request, error: Exception) -> ApiUnreachableError:
        import httpx2

        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ssl.SSLError):
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ApiUnreachableError(
                f"{request.doing}: {self.server} is not the server that {self._path} trusts: {cause.verify_message}",
                "compare the CA in the kubeconfig with the server's, and the clocks of both machines",
            )
        if isinstance(error, httpx2.TimeoutException):
            said = f"no answer within {self._timeout_s:g} s"
        else:
            said = printable(str(error)) or type(error).__name__
        return ApiUnreachableError(
            f"{request.doing}: {self.server}: {said}", "is the API server up? the same command again"
        )


def decoded(raw: bytes) -> Any:
    """JSON from outside. ValueError for all that is none, brackets without end included."""
    try:
        return json.loads(raw)
    except RecursionError:
        raise ValueError("nested too deeply") from None


class _LaterError(Exception):
    """Refused for now; the server said for how long."""

    def __init__(self, refused: ApiRefusedError, wait_s: float) -> None:
        super().__init__(refused.message)
        self.refused = refused
        self.wait_s = wait_s


def _client(path: Path, config: SingleConfig, timeout_s: float) -> Client:
    """lightkube's httpx client: CA, certificate and token as the kubeconfig says, and no proxy of the shell's."""
    import httpx2
    from lightkube.config import client_adapter
    from lightkube.core.exceptions import ConfigError

    try:
        parameters = client_adapter.ConnectionParams(timeout=httpx2.Timeout(timeout_s), trust_env=False)
        return client_adapter.Client(config, parameters)
    # A PEM that is none is an ssl.SSLError, which is an OSError; base64 that is none a ValueError.
    except (OSError, ValueError, ConfigError, httpx2.InvalidURL) as error:
        raise UsageError(
            f"{path}: its server, CA, client certificate or key cannot be used: {printable(str(error))}",
            "take a fresh kubeconfig from the cluster",
        ) from error


def _read(answer: Response, max_bytes: int, deadline: float, doing: str, *, cut: bool) -> bytes:
    parts, size = [], 0
    for part in answer.iter_raw():
        parts.append(part)
        size += len(part)
        if size > max_bytes:
            if cut:
                break
            raise ApiUnreachableError(f"{doing}: the answer is over {max_bytes} bytes; nothing of it was used")
        if time.monotonic() > deadline:
            raise ApiUnreachableError(f"{doing}: the answer did not end in time", "is the network between healthy?")
    return b"".join(parts)[:max_bytes]


def _status(raw: bytes) -> dict[str, Any]:
    """The `Status` object a refusal comes with; empty where it is something else."""
    try:
        status = decoded(raw)
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}


def _wait_s(answer: Response, causes: tuple[str, ...], request: Request) -> float | None:
    """How long to wait before asking again; None: not at all.

    A disruption budget's 429 is an answer, not a queue. Behind a 5xx the request may have been carried out.
    """
    untouched = answer.status_code == _THROTTLED and "DisruptionBudget" not in causes
    if not untouched and not (answer.status_code >= 500 and request.repeatable):
        return None
    word = answer.headers.get("Retry-After", "")
    return min(float(word), _MAX_WAIT_S) if word.isascii() and word.isdecimal() else None


def _date(answer: Response) -> datetime | None:
    from email.utils import parsedate_to_datetime

    try:
        at = parsedate_to_datetime(answer.headers.get("Date", ""))
    except (ValueError, TypeError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _certificate_dates(config: SingleConfig) -> tuple[datetime, datetime] | None:
    """From when to when the client certificate holds; None where there is none, or its file is gone by now."""
    import base64

    from cryptography import x509

    user = config.user
    if user is None or not (user.client_cert or user.client_cert_data):
        return None
    try:
        if user.client_cert_data:
            raw = base64.b64decode(user.client_cert_data)
        else:
            raw = Path(config.abs_file(user.client_cert or "")).read_bytes()
        certificate = x509.load_pem_x509_certificate(raw)
    except (OSError, ValueError):
        return None
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc
