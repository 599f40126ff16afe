"""The NVUE client against switch trays over TLS, well-behaved and not."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from toolkit.errors import UndecidedError, UnreachableError, UsageError
from toolkit.judge.nvlink.seen import ClusterSeen, ClusterState
from toolkit.nvue import client as nvue_client
from toolkit.nvue.client import NvueRefusedError, NvueShapeError, connect
from toolkit.rack.model import Nvos
from toolkit.redfish import Credentials
from toolkit.virtual.nvos import SwitchTrouble
from toolkit.virtual.tls import Authority

TRAY, OTHER = "nvswitch1", "nvswitch2"
LOGIN = Credentials("admin", "correct horse")
READS = ("health", "cluster", "apps", "partitions", "ports", "firmware", "location")


def test_a_healthy_control_tray_says_all_of_itself(switches):
    """Every read gives a value, and each was asked for the operational state."""
    client = switches.client()
    assert client.health() == (True, ())
    assert client.cluster() == ClusterSeen(ClusterState.ENABLED, "up")
    assert [(app.name, app.status) for app in client.apps()] == [("nmx-controller", "ok"), ("nmx-telemetry", "ok")]
    assert "gfm:" in client.apps()[0].versions
    (partition,) = client.partitions()
    assert (partition.gpus, partition.health, partition.multicast_limit) == (72, "healthy", 1024)
    ports = client.ports()
    assert len([p for p in ports if p.name.startswith("acp")]) == 144
    assert all(port.codes and not port.trouble for port in ports)
    assert set(dict(client.firmware())) == {"ASIC", "BIOS", "BMC"}
    assert client.location().slot == "13"
    assert all("rev=operational" in path for _, method, path in switches.nvos.asked if method == "GET")


def test_a_tray_without_the_cluster_is_disabled_and_lists_stopped_apps(switches):
    """That is how eight of nine trays are."""
    client = switches.client(OTHER)
    assert client.cluster() == ClusterSeen(ClusterState.DISABLED, "n/a")
    assert {app.status for app in client.apps()} == {"not ok"}
    assert client.partitions() == ()


def test_link_diagnostics_keep_code_and_words(switches):
    """1024 and 2 are told apart."""
    switches.break_by(SwitchTrouble.PORT, port="acp17", value=1024)
    switches.break_by(SwitchTrouble.PORT, port="acp18")
    troubled = {port.name: port.trouble for port in switches.client().ports() if port.trouble}
    assert troubled == {"acp17": ((1024, "Cable is unplugged"),), "acp18": ((2, "Negotiation failure"),)}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        (SwitchTrouble.DENIED, NvueRefusedError, r"refused the password of user 'admin' \(HTTP 401\)"),
        (SwitchTrouble.FORBIDDEN, NvueRefusedError, r"refused the rights of user 'admin' \(HTTP 403\)"),
        (SwitchTrouble.BROKEN, UndecidedError, "HTTP 500: nvued does not answer"),
        (SwitchTrouble.WEB_PAGE, NvueShapeError, "a web page, not JSON"),
        (SwitchTrouble.REDIRECT, NvueShapeError, "redirects to 'https://192.0.2.80/login'"),
    ],
)
def test_every_read_of_a_broken_tray_is_a_clear_error(switches, read, kind, error, words):
    """The error names the switch, what was asked and what to do; never a value, never a traceback."""
    switches.break_by(kind)
    with pytest.raises(error, match=words) as caught:
        getattr(switches.client(), read)()
    assert str(caught.value).startswith(f"NVUE of {TRAY} (https://127.0.0.1:")
    assert caught.value.hint


@pytest.mark.parametrize("read", READS)
def test_configuration_instead_of_state_is_refused(switches, read):
    """`rev=applied` data is what an operator asked for, and says nothing of the fabric."""
    switches.break_by(SwitchTrouble.APPLIED)
    if read == "cluster":
        switches.nvos.enable(TRAY)
    with pytest.raises(NvueShapeError, match="rev=applied"):
        getattr(switches.client(), read)()


def test_a_torn_answer_is_asked_for_once_more_and_then_an_error(switches):
    """Half a document is no document."""
    switches.break_by(SwitchTrouble.TORN)
    with pytest.raises(UnreachableError, match="broke off"):
        switches.client().cluster()
    assert len(switches.nvos.asked) == 2


def test_a_slow_tray_is_given_up_in_time(switches, monkeypatch):
    """It answers after the bound; nobody waits for it twice."""
    monkeypatch.setattr(nvue_client, "ANSWER_S", 0.5)
    monkeypatch.setattr(nvue_client, "CONNECT_S", 0.2)
    switches.break_by(SwitchTrouble.SLOW, value=5)
    began = time.monotonic()
    with pytest.raises(UnreachableError, match="in time"):
        switches.client().cluster()
    assert time.monotonic() - began < 4
    assert len(switches.nvos.asked) == 1


def test_a_wrong_password_is_refused_and_not_shown(switches):
    """The error names the user, never the password."""
    with pytest.raises(NvueRefusedError) as caught:
        switches.client(credentials=Credentials("admin", "hunter2-canary")).apps()
    assert "hunter2" not in f"{caught.value!r} {caught.value}"
    assert "hunter2" not in repr(switches.client(credentials=Credentials("admin", "hunter2-canary")))


def test_a_certificate_of_another_ca_is_refused(switches, tmp_path):
    """And nothing is sent, above all not the password."""
    other = tmp_path / "other.pem"
    Authority.at(other, tmp_path / "other.key")
    with pytest.raises(NvueRefusedError, match="does not verify"):
        switches.client(ca=other).health()
    assert switches.nvos.asked == []


def test_a_missing_ca_is_a_usage_error(switches, tmp_path):
    """There is no falling back to unverified TLS."""
    with pytest.raises(UsageError, match="no CA certificate"):
        switches.client(ca=tmp_path / "none.pem")


def test_a_resource_that_is_not_there_is_told(switches):
    """HTTP 404 of another system is not taken for an empty fabric."""
    https = switches.client().https
    with pytest.raises(UndecidedError, match="no such resource"):
        https.get("/cluster/nothing")


def test_nobody_at_the_address_is_unreachable(switches, ca):
    """A closed port, in words."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UnreachableError, match="does not answer"):
        connect(TRAY, Nvos("127.0.0.1", "nvos", port), LOGIN, ca).cluster()


