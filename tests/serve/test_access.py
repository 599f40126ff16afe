"""Who may look, and what leaves the server: names, token, session, TLS, headers, sizes, deadlines."""

import http.client
import json
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import threading
import time
from urllib.parse import urlencode

import pytest
from rehearsal import now
from serving import PROGRAM, serving

from toolkit.errors import UsageError
from toolkit.ledger import Ledger
from toolkit.serve.access import MAX_SESSIONS, Access, host_names, host_of, is_loopback, token_of
from toolkit.serve.guard import CSP, safe_next
from toolkit.serve.server import BoundedProtocol, Terms, make_server
from toolkit.serve.site import Site

FORM = {"Content_Type": "application/x-www-form-urlencoded"}
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what must be refused
SECRET = "canary-0123456789-0123456789"


@pytest.fixture(scope="module")
def token_file(tmp_path_factory):
    """An operator's own token."""
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(SECRET + "\n")
    file.chmod(0o600)
    return file


@pytest.fixture(scope="module")
def locked(lab, token_file):
    """A server that asks for the token on a loopback address too."""
    with serving(lab.settings, "--with-token", "--token-file", str(token_file)) as running:
        yield running


@pytest.mark.parametrize("path", ["/", "/metrics", "/static/page.css", "/nope", "/login"])
def test_every_answer_leaves_the_browser_nothing_to_run_but_ours(server, path):
    """No inline script, no frame, no sniffing, no referrer, nothing kept but the style sheet."""
    _, headers, _ = server.ask(path)
    assert headers["content-security-policy"] == CSP
    assert "'unsafe-inline'" not in CSP and "frame-ancestors 'none'" in CSP and "default-src 'none'" in CSP
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == ("public, max-age=86400, immutable" if "static" in path else "no-store")
    assert "server" not in headers


def test_no_page_has_an_inline_style_script_or_handler(server):
    """The policy would refuse them: none is there to be refused."""
    for path in ("/", "/racks/demo-small", "/racks/demo-small/nodes/node2", "/queue", "/login"):
        page = server.page(path)
        assert not re.search(r"<style|style=|<script(?! src=\"/static/)|\son\w+=|javascript:", page)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_pages_are_only_read(server, method):
    """Any other method is refused, and says which are not."""
    status, headers, _ = server.ask("/racks/demo-small", method)
    assert (status, headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "host", ["attacker.example", "attacker.example:8181", "127.0.0.1.attacker.example", "", "[::1"]
)
def test_another_name_for_this_server_is_refused(server, host):
    """A page of another site that had its name point here (DNS rebinding) reads nothing."""
    status, headers, text = server.ask("/metrics", Host=host)
    assert status == 421 and "rackproof_node_state" not in text
    assert headers["content-security-policy"] == CSP


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:8181", "[::1]:8181", "LOCALHOST."])
def test_the_machines_own_names_are_answered(server, host):
    """Whatever port a forwarded one has."""
    assert server.ask("/", Host=host)[0] == 200


def test_too_long_an_address_and_too_long_a_form_are_refused(server):
    """Before anything is read of them."""
    assert server.ask("/find?q=" + "x" * 3_000)[0] == 414
    assert server.ask("/login", "POST", "token=" + "x" * 5_000, **FORM)[0] == 413


def test_a_form_of_another_site_is_refused(server):
    """By what browsers say of where it comes from."""
    form = urlencode({"token": SECRET})
    assert server.ask("/login", "POST", form, Origin="https://attacker.example", **FORM)[0] == 403
    assert server.ask("/login", "POST", form, Sec_Fetch_Site="cross-site", **FORM)[0] == 403
    assert server.ask("/login", "POST", form, Origin="null", **FORM)[0] == 403


def test_without_the_token_nothing_is_shown(locked):
    """A browser is sent to the form, a program is told what it lacks; even the name of a rack stays here."""
    for path in ("/", "/metrics", "/events", "/racks/demo-small", "/find?q=node2"):
        status, headers, text = locked.ask(path)
        assert status == 303 and headers["location"].startswith("/login?next=") and "demo-small" not in text
        status, headers, text = locked.ask(path, Accept="*/*")
        assert status == 401 and headers["www-authenticate"].startswith("Bearer") and "demo-small" not in text
    assert locked.ask("/static/page.css")[0] == 200


