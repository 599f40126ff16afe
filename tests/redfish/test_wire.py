"""Trust, sessions and refusals: what stands between us and a BMC before anything is asked of it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.redfish.units import CREDENTIALS, Bench, bench
from toolkit.errors import InputError, UndecidedError
from toolkit.rack.loading import load_rack, topology_digest
from toolkit.rack.model import Bmc
from toolkit.redfish import BmcAnswerError, BmcRefusedError, Credentials, SushyBmc, Wire
from toolkit.redfish.sessions import Login, dialogue, end_abandoned
from toolkit.settings import load
from toolkit.virtual.faults import Fault, FaultKind

ROOT = "/redfish/v1"


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path, ("tray01",)) as made:
        yield made


def address(rack: Bench) -> Bmc:
    found = rack.rack.unit("tray01").bmc
    assert found is not None
    return found


def fingerprint(bmc: Bmc) -> str:
    pem = ssl.get_server_certificate((bmc.address, bmc.port))
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


# Pins


def test_a_pinned_certificate_is_believed_without_a_ca(rack: Bench, tmp_path: Path) -> None:
    """By both clients; and no CA file is there that could have vouched for it."""
    bmc = replace(address(rack), certificate_sha256=fingerprint(address(rack)))
    nowhere = tmp_path / "none.pem"
    assert Wire(bmc, CREDENTIALS, nowhere).get(f"{ROOT}/Systems")["Members@odata.count"] == 2
    assert SushyBmc(bmc, CREDENTIALS, nowhere).identity().serial == "EX182102500001"


def test_another_certificate_than_the_pinned_one_is_refused_before_the_password_is_sent(rack: Bench) -> None:
    """Also where the site's CA signed it: a pin is a pin. The BMC counts no request."""
    bmc = replace(address(rack), certificate_sha256="00" * 32)
    before = rack.bmcs["tray01"]._requests
    with pytest.raises(BmcRefusedError, match="not the one that the rack file pins"):
        Wire(bmc, CREDENTIALS, rack.ca).get(f"{ROOT}/Systems")
    with pytest.raises(BmcRefusedError, match="not the one that the rack file pins"):
        SushyBmc(bmc, CREDENTIALS, rack.ca).power()
    assert rack.bmcs["tray01"]._requests == before


def test_a_pin_is_written_as_openssl_prints_it_and_is_no_other_topology(tmp_path: Path) -> None:
    """Colons and capitals are taken; what is no sha256 is refused with its line; the rack's digest stays."""
    inventory = load({}).inventory
    text = (inventory / "racks" / "demo-small.yml").read_text()
    colons = ":".join(["AB"] * 32)
    file = tmp_path / "pinned.yml"
    pinned = text.replace(
        "10.67.0.11, credentials: bmc}", f'10.67.0.11, credentials: bmc, certificate_sha256: "{colons}"}}'
    )
    file.write_text(pinned)
    rack = load_rack(str(file), inventory)
    assert rack.nodes[0].bmc is not None and rack.nodes[0].bmc.certificate_sha256 == "ab" * 32
    assert topology_digest(rack) == load_rack("demo-small", inventory).digest
    file.write_text(pinned.replace(colons, "AB:CD"))
    with pytest.raises(InputError, match="certificate_sha256"):
        load_rack(str(file), inventory)


# Sessions


def test_a_dialogue_is_one_session_and_ends_with_it(rack: Bench) -> None:
    """One session on the BMC while it lasts, none after; its file goes with it."""
    wire = rack.wire(rack.rack.unit("tray01"))
    with dialogue(wire, rack.sessions) as login:
        assert login is Login.SESSION
        assert len(rack.bmcs["tray01"].sessions()) == 1
        wire.get(f"{ROOT}/Systems")
        (file,) = rack.sessions.iterdir()
        assert file.stat().st_mode & 0o077 == 0
        assert CREDENTIALS.password not in file.read_text()
    assert rack.bmcs["tray01"].sessions() == ()
    assert list(rack.sessions.iterdir()) == []