def test_enabling_the_cluster_is_applied_saved_and_read_back(switches):
    """A revision is made, patched, applied, waited for and saved; the applications take their time after that."""
    client = switches.client(OTHER)
    client.enable_cluster()
    assert switches.nvos.saved(OTHER)
    assert client.cluster().state is ClusterState.ENABLED
    assert client.apps()[0].status == "not ok"
    until = time.monotonic() + 5
    while client.cluster().connection != "up":
        assert time.monotonic() < until
        time.sleep(0.05)
    assert [a.status for a in client.apps()] == ["ok", "ok"]
    assert client.apps()[0].info == "Chassis mapping is missing"
    client.set_chassis_id(1)
    assert client.apps()[0].info == "CONTROL_PLANE_STATE_CONFIGURED"


def test_a_change_is_never_sent_twice(switches):
    """Its answer is lost: whether it was taken is found out by reading, not by sending it again."""
    switches.break_by(SwitchTrouble.TORN)
    with pytest.raises(UnreachableError):
        switches.client().start_app("nmx-controller")
    assert [method for _, method, _ in switches.nvos.asked] == ["POST"]


def test_an_app_that_was_stopped_starts_again(switches):
    """The action is waited for; the application itself needs a while more."""
    client = switches.client()
    client.stop_app("nmx-telemetry")
    assert {app.name: app.reason for app in client.apps()}["nmx-telemetry"] == "stopped by user"
    client.start_app("nmx-telemetry")
    until = time.monotonic() + 5
    while {app.name: app.status for app in client.apps()}["nmx-telemetry"] != "ok":
        assert time.monotonic() < until
        time.sleep(0.05)


def test_an_action_that_the_switch_does_not_have_is_told(switches):
    """A name that is no application never becomes part of a path."""
    with pytest.raises(UsageError, match="no cluster application"):
        switches.client().start_app("../../system")