def test_a_program_shows_the_token_as_a_bearer(locked):
    """The right one alone."""
    assert locked.ask("/metrics", Authorization=f"Bearer {SECRET}")[0] == 200
    for wrong in ("Bearer ", f"Bearer {SECRET}x", f"Basic {SECRET}", SECRET, f"bearer  {SECRET}"):
        assert locked.ask("/metrics", Authorization=wrong)[0] == 401


def test_a_browser_logs_in_once_and_out_again(locked):
    """Its cookie is no token, is for this site alone and for no script; after the log-out it opens nothing."""
    wrong = urlencode({"token": "x" * 30, "next": "/queue"})
    status, headers, _ = locked.ask("/login", "POST", wrong, **FORM)
    assert status == 403 and "set-cookie" not in headers
    right = urlencode({"token": SECRET, "next": "/queue"})
    status, headers, text = locked.ask("/login", "POST", right, **FORM)
    assert (status, headers["location"]) == (303, "/queue") and SECRET not in str(headers) + text
    cookie, *flags = headers["set-cookie"].split("; ")
    assert {flag.lower() for flag in flags} >= {"httponly", "samesite=strict", "path=/"}
    assert "demo-small" in locked.ask("/queue", Cookie=cookie)[2]
    assert locked.ask("/queue", Cookie=cookie + "x")[0] == 303
    assert locked.ask("/logout", "POST", "", Cookie=cookie)[0] == 303
    assert locked.ask("/queue", Cookie=cookie)[0] == 303


@pytest.mark.parametrize(
    "target",
    ["//attacker.example", "https://attacker.example", "/\\attacker.example", "\\\\a", "x", "", "/a\nb", "/login"],
)
def test_a_log_in_leads_to_no_other_site(target):
    """Wherever the form says to go on to."""
    assert safe_next(target) == "/"
    assert safe_next("/racks/demo?runs=all") == "/racks/demo?runs=all"


def test_the_token_is_made_for_its_owner_alone_and_is_never_told(lab, tmp_path):
    """Not on a command line, not on stdout, not on stderr: where it is, is told."""
    file = tmp_path / "new" / "token"
    with serving(lab.settings, "--with-token", "--token-file", str(file)) as running:
        token = file.read_text().strip()
        assert len(token) >= 43 and stat.S_IMODE(file.stat().st_mode) == 0o600
        assert running.ask("/metrics", Authorization=f"Bearer {token}")[0] == 200
        running.process.send_signal(signal.SIGINT)
        said = "".join(running.process.communicate(timeout=10))
    assert running.process.returncode == 0
    assert token not in said and str(file) in said.replace("\n", "")
    assert token_of(file) == token


@pytest.mark.parametrize(
    ("content", "mode", "wrong"),
    [(SECRET, 0o644, "owner's alone"), (SECRET, 0o620, "owner's alone"), ("short", 0o600, "24 to"),
     ("", 0o600, "24 to"), ("two words are no token at all", 0o600, "24 to"), ("x" * 600, 0o600, "24 to")],
)  # fmt: skip
def test_a_token_that_others_may_read_or_guess_is_refused(tmp_path, content, mode, wrong):
    """With what to do."""
    file = tmp_path / "token"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(UsageError, match=wrong) as refused:
        token_of(file)
    assert refused.value.hint and SECRET not in str(refused.value)


def test_a_token_file_that_is_a_link_or_a_pipe_is_refused(tmp_path):
    """A link may lead to what another user made; a pipe would wait for ever."""
    (tmp_path / "real").write_text(SECRET)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("link", "pipe"):
        with pytest.raises(UsageError):
            token_of(tmp_path / name)


