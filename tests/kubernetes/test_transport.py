"""Servers that misbehave: each ends in a stated error, in bounded time and memory. A small HTTPS server plays them."""

import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from toolkit.kubernetes import client, transport
from toolkit.kubernetes.client import ApiServer
from toolkit.kubernetes.errors import ApiRefusedError, ApiUnreachableError, ExpiredError
from toolkit.virtual.control_plane import documents
from toolkit.virtual.control_plane.certificates import Authority

VERSION = json.dumps({"major": "1", "minor": "34+"}).encode()
CORE = json.dumps({"resources": [{"name": "nodes", "kind": "Node", "namespaced": False}]}).encode()


class Stand:
    """An HTTPS server of a CA of its own; what it answers is a function of its handler."""

    def __init__(self, folder):
        self.authority = Authority.at(folder / "authority.pem")
        self.answer = None
        self.asked = []
        stand = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self):
                try:
                    super().handle_one_request()
                except OSError:  # the client has gone
                    self.close_connection = True

            def do_GET(self):
                if self.path == "/api/v1":
                    return self.reply(200, CORE)
                stand.asked.append(self.path)
                return stand.answer(self)

            do_PATCH = do_GET  # noqa: N815 - http.server's names

            def reply(self, status, body, **headers):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                """Quiet."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_):
                """A client that gives up is what is tested."""

        self.server = Server(("127.0.0.1", 0), Handler)
        issued = self.authority.server("stand", ("127.0.0.1",))
        pem = folder / "stand.pem"
        pem.write_bytes(issued.key + issued.certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()
        url = f"https://127.0.0.1:{self.server.server_address[1]}"
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.touch(0o600)
        ca, login = self.authority.pem.certificate, self.authority.user("admin")
        self.kubeconfig.write_bytes(documents.kubeconfig(url, ca, "admin", login))

    def api(self, timeout_s=5.0):
        return ApiServer.connect(self.kubeconfig, timeout_s=timeout_s)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def stand(tmp_path):
    """The server, up."""
    made = Stand(tmp_path)
    yield made
    made.close()


def status(code, message, **more):
    return json.dumps({"kind": "Status", "code": code, "message": message, **more}).encode()


def test_a_server_that_asks_to_wait_is_waited_for(stand):
    """Two 429 with Retry-After, then the answer: three requests, and the caller sees only the answer."""

    def answer(handler):
        busy = len(stand.asked) <= 2
        handler.reply(429, status(429, "too many requests"), Retry_After="0") if busy else handler.reply(200, VERSION)

    stand.answer = answer
    api = stand.api()
    assert api.version() == (1, 34)
    assert api.requests == 3


def test_a_server_that_always_asks_to_wait_is_given_up(stand):
    """Four tries in all, then the refusal with the server's words."""
    stand.answer = lambda handler: handler.reply(429, status(429, "too many requests"), Retry_After="0")
    with pytest.raises(ApiRefusedError, match="too many requests") as told:
        stand.api().version()
    assert told.value.status == 429
    assert len(stand.asked) == 4


def test_the_wait_a_server_asks_for_is_bounded(stand):
    """An hour is cut to seconds, and what is no number is no wait; the deadline is ours, not the server's."""
    stand.answer = lambda handler: handler.reply(503, b"later", Retry_After="-3600")
    with pytest.raises(ApiRefusedError, match=r"503.*later"):
        stand.api().version()
    assert len(stand.asked) == 1
    answer = type("Answer", (), {"status_code": 429, "headers": {"Retry-After": "3600"}})
    write = transport.Request("POST", "/", "", {})
    assert transport._wait_s(answer, (), write) == 10
    assert transport._wait_s(answer, ("DisruptionBudget",), write) is None


def test_what_may_have_been_done_is_not_asked_for_again(stand):
    """503 with Retry-After: a read waits and asks again, a write leaves it to the caller."""
    stand.answer = lambda handler: handler.reply(503, status(503, "later"), Retry_After="0")
    for ask, times in ((lambda api: api.version(), 4), (lambda api: api.patch("v1", "Node", "n", {}, how="merge"), 1)):
        stand.asked.clear()
        with pytest.raises(ApiRefusedError, match="later"):
            ask(stand.api())
        assert len(stand.asked) == times


def test_a_connection_that_breaks_is_tried_once_more_where_that_is_harmless(stand):
    """A read is sent again on a new connection; what might have been done is told and left to the caller."""

    def answer(handler):
        if len(stand.asked) == 1:
            handler.close_connection = True
            return
        handler.reply(200, VERSION)

    stand.answer = answer
    assert stand.api().version() == (1, 34)
    assert len(stand.asked) == 2
    stand.asked.clear()
    with pytest.raises(ApiUnreachableError, match="patch Node n"):
        stand.api().patch("v1", "Node", "n", {}, how="merge")
    assert len(stand.asked) == 1


