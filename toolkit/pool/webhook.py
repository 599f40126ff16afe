"""The rule of the door, served to API servers that have no ValidatingAdmissionPolicy. `door_rule` says what it answers.

Whoever reaches it may ask; all they learn is the rule. What an API server sends is bounded and never acted on.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from toolkit.durable import write_whole
from toolkit.errors import UsageError
from toolkit.kubernetes.client import Object
from toolkit.pool.door_rule import Asked, Doormen, refusals
from toolkit.pool.node_object import read_node, shown

MAX_REVIEW_BYTES = 8 << 20  # two Nodes of etcd's 1.5 MiB each, and what stands around them
_TIMEOUT_S = 10.0
_LIFETIME = timedelta(days=3 * 365)
_RENEW_BEFORE = timedelta(days=90)
_SKEW = timedelta(minutes=5)


def review(request: Object, allowed: Doormen) -> tuple[Object, tuple[str, ...]]:
    """The AdmissionReview to answer with, and what was refused. Raises ValueError for what is no review of a Node."""
    asked = request.get("request")
    if not isinstance(asked, dict) or not isinstance(asked.get("uid"), str):
        raise ValueError("no AdmissionReview")
    after, before, user = asked.get("object"), asked.get("oldObject"), asked.get("userInfo")
    if not isinstance(after, dict) or not isinstance(user, dict) or not isinstance(before, dict | None):
        raise ValueError("no review of a Node")
    operation = asked.get("operation")
    if operation not in ("CREATE", "UPDATE") or (operation == "UPDATE") is not isinstance(before, dict):
        raise ValueError(f"operation {shown(str(operation), 20)} is not asked about")
    old = read_node(before) if isinstance(before, dict) else None
    why = refusals(Asked(str(user.get("username", "")), read_node(after), old), allowed)
    response: Object = {"uid": asked["uid"], "allowed": not why}
    if why:
        response["status"] = {"code": int(HTTPStatus.FORBIDDEN), "message": "; ".join(why)}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}, why


@contextmanager
def serving(
    address: tuple[str, int], certificate: Path, allowed: Doormen, tell: Callable[[str], None]
) -> Iterator[tuple[str, int]]:
    """The rule, served over TLS while the block runs; yields the address. `tell` is told of every refusal.

    certificate  a PEM file with key and certificate
    Raises UsageError where it cannot listen, or the certificate is not usable.
    """
    try:
        server = _Server(address, certificate, allowed, tell)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"the webhook cannot listen on {address[0]}:{address[1]} with {certificate}: {error}",
            "choose an address of this machine that is free; the certificate: rackproof door install --webhook",
        ) from error
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="door webhook", daemon=True)
    thread.start()
    try:
        yield server.server_address[0], server.server_address[1]  # type: ignore[misc]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], certificate: Path, allowed: Doormen, tell: Callable[[str], None]
    ) -> None:
        self.allowed = allowed
        self.tell = tell
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.load_cert_chain(certificate)
        super().__init__(address, _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """The handshake happens in the request's own thread: a silent client holds up nobody."""
        request.settimeout(_TIMEOUT_S)
        try:
            with self._context.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, client_address)
        except OSError:
            return  # a broken handshake or a client that went away

    def shutdown_request(self, request: Any) -> None:
        """The TLS wrapper took the socket over and has closed it."""
        if request.fileno() != -1:
            request.shutdown(socket.SHUT_RDWR)
            request.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        """Answers one review; 400 for anything else, which the API server takes as its failurePolicy says."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()) or int(length) > MAX_REVIEW_BYTES:
            self.close_connection = True
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {})
            return
        try:
            asked = json.loads(self.rfile.read(int(length)))
            answer, why = review(asked if isinstance(asked, dict) else {}, self.server.allowed)
        except (ValueError, RecursionError):
            self._answer(HTTPStatus.BAD_REQUEST, {})
            return
        self._answer(HTTPStatus.OK, answer)
        if why:
            request = asked["request"]
            who, name = str(request["userInfo"].get("username", "")), str(request["object"]["metadata"].get("name"))
            self.server.tell(f"refused {shown(who, 100)} on {shown(name, 100)}: {'; '.join(why)}")

    def log_message(self, format: str, *args: object) -> None:
        """Silent: refusals are told, the rest is the API server's own log."""

    def _answer(self, status: HTTPStatus, body: Object) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def certificate_for(host: str, path: Path, now: datetime) -> bytes:
    """The webhook's certificate (PEM), made anew with its key in `path` (0600) if that is missing, runs out or differs.

    It signs itself: the API server is told to trust this one and no other.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        held = x509.load_pem_x509_certificate(path.read_bytes())
    except (FileNotFoundError, ValueError):
        held = None
    if held is not None and held.not_valid_after_utc - _RENEW_BEFORE > now and host in _hosts(held):
        return held.public_bytes(Encoding.PEM)
    key, public = _made(host, now)
    write_whole(path, public + key, 0o600)
    return public


def _hosts(certificate: Any) -> set[str]:
    from cryptography import x509

    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}


def _made(host: str, now: datetime) -> tuple[bytes, bytes]:
    """(key, certificate) in PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rackproof door")])
    try:
        alternative: x509.GeneralName = x509.IPAddress(ip_address(host))
    except ValueError:
        alternative = x509.DNSName(host)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    raw = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return raw, certificate.public_bytes(Encoding.PEM)