def refused(lab, *options):
    """(exit status, what it says) of a start that fails."""
    env = {"RACKPROOF_HOME": str(lab.settings.home), "PATH": "/usr/bin:/bin"}
    told = subprocess.run(
        [PROGRAM, "serve", *options], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert told.stdout == ""
    return told.returncode, told.stderr


def test_another_address_takes_tls(lab):
    """Or a proxy that does it; without either the start is refused, with the ways out."""
    status, said = refused(lab, "--bind", EVERYWHERE, "--port", "0")
    assert status == 2 and "in the clear" in said
    assert "--tls-cert" in said and "--behind-proxy" in said and "ssh -L" in said
    assert refused(lab, "--tls-cert", "x")[0] == 2


def test_a_port_in_use_is_named(lab, server):
    """With how to find out by whom."""
    status, said = refused(lab, "--port", str(server.port))
    assert status == 2 and f"port {server.port} of 127.0.0.1 is in use" in said and "ss -ltnp" in said


def test_the_address_as_json_says_where_the_token_is(lab, tmp_path):
    """One line, for the program that started it."""
    command = [PROGRAM, "serve", "--port", "0", "--json", "--with-token", "--token-file", str(tmp_path / "token")]
    env = os.environ | {"RACKPROOF_HOME": str(lab.settings.home)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        told = json.loads(process.stdout.readline())
        process.terminate()
        assert process.wait(10) == 0
    assert told["address"].startswith("http://127.0.0.1:") and told["token_file"] == str(tmp_path / "token")


def test_no_ledger_is_no_server(tmp_path):
    """And none is made by looking for it."""
    env = {"RACKPROOF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    told = subprocess.run([PROGRAM, "serve"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 3 and "there is no ledger" in told.stderr and not list(tmp_path.iterdir())


def test_on_another_address_the_cookie_is_for_https_alone(lab, tmp_path, token_file):
    """TLS by our own files; every answer says to come by https for a year."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    options = ("--bind", EVERYWHERE, "--name", "localhost", "--token-file", str(token_file))
    with serving(lab.settings, *options, "--tls-cert", str(certificate), "--tls-key", str(key)) as running:
        assert running.address.startswith("https://")
        context = ssl.create_default_context(cafile=str(certificate))
        connection = http.client.HTTPSConnection("localhost", running.port, context=context, timeout=30)
        connection.request("POST", "/login", urlencode({"token": SECRET}), {"Content-Type": FORM["Content_Type"]})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 303 and answer.getheader("strict-transport-security")
        cookie = answer.getheader("set-cookie")
        assert cookie.startswith("__Host-rackproof=") and "Secure" in cookie
        connection.request("GET", "/", headers={"Cookie": cookie.partition(";")[0]})
        assert connection.getresponse().status == 200
        connection.close()
        plain = socket.create_connection(("localhost", running.port), timeout=30)
        plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" not in plain.recv(100)
        plain.close()


def test_a_connection_that_says_too_little_is_cut(lab, tmp_path, monkeypatch):
    """One that trickles its headers, and one that says nothing more after its first answer."""
    monkeypatch.setattr(BoundedProtocol, "headers_s", 0.5)
    with Ledger.open_to_read(lab.settings.ledger_url, lab.settings.artifacts, now) as ledger:
        site = Site(lab.settings, ledger, now)
        at = []
        server, listening = make_server(site, Terms("127.0.0.1", 0, tmp_path / "token"), at.append)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        with listening:
            thread.start()
            try:
                port = listening.getsockname()[1]
                for words in (b"GET / HTTP/1.1\r\nHost: loc", b"GET /login HTTP/1.1\r\nHost: localhost\r\n\r\n", b""):
                    assert_cut(port, words)
            finally:
                server.should_exit = True
                thread.join(10)
        assert not thread.is_alive() and at


def assert_cut(port, words):
    """The other side ends the connection, by itself, within seconds."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(words)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            try:
                if not connection.recv(65_536):
                    return
            except ConnectionResetError:
                return
    raise AssertionError("the connection is still there")


@pytest.mark.parametrize(
    ("header", "name"),
    [("a.example:80", "a.example"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("[::1]x", ""), ("[::1", ""), ("A.", "a")],
)
def test_a_host_header_is_read_as_a_name(header, name):
    """Without its port, in lower case."""
    assert host_of(header) == name


def test_names_of_a_server():
    """A wildcard is no name; the machine's own are, where others reach it."""
    assert host_names("127.0.0.1", ()) == {"localhost", "127.0.0.1", "::1"}
    assert socket.gethostname().lower() in host_names(EVERYWHERE, ("gpu.example.",)) >= {"gpu.example"}
    assert EVERYWHERE not in host_names(EVERYWHERE, ())
    assert [is_loopback(a) for a in ("::1", "127.9.9.9", "localhost", EVERYWHERE, "10.0.0.1", "x")] == [True] * 3 + [
        False
    ] * 3


def test_sessions_are_bounded():
    """The oldest one ends for the newest."""
    access = Access(frozenset(), SECRET)
    first = access.begin()
    others = [access.begin() for _ in range(MAX_SESSIONS)]
    assert not access.holds(first) and all(map(access.holds, others)) and not access.holds("")