@contextmanager
def answering(raw: bytes, authority: Authority, tmp_path: Path) -> Iterator[Nvos]:
    """A TLS server that says the same bytes to everybody."""
    import ssl

    pem = tmp_path / "raw.pem"
    pem.write_bytes(authority.issue("raw", "127.0.0.1"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with socket.create_server(("127.0.0.1", 0), backlog=8) as listener:
        listener.settimeout(10)

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                    with context.wrap_socket(plain, server_side=True) as link:
                        link.recv(65536)
                        link.sendall(raw)
                except (OSError, ValueError):
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield Nvos("127.0.0.1", "nvos", listener.getsockname()[1])


def _http(body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b'{"state": NaN}', "not JSON"),
        (b"[]", "not NVUE's"),
        (b"null", "not NVUE's"),
        (b'{"state": ["enabled"]}', "not NVUE's"),
        (b'{"state": "perhaps"}', "cluster state 'perhaps'"),
        (b'{"state": "enabled", "nmxc-conn": {"state": [1]}}', "not NVUE's"),
        (b"{}", "rev=applied"),
        (b'{"state": "enabled"}', "rev=applied"),
        (b'{"state": "' + b"a" * 5_000_000 + b'"}', "did not end within"),
    ],
    ids=lambda v: str(v[:24]),
)
def test_an_answer_of_any_other_shape_is_refused(authority, ca, tmp_path, body, words):
    """Whatever comes, it is an error in words and in bounds."""
    with answering(_http(body), authority[0], tmp_path) as at, pytest.raises(NvueShapeError, match=words):
        connect(TRAY, at, LOGIN, ca).cluster()


@pytest.mark.parametrize(
    ("read", "body", "words"),
    [
        ("apps", b'{"nmx-controller": {"status": {"x": 1}}}', "status"),
        ("apps", b'{"../../x": {"status": "ok"}}', "an entry is named"),
        ("partitions", b'{"1": {"health": "healthy", "num-gpus": "many"}}', "num-gpus"),
        ("partitions", b'{"1": {"health": "healthy", "num-gpus": true}}', "num-gpus"),
        ("ports", b'{"acp1": {"type": "nvl", "link": {"diagnostics": {"x": {"status": ""}}}}}', "no number"),
        ("ports", b'{"eth0": {"type": "eth"}}', "rev=applied"),
        ("ports", b"{" + b",".join(b'"p%d": {}' % n for n in range(2000)) + b"}", "more than 1,024"),
        ("firmware", b'{"ASIC": {"actual-firmware": null}}', "rev=applied"),
    ],
)
def test_a_field_of_another_type_is_named(authority, ca, tmp_path, read, body, words):
    """The error says which field; the value is not repeated at length."""
    with answering(_http(body), authority[0], tmp_path) as at, pytest.raises(NvueShapeError, match=words) as caught:
        getattr(connect(TRAY, at, LOGIN, ca), read)()
    assert len(str(caught.value)) < 600


def test_a_body_cut_by_the_network_is_no_answer(authority, ca, tmp_path):
    """The head promised more than came."""
    raw = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"state": "enabled"'
    with answering(raw, authority[0], tmp_path) as at, pytest.raises(UnreachableError, match="broke off"):
        connect(TRAY, at, LOGIN, ca).cluster()


def test_numbers_as_text_and_either_spelling_are_understood(authority, ca, tmp_path):
    """Releases write `num-gpus` as a number or as text, `nmxc-conn` plain or nested, and spell additional both ways."""
    partition = b'{"1": {"name": "a", "num-gpus": "8", "health": "Healthy", "mcast-limit": "1024"}}'
    with answering(_http(partition), authority[0], tmp_path) as at:
        assert connect(TRAY, at, LOGIN, ca).partitions()[0].gpus == 8
    with answering(_http(b'{"state": "enabled", "nmxc-conn": {"state": "up"}}'), authority[0], tmp_path) as at:
        assert connect(TRAY, at, LOGIN, ca).cluster().connection == "up"
    app = b'{"nmx-controller": {"status": "ok", "additional-info": "Chassis mapping is missing"}}'
    with answering(_http(app), authority[0], tmp_path) as at:
        assert connect(TRAY, at, LOGIN, ca).apps()[0].info == "Chassis mapping is missing"


def test_an_ipv6_address_is_bracketed(ca):
    """As a URL has it."""
    client = connect(TRAY, Nvos("2001:db8::1", "nvos", 8443), LOGIN, ca)
    assert replace(client.https).url == "https://[2001:db8::1]:8443"
