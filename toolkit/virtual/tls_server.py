"""An HTTP server over TLS, one thread a request: what a virtual BMC and a virtual switch tray listen with."""

from __future__ import annotations

import socket
import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TIMEOUT_S = 30.0


class TlsServer(ThreadingHTTPServer):
    """One listener. Made inside the network that its address belongs to; `serve_forever` may run anywhere."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], certificate: Path) -> None:
        """`certificate` is a PEM file with key and certificate."""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        super().__init__(address, handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """The TLS handshake happens in the request's thread: a silent client must not block the others."""
        request.settimeout(TIMEOUT_S)
        try:
            with self._context.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, client_address)
        except OSError:
            return  # a broken handshake or a client that went away: nothing to answer

    def shutdown_request(self, request: Any) -> None:
        """The TLS wrapper took the socket over and has closed it."""
        if request.fileno() != -1:
            request.shutdown(socket.SHUT_RDWR)
            request.close()
