"""Names out of what leaves the site; what only looks like one stays."""

import time

import pytest

from toolkit.rma.form import Policy, Treatment
from toolkit.rma.redaction import REMOVED, Redactor


def redactor(**more):
    """With two hosts and a user of the site."""
    return Redactor(Policy(), hosts=("node1", "node10", "leaf1"), users=("ops", "root"), **more)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("node1 to node10, node1.rack.example again", "host-1 to host-2, host-1 again"),
        ("rack-node1-3.again", "rack-host-1-3.again"),
        ("node1:mlx5_0 - leaf1:7", "host-1:mlx5_0 - host-2:7"),
        ("from 10.0.0.1 and 10.0.0.2 and 10.0.0.1", "from address-1 and address-2 and address-1"),
        ("bootstrap eth0:10.66.0.11<0>", "bootstrap eth0:address-1<0>"),
        ("[fe80::1ff:fe23:4567:890a]:22", "[address-1]:22"),
        ("52:54:00:66:00:01 52-54-00-66-00-02", "mac-1 mac-2"),
        ("ops@jump /home/erin/x USER=frank", "user-1@host-1 /home/user-2/x USER=user-3"),
        ("root@node1", "root@host-1"),
        ("Nov 23 15:00:01 box7 kernel: hello", "Nov 23 15:00:01 host-1 kernel: hello"),
        ("box8:123:456 [0] NCCL INFO x", "host-1:123:456 [0] NCCL INFO x"),
        ('{"HOSTNAME": "box9"}', '{"HOSTNAME": "host-1"}'),
        ("password=hunter2; x", f"password={REMOVED}; x"),
        ('"api_key": "abc123"', f'"api_key": "{REMOVED}"'),
        ("https://u:p@h.example/", f"https://{REMOVED}@h.example/"),
        ("-----BEGIN RSA PRIVATE KEY-----\nAAAA", REMOVED),
    ],
)
def test_a_name_gets_its_stand_in(text, hidden):
    """The same name the same one, counted."""
    worker = redactor()
    assert worker.text(text) == hidden
    assert worker.counts.total() > 0
    assert worker.text(hidden) == hidden, "what is hidden already stays as it is"


@pytest.mark.parametrize(
    "text",
    [
        "580.95.05", "96.00.99.00.01", "G520.0200.00.05", "28.46.3048", "0000:1b:00.0", "00000000:61:00.0",
        "0x0200de0000000103", "15:04:22", "2026-11-23T15:04:22.123456+00:00",
        "GPU-5c0b9a0e-aaaa-bbbb-cccc-0123456789ab", "std::vector", "nodes 1", "node1x", "16500000203",
        "physAddr 0xa1b2c000", "300.1.2.3", "token bucket",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_name_stays(text):
    """Versions, PCI addresses, GUIDs, times, serials."""
    worker = redactor()
    assert worker.text(text) == text
    assert worker.counts.total() == 0


def test_what_a_vendor_needs_is_kept_though_it_looks_like_an_address():
    """A firmware of four small numbers, named as kept."""
    assert redactor(kept=frozenset({"1.2.3.4"})).text("fw 1.2.3.4, host 1.2.3.5") == "fw 1.2.3.4, host address-1"


def test_the_policy_decides_but_for_secrets():
    """All kept: names stay, a password does not."""
    keep = Policy(*(Treatment.KEEP,) * 4)
    text = "node1 10.0.0.1 52:54:00:66:00:01 ops@jump"
    worker = Redactor(keep, hosts=("node1",), users=("ops",))
    assert worker.text(text) == text
    assert worker.text("token: abcdef") == f"token: {REMOVED}"


@pytest.mark.parametrize("piece", ["a", "1", "0:", "1.", "-", "password", "x@", "-----BEGIN "])
def test_hostile_text_costs_no_more_than_its_length(piece):
    """Four times the text is at most about four times the work."""

    def seconds(size):
        began = time.process_time()
        redactor().text(piece * (size // len(piece)))
        return time.process_time() - began

    once = min(seconds(1 << 14) for _ in range(2))
    assert seconds(1 << 16) < 12 * once + 0.05
