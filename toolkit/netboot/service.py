"""The service that decides, behind a web server on a UNIX socket. It serves no file: those are the web server's."""

from __future__ import annotations

import os
import re
import socketserver
import sys
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from toolkit.errors import UsageError
from toolkit.netboot.decisions import Answer, Decisions, is_script, posted_to
from toolkit.netboot.offers import BootOffers
from toolkit.netboot.posts import Posts
from toolkit.netboot.site import HOSTS

SOURCE_HEADER = "X-Real-IP"  # set by the web server, whatever a client sent
_SOURCE = re.compile(r"[0-9a-fA-F.:]{2,45}")
_LENGTH = re.compile(r"[0-9]{1,12}")
_TIMEOUT_S = 30.0
_QUEUE = 512


class Deciding(BaseHTTPRequestHandler):
    """Hands what must be decided to `decisions`; a subclass says whose request it is, and serves the rest."""

    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT_S

    @property
    def decisions(self) -> Decisions:
        """Who decides."""
        raise NotImplementedError

    def source(self) -> str:
        """Address of the machine that asks."""
        raise NotImplementedError

    def serve_file(self) -> None:
        """Answers a GET or HEAD of anything but a boot script."""
        self.finish_with(Answer(404))

    def do_GET(self) -> None:
        """A boot script, or a file."""
        if is_script(self.path):
            self.serve_script()
        else:
            self.serve_file()

    def do_HEAD(self) -> None:
        """As GET, without the body; it takes nothing."""
        self.do_GET()

    def serve_script(self) -> None:
        """Answers a GET or HEAD of a boot script."""
        self.finish_with(self.decisions.script(self.path, self.source(), look_only=self.command == "HEAD"))

    def do_POST(self) -> None:
        """A report or a log: read only when its place and its length are in order."""
        to = posted_to(self.path)
        if to is None:
            return self.refuse(404)
        declared = self.headers.get("Content-Length") or ""
        if not _LENGTH.fullmatch(declared) or int(declared) > to.max_bytes:
            return self.refuse(413)
        body = self.rfile.read(int(declared))
        if len(body) < int(declared):
            return self.refuse(400)  # cut short: half a report is none
        return self.finish_with(self.decisions.keep(to, self.source(), body))

    def refuse(self, status: int) -> None:
        """Ends the connection too: what else was sent on it was not read."""
        self.close_connection = True
        self.finish_with(Answer(status))

    def finish_with(self, answer: Answer) -> None:
        """Sends it."""
        self.send_response(answer.status)
        if answer.body:
            self.send_header("Content-Type", answer.content_type)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):  # whoever asked has gone: what was decided stands, and is on record
                self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the web server keeps the log of requests."""


class _Handler(Deciding):
    server: DecisionServer

    @property
    def decisions(self) -> Decisions:
        return self.server.decisions

    def source(self) -> str:
        told = self.headers.get(SOURCE_HEADER) or ""
        return told if _SOURCE.fullmatch(told) else "unknown"


class DecisionServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Listens on the socket, which any process of its group may talk to; raises UsageError where it cannot."""

    daemon_threads = True
    request_queue_size = _QUEUE

    def __init__(self, path: Path, decisions: Decisions) -> None:
        self.decisions = decisions
        path.unlink(missing_ok=True)
        try:
            super().__init__(str(path), _Handler)
        except OSError as error:
            raise UsageError(
                f"cannot listen on {path}: {error.strerror}", "its folder must be there and be this user's"
            ) from error
        path.chmod(0o660)

    def server_bind(self) -> None:
        """Nobody talks to it before its mode is set."""
        before = os.umask(0o177)
        try:
            super().server_bind()
        finally:
            os.umask(before)

    def get_request(self) -> tuple[Any, Any]:
        """A UNIX client has no address, and http.server wants a pair."""
        connection, _ = super().get_request()
        return connection, ("web server", 0)


def decisions_of(provision: Path, say: Callable[[str], None], hosts: Path | None = None) -> Decisions:
    """Decisions over a provisioning root. UsageError where there is none.

    `hosts` is the folder of planned nodes, `hosts` below the root where it is None.
    """
    if not provision.is_dir():
        raise UsageError(f"there is no provisioning root {provision}", "make it, or name another with --root")
    return Decisions(hosts or provision / HOSTS, BootOffers(provision), Posts(provision), say)


def say(text: str) -> None:
    """A line for the journal."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
