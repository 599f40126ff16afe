"""What the webhook answers to what is no review of a Node: nothing that could be taken for a yes."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import RackproofError
from toolkit.pool.door import TAINT, open_document
from toolkit.pool.door_rule import doormen
from toolkit.pool.node_object import NodeObject
from toolkit.pool.webhook import MAX_REVIEW_BYTES, certificate_for, review, serving

ALLOWED = doormen("rackproof")
NODE = {"metadata": {"name": "gpu-1"}, "spec": {"taints": [{"key": TAINT.key, "effect": TAINT.effect}]}}
GOOD: dict[str, Any] = {
    "uid": "u-1",
    "operation": "CREATE",
    "userInfo": {"username": "system:node:gpu-1"},
    "object": NODE,
    "oldObject": None,
}


def test_a_review_is_answered_by_its_uid() -> None:
    """Allowed, or refused with the rule's words and 403."""
    answer, why = review({"request": GOOD}, ALLOWED)
    assert (answer["response"], why) == ({"uid": "u-1", "allowed": True}, ())
    answer, why = review({"request": GOOD | {"object": {"metadata": {"name": "gpu-1"}}}}, ALLOWED)
    assert answer["response"]["status"]["code"] == 403
    assert not answer["response"]["allowed"]
    assert "a node joins with the taint" in why[0]


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"request": None},
        {"request": GOOD | {"uid": 5}},
        {"request": GOOD | {"object": None}},
        {"request": GOOD | {"userInfo": "root"}},
        {"request": GOOD | {"operation": "DELETE"}},
        {"request": GOOD | {"operation": "UPDATE"}},  # without what was: it could hide a taint that is lifted
        {"request": GOOD | {"oldObject": NODE}},
        {"request": GOOD | {"oldObject": []}},
    ],
)
def test_what_is_no_review_is_not_answered(broken: dict[str, Any]) -> None:
    """The API server then does as its failurePolicy says."""
    with pytest.raises(ValueError, match=r"Review|review|asked about"):
        review(broken, ALLOWED)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[http.client.HTTPSConnection]:
    file = tmp_path / "webhook.pem"
    pem = certificate_for("127.0.0.1", file, datetime.now(UTC))
    context = ssl.create_default_context(cadata=pem.decode())
    with serving(("127.0.0.1", 0), file, ALLOWED, lambda line: None) as (host, port):
        connection = http.client.HTTPSConnection(host, port, context=context, timeout=10)
        yield connection
        connection.close()


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[" * 100_000, 400), (b"[]", 400), (json.dumps({"request": GOOD}).encode(), 200)],
)
def test_bytes_that_are_no_review_are_a_bad_request(
    served: http.client.HTTPSConnection, body: bytes, status: int
) -> None:
    """Over TLS that verifies; nesting without end included."""
    served.request("POST", "/door", body)
    assert served.getresponse().status == status


def test_a_flood_is_not_read(served: http.client.HTTPSConnection) -> None:
    """A length over the bound, or none, is refused before a byte of it is kept."""
    for length in (str(MAX_REVIEW_BYTES + 1), "-1", "9" * 30, "x"):
        served.putrequest("POST", "/door")
        served.putheader("Content-Length", length)
        served.endheaders()
        assert served.getresponse().status == 413
        served.close()


def test_a_client_that_says_nothing_holds_up_nobody(served: http.client.HTTPSConnection) -> None:
    """The handshake is in a thread of its own."""
    with socket.create_connection((served.host, served.port)):
        served.request("POST", "/door", json.dumps({"request": GOOD}))
        assert served.getresponse().status == 200


def test_labels_of_others_are_never_written() -> None:
    """Whoever applies a label owns it, and takes it off again: a caller that asks for one is a defect."""
    now = datetime.now(UTC)
    with pytest.raises(RackproofError, match=r"labels of others .* nvidia.com/gpu.clique"):
        open_document(NodeObject("gpu-1"), "ab" * 32, now, {"nvidia.com/gpu.clique": "x"}, now)