def test_an_answer_that_never_comes_or_never_ends_has_a_deadline(stand):
    """Silence, and a byte now and then: both end about when they were told to."""
    over = threading.Event()

    def silent(_handler):
        over.wait(20)

    def drip(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        while not over.wait(0.05):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    try:
        for answer, said in ((silent, "no answer within 0.5 s"), (drip, "did not end in time")):
            stand.answer = answer
            began = time.monotonic()
            with pytest.raises(ApiUnreachableError, match=said):
                stand.api(timeout_s=0.5).version()
            assert time.monotonic() - began < 5
    finally:
        over.set()


def test_an_answer_over_the_bound_is_not_read_to_its_end(stand, monkeypatch):
    """Nothing of it is used; logs are cut at their bound instead."""
    monkeypatch.setattr(transport, "MAX_REPLY_BYTES", 1000)
    stand.answer = lambda handler: handler.reply(200, b" " * 5000)
    with pytest.raises(ApiUnreachableError, match="over 1000 bytes"):
        stand.api().version()
    wanted = transport.Request("GET", "/log", "log", {})
    assert len(transport.Transport(stand.kubeconfig, "", 5.0).fetch(wanted, 100, cut=True)) == 100


@pytest.mark.parametrize(
    "body", [b"<html>", b"\xff\xfe", b"[]", b"{}", b'{"major": {}, "minor": "x"}', b"[" * 100_000, b"1" * 5000]
)
def test_what_is_no_answer_of_kubernetes_is_unreachable(stand, body):
    """Something else listens there: said so, in one line, whatever it sent."""
    stand.answer = lambda handler: handler.reply(200, body)
    with pytest.raises(ApiUnreachableError) as told:
        stand.api().version()
    assert len(str(told.value)) < 700
    with pytest.raises(ApiUnreachableError):
        stand.api().list("v1", "Node")


@pytest.mark.parametrize(
    "body", [b"[]", b'"x"', b"null", b'{"details": 7, "message": {}}', b"[" * 100_000, b"\x00\xff"]
)
def test_a_refusal_of_any_shape_is_a_refusal(stand, body):
    """The status counts; its words are taken only as far as they are words."""
    stand.answer = lambda handler: handler.reply(418, body)
    with pytest.raises(ApiRefusedError) as told:
        stand.api().version()
    assert told.value.status == 418


def test_the_servers_words_are_bounded_and_printable(stand):
    """A message may quote what somebody else wrote: no escape sequences reach the terminal, and no megabytes."""
    stand.answer = lambda handler: handler.reply(599, status(599, "\x1b[31mred\nsecond line " + "x" * 100_000))
    with pytest.raises(ApiRefusedError) as told:
        stand.api().version()
    assert "\x1b" not in told.value.message
    assert "[31mred second line xxx" in told.value.message
    assert len(told.value.message) < 600
    assert told.value.status == 599


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'{"type": "ERROR", "object": {"code": 410, "message": "too old"}}', ExpiredError),
        (b'{"type": "ERROR", "object": {"code": "x"}}', ApiRefusedError),
        (b'{"type": "ADDED", "object": 7}', ApiRefusedError),
        (b"{}", ApiUnreachableError),
        (b"[]", ApiUnreachableError),
        (b"no json", ApiUnreachableError),
        (b"[" * 100_000, ApiUnreachableError),
    ],
)
def test_a_watch_takes_only_events(stand, line, error):
    """The good event before is given; what follows ends the watch with its reason."""
    good = b'{"type": "ADDED", "object": {"kind": "Node"}}\n\n'
    stand.answer = lambda handler: handler.reply(200, good + line + b"\n")
    events = stand.api().watch("v1", "Node")
    assert next(events) == ("ADDED", {"kind": "Node"})
    with pytest.raises(error):
        next(events)
    stand.answer = lambda handler: handler.reply(410, status(410, "too old"))
    with pytest.raises(ExpiredError):
        next(stand.api().watch("v1", "Node", since="1"))


def test_a_list_that_expires_between_its_pages_begins_anew(stand):
    """The second page's version was compacted away once: the list is read again, whole, and never half."""

    def answer(handler):
        item = {"metadata": {"name": f"n{len(stand.asked)}"}}
        if len(stand.asked) == 2:
            handler.reply(410, status(410, "compacted"))
        else:
            more = "next" if "continue" not in handler.path else ""
            meta = {"continue": more, "resourceVersion": "7"}
            handler.reply(200, json.dumps({"metadata": meta, "items": [item]}).encode())

    stand.answer = answer
    assert [n["metadata"]["name"] for n in stand.api().list("v1", "Node")] == ["n3", "n4"]


def test_a_list_without_an_end_is_given_up(stand, monkeypatch):
    """A server that always promises another page: nothing of it is used."""
    monkeypatch.setattr(client, "_MAX_OBJECTS", 1000)
    page = {"metadata": {"continue": "more"}, "items": []}
    stand.answer = lambda handler: handler.reply(200, json.dumps(page).encode())
    with pytest.raises(ApiUnreachableError, match="over 1000 objects"):
        stand.api().list("v1", "Node")
    assert len(stand.asked) == 3


def test_only_kubernetes_says_that_an_object_is_not_there(stand):
    """A load balancer's 404 page is an error; the API server's own NotFound is an answer."""
    stand.answer = lambda handler: handler.reply(404, b"default backend - 404")
    with pytest.raises(ApiRefusedError, match="default backend"):
        stand.api().get("v1", "Node", "n")
    stand.answer = lambda handler: handler.reply(404, status(404, "not found", reason="NotFound"))
    assert stand.api().get("v1", "Node", "n") is None


def test_nobody_listens(stand):
    """A connection that is refused is told at once, with the address."""
    stand.close()
    with pytest.raises(ApiUnreachableError, match=r"https://127\.0\.0\.1:"):
        stand.api().version()