def test_a_session_whose_owner_was_killed_is_ended_by_the_next(rack: Bench) -> None:
    """SIGKILL in the middle of a dialogue: the session stays at the BMC, and the next dialogue ends it first."""
    where = address(rack)
    script = (
        "import os,sys\n"
        "from pathlib import Path\n"
        "from toolkit.rack.model import Bmc\n"
        "from toolkit.redfish import Credentials, Wire\n"
        "from toolkit.redfish.sessions import dialogue\n"
        "login=Credentials('admin', sys.stdin.read())\n"
        f"with dialogue(Wire(Bmc('127.0.0.1','bmc',{where.port}),login,Path({str(rack.ca)!r})),"
        f"Path({str(rack.sessions)!r})):\n"
        f"    os.kill(os.getpid(),{int(signal.SIGKILL)})\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script], input=CREDENTIALS.password, text=True, timeout=60, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    left = rack.bmcs["tray01"].sessions()
    assert len(left) == 1
    with dialogue(rack.wire(rack.rack.unit("tray01")), rack.sessions):
        assert set(rack.bmcs["tray01"].sessions()) & set(left) == set()
    assert rack.bmcs["tray01"].sessions() == ()


def test_a_session_of_one_who_lives_is_left_alone(rack: Bench) -> None:
    """Two dialogues side by side with one BMC: neither ends the other's."""
    unit = rack.rack.unit("tray01")
    first, second = rack.wire(unit), rack.wire(unit)
    with dialogue(first, rack.sessions), dialogue(second, rack.sessions):
        assert len(rack.bmcs["tray01"].sessions()) == 2
        assert end_abandoned(second, rack.sessions) == 0
        first.get(f"{ROOT}/Systems")


def test_a_bmc_without_a_session_left_is_asked_by_password(rack: Bench) -> None:
    """503 to the login: said so, and the dialogue goes on."""
    rack.faults["tray01"].append(Fault(FaultKind.BMC_SESSIONS_FULL, "tray01"))
    wire = rack.wire(rack.rack.unit("tray01"))
    with dialogue(wire, rack.sessions) as login:
        assert login is Login.SESSIONS_FULL
        assert wire.get(f"{ROOT}/Systems")["Members"]
    assert list(rack.sessions.iterdir()) == []


def test_a_session_that_ends_in_the_middle_is_no_wrong_password(rack: Bench) -> None:
    """The BMC's web server restarted and knows the token no more: the password opens it again, once."""
    wire = rack.wire(rack.rack.unit("tray01"))
    with dialogue(wire, rack.sessions):
        rack.bmcs["tray01"]._sessions.clear()
        assert wire.get(f"{ROOT}/Systems")["Members"]


def test_a_refusal_in_the_middle_is_asked_once_more_and_a_wrong_password_never(rack: Bench) -> None:
    """A login that was good a moment ago is tried again; one that never was, is not: accounts lock."""
    unit = rack.rack.unit("tray01")
    rack.faults["tray01"].append(Fault(FaultKind.BMC_UNAUTHORISED, "tray01", value=3))
    wire = rack.wire(unit)
    for _ in range(5):
        assert wire.get(f"{ROOT}/Systems")["Members"]
    rack.faults["tray01"].clear()
    before = rack.bmcs["tray01"]._requests
    wrong = Wire(address(rack), Credentials("admin", "hunter2-canary"), rack.ca)
    with pytest.raises(BmcRefusedError) as refused:
        wrong.get(f"{ROOT}/Systems")
    assert rack.bmcs["tray01"]._requests == before + 1
    assert "canary" not in f"{refused.value} {refused.value!r}"


# Answers


@pytest.mark.parametrize(
    "path", ["https://elsewhere.example/redfish/v1", "/etc/passwd", "/redfish/v10", "//x/redfish/v1"]
)
def test_no_request_leaves_the_services_own_paths(rack: Bench, path: str) -> None:
    """Whatever an @odata.id says, our password goes to this BMC alone."""
    before = rack.bmcs["tray01"]._requests
    with pytest.raises(UndecidedError, match="another place"):
        rack.wire(rack.rack.unit("tray01")).get(path)
    assert rack.bmcs["tray01"]._requests == before


def test_an_error_answer_is_told_in_the_bmcs_words_and_bounded(rack: Bench) -> None:
    """Status and first message; a 404 is told apart from the rest."""
    wire = rack.wire(rack.rack.unit("tray01"))
    assert wire.get_or_none(f"{ROOT}/Nothing") is None
    with pytest.raises(BmcAnswerError, match=r"HTTP 400: .*Explode.* is not supported") as refused:
        wire.post(f"{ROOT}/Systems/System_0/Actions/ComputerSystem.Reset", {"ResetType": "Explode"}, "asking")
    assert refused.value.status == 400


def test_the_password_is_in_no_file_and_no_repr(rack: Bench) -> None:
    """Neither the client's own words nor what it leaves on disk."""
    wire = rack.wire(rack.rack.unit("tray01"))
    with dialogue(wire, rack.sessions):
        told = f"{wire.credentials!r} {vars(wire)!r}"
        files = "".join(p.read_text() for p in rack.sessions.rglob("*") if p.is_file())
    assert CREDENTIALS.password not in told + files + json.dumps(dict(os.environ))
