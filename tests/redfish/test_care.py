"""BIOS, virtual media, event log, factory logins and password rotation of one unit's BMC."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from rehearsal import now

from tests.redfish.units import CREDENTIALS, Bench, bench
from toolkit.errors import UndecidedError, UsageError
from toolkit.judge.verdict import Answer
from toolkit.ledger import Ledger
from toolkit.rack.bmc_policy import BiosSetting, BmcPolicy
from toolkit.redfish import BmcRefusedError, Credentials, Wire, load_credentials
from toolkit.redfish.bios import BiosState
from toolkit.redfish.event_log import harvest
from toolkit.redfish.media import cd_drive, insert
from toolkit.redfish.rotation import LENGTH, Keeper, Rotated, make_password, rotate
from toolkit.stages.bmc_care import (
    boot_from_image,
    check_bios,
    check_factory_logins,
    eject_image,
    keep_log,
    look_at,
    stage_bios,
)
from toolkit.virtual.chassis import Button
from toolkit.virtual.faults import Fault, FaultKind

ISO = "http://10.0.0.1/node.iso"


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path, ("tray01",)) as made:
        wanted = (BiosSetting("SriovSupport", "Enabled", "test"), BiosSetting("Ipv4Http", "Enabled", "test"))
        made.rack = replace(made.rack, profile=replace(made.rack.profile, bmc=BmcPolicy(bios=wanted)))
        attributes = {"SriovSupport": "Enabled", "Ipv4Http": "Disabled", "Baud": 115200, "Spcr": True}
        made.bmcs["tray01"].bios._now = dict(attributes)
        yield made


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", tmp_path / "artifacts", "test", now) as opened:
        yield opened


def wire(rack: Bench) -> Wire:
    return rack.wire(rack.rack.unit("tray01"))


def restart(rack: Bench) -> None:
    rack.bmcs["tray01"].reset({"ResetType": Button.FORCE_RESTART.value})


def want(rack: Bench, *settings: tuple[str, str]) -> None:
    bios = tuple(BiosSetting(name, value, "test") for name, value in settings)
    rack.rack = replace(rack.rack, profile=replace(rack.rack.profile, bmc=BmcPolicy(bios=bios)))


# BIOS


def test_bios_attributes_are_staged_pending_and_then_in_force(rack: Bench, ledger: Ledger) -> None:
    """FAIL, then INCONCLUSIVE while they wait, then PASS after the restart: read back each time."""
    unit = rack.rack.unit("tray01")
    report = check_bios(rack.rack, unit, wire(rack))
    assert report.answer is Answer.FAIL
    assert {a.name: a.state for a in report.attributes} == {
        "SriovSupport": BiosState.AS_WANTED, "Ipv4Http": BiosState.DIFFERS
    }  # fmt: skip
    assert stage_bios(rack.rack, unit, wire(rack), ledger).answer is Answer.INCONCLUSIVE
    assert check_bios(rack.rack, unit, wire(rack)).attributes[1].state is BiosState.PENDING
    restart(rack)
    assert check_bios(rack.rack, unit, wire(rack)).answer is Answer.PASS


def test_a_bios_attribute_that_does_not_stick_is_found_after_the_restart(rack: Bench, ledger: Ledger) -> None:
    """Accepted, pending, and forgotten by the firmware: FAIL again, not PASS."""
    unit = rack.rack.unit("tray01")
    rack.faults["tray01"].append(Fault(FaultKind.BIOS_NOT_STICKY, "tray01"))
    stage_bios(rack.rack, unit, wire(rack), ledger)
    restart(rack)
    assert check_bios(rack.rack, unit, wire(rack)).answer is Answer.FAIL


def test_an_attribute_that_this_bios_has_not_is_refused_and_nothing_is_staged(rack: Bench, ledger: Ledger) -> None:
    """A misspelt name, or another BIOS version: told by name, and its neighbours are not staged either."""
    want(rack, ("Ipv4Http", "Enabled"), ("NoSuchThing", "1"))
    unit = rack.rack.unit("tray01")
    assert check_bios(rack.rack, unit, wire(rack)).attributes[1].state is BiosState.NOT_THERE
    with pytest.raises(UsageError, match="NoSuchThing"):
        stage_bios(rack.rack, unit, wire(rack), ledger)
    assert rack.bmcs["tray01"].bios._staged == {}


def test_numbers_and_flags_are_sent_as_what_they_are(rack: Bench, ledger: Ledger) -> None:
    """A BMC refuses a number in quotes: the type is the attribute's own."""
    want(rack, ("Baud", "9600"), ("Spcr", "false"))
    stage_bios(rack.rack, rack.rack.unit("tray01"), wire(rack), ledger)
    assert rack.bmcs["tray01"].bios._staged == {"Baud": 9600, "Spcr": False}


# Virtual media


def test_a_node_boots_once_from_an_image_and_gives_it_back(rack: Bench, ledger: Ledger) -> None:
    """Inserted, override Cd Once, switched on; then ejected and the override cleared."""
    unit = rack.rack.unit("tray01")
    shown = boot_from_image(rack.rack, unit, rack, ledger, ISO)
    assert str(shown) == "Cd Once"
    assert rack.tray("tray01").pressed == [Button.ON]
    assert cd_drive(wire(rack)).image == ISO
    eject_image(rack.rack, unit, rack, ledger)
    assert not cd_drive(wire(rack)).inserted
    assert rack.bmcs["tray01"].values()["boot_enabled"] == "Disabled"


def test_an_override_that_is_ignored_starts_nothing_from_the_image(rack: Bench, ledger: Ledger) -> None:
    """The BMC takes it and forgets it: no button is pressed, and the image is taken out again."""
    rack.faults["tray01"].append(Fault(FaultKind.BMC_IGNORES_OVERRIDE, "tray01"))
    with pytest.raises(UndecidedError, match="accepted to boot from the image"):
        boot_from_image(rack.rack, rack.rack.unit("tray01"), rack, ledger, ISO)
    assert rack.tray("tray01").pressed == []
    assert not cd_drive(wire(rack)).inserted


def test_an_image_of_somebody_else_is_not_thrown_out(rack: Bench) -> None:
    """Another image is in the drive: refused by name; a login in an address is no address."""
    rack.bmcs["tray01"].media.image = "http://10.0.0.9/theirs.iso"
    with pytest.raises(UsageError, match="theirs"):
        insert(wire(rack), ISO)
    assert rack.bmcs["tray01"].media.image == "http://10.0.0.9/theirs.iso"
    with pytest.raises(UsageError, match="no address"):
        insert(wire(rack), "http://user:secret@10.0.0.1/x.iso")


# Event log


def test_the_log_is_kept_as_an_artifact_each_entry_once(rack: Bench, ledger: Ledger) -> None:
    """Bounded, by severity, newest kept; the artifact holds what the BMC said, made printable."""
    tray = rack.tray("tray01")
    tray.record("GPU 3 \x1b[2J fell off the bus", "Critical")
    for number in range(40):
        tray.record(f"fan {number}", "Warning")
    unit = rack.rack.unit("tray01")
    kept = keep_log(rack.rack, unit, wire(rack), ledger)
    assert dict(kept.harvest.severities) == {"Critical": 1, "Warning": 40}
    lines = [json.loads(line) for line in ledger.artifacts.get(kept.artifact).splitlines()]
    assert len(lines) == 41
    assert all(entry["message"].isprintable() for entry in lines)
    assert keep_log(rack.rack, unit, wire(rack), ledger).artifact == kept.artifact
    few = harvest(wire(rack), most=5)
    assert (len(few.entries), few.cut, few.entries[-1].message) == (5, True, "fan 39")


# Factory logins and the look at a unit


def test_a_factory_login_that_still_opens_the_bmc_is_found_and_not_quoted(rack: Bench) -> None:
    """Only what its maker ships is tried, each once; the finding names user and source, never the password."""
    where = rack.rack.unit("tray01").bmc
    assert where is not None
    tried: list[str] = []

    def wire_as(login: Credentials) -> Wire:
        tried.append(login.username)
        return Wire(where, login, rack.ca)

    unit = rack.rack.unit("tray01")
    rack.bmcs["tray01"].tree._resources["/redfish/v1"]["Vendor"] = "NVIDIA"
    try:
        assert check_factory_logins(unit, wire_as) == ()
        rack.faults["tray01"].append(Fault(FaultKind.DEFAULT_PASSWORD, "tray01"))
        tried.clear()
        (found,) = check_factory_logins(unit, wire_as)
    finally:
        rack.bmcs["tray01"].tree._resources["/redfish/v1"]["Vendor"] = "rackproof"
    assert (found.username, tried) == ("root", ["", "root"])
    assert "docs.nvidia.com" in found.source
    assert "0penBmc" not in repr(found)
    assert look_at(unit, rack, None).factory_logins == ()


def test_a_look_at_a_unit_names_what_is_not_as_planned(rack: Bench) -> None:
    """Its shape by its chassis, its quirks with it; another serial than the plan's is trouble."""
    seen = look_at(rack.rack.unit("tray01"), rack, None)
    assert (seen.shape, seen.power, seen.override, seen.trouble) == ("gb200_compute_tray", "Off", "None Disabled", ())
    assert "ac_cycle_activates" in seen.quirks
    other = replace(rack.rack.unit("tray01"), serial="OTHER")
    assert "the plan says OTHER" in str(look_at(other, rack, None).trouble)


# Rotation


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    file = tmp_path / "bmc.yml"
    shared = f"bmc: {{username: admin, password: {CREDENTIALS.password}}}\n"
    file.write_text(f"# the site's BMCs\n{shared}other: {{username: a, password: b}}\n")
    file.chmod(0o600)
    return Keeper(file, "bmc", "127.0.0.1")


def opener(rack: Bench) -> Callable[[Credentials], Wire]:
    where = rack.rack.unit("tray01").bmc
    assert where is not None
    return lambda login: Wire(where, login, rack.ca)


def test_a_password_is_changed_and_the_file_says_so(rack: Bench, keeper: Keeper) -> None:
    """The BMC's own entry; the shared one, the others and the comment stay; mode 0600."""
    assert rotate(keeper, opener(rack), make_password) is Rotated.CHANGED
    told = load_credentials(keeper.path, "bmc", at="127.0.0.1")
    assert rack.bmcs["tray01"].login.password == told.password != CREDENTIALS.password
    assert told.next_password == ""
    text = keeper.path.read_text()
    assert text.startswith("# the site's BMCs\n")
    assert yaml.safe_load(text)["bmc"]["password"] == CREDENTIALS.password
    assert load_credentials(keeper.path, "bmc", at="127.0.0.2").password == CREDENTIALS.password
    assert keeper.path.stat().st_mode & 0o777 == 0o600
    assert rotate(keeper, opener(rack), make_password) is Rotated.CHANGED


@pytest.mark.parametrize("step", range(1, 10))
def test_killed_at_any_request_nobody_is_locked_out(rack: Bench, keeper: Keeper, step: int) -> None:
    """At each request to the BMC in turn, before it is sent or after: the file opens the BMC, and again finishes it."""
    old = CREDENTIALS.password

    class KilledError(BaseException):
        """What ends a process ends this."""

    class Mortal(Wire):
        """Dies at the given request: before it is sent, or when it was answered."""

        sent = 0
        after = False

        def _send(self, *args, **options):
            Mortal.sent += 1
            if Mortal.sent == step and not Mortal.after:
                raise KilledError
            answer = super()._send(*args, **options)
            if Mortal.sent == step:
                raise KilledError
            return answer

    where = rack.rack.unit("tray01").bmc
    for Mortal.after in (False, True):
        Mortal.sent = 0
        with suppress(KilledError):
            rotate(keeper, lambda login: Mortal(where, login, rack.ca), make_password)
        told = load_credentials(keeper.path, "bmc", at="127.0.0.1")
        assert rack.bmcs["tray01"].login.password in {told.password, told.next_password}
        rotate(keeper, opener(rack), make_password)
        told = load_credentials(keeper.path, "bmc", at="127.0.0.1")
        assert (rack.bmcs["tray01"].login.password, told.next_password) == (told.password, "")
        assert told.password != old


def test_a_password_that_the_bmc_does_not_take_is_forgotten(rack: Bench, keeper: Keeper) -> None:
    """Its policy refuses it: the old one stands alone on record, and the next try is another one."""
    with pytest.raises(UndecidedError, match="13 to 20 characters"):
        rotate(keeper, opener(rack), lambda: "short")
    told = load_credentials(keeper.path, "bmc", at="127.0.0.1")
    assert (told.password, told.next_password) == (CREDENTIALS.password, "")
    assert rotate(keeper, opener(rack), make_password) is Rotated.CHANGED


def test_who_meets_a_cut_off_change_is_told_how_to_end_it(rack: Bench) -> None:
    """The BMC has the new password, the file still uses the old: the refusal names the command."""
    where = rack.rack.unit("tray01").bmc
    assert where is not None
    with pytest.raises(BmcRefusedError) as refused:
        Wire(where, Credentials("admin", "old", "new and longer"), rack.ca).get("/redfish/v1/Systems")
    assert "rotate-password" in refused.value.hint


def test_two_refused_passwords_are_told_and_both_stay_on_record(rack: Bench, keeper: Keeper) -> None:
    """Somebody changed it by hand: nothing is written over, no password is in the words."""
    rack.bmcs["tray01"].account.login = replace(rack.bmcs["tray01"].login, password="by hand, and long")
    before = keeper.path.read_text()
    with pytest.raises(BmcRefusedError, match="every password on record") as refused:
        rotate(keeper, opener(rack), make_password)
    assert keeper.path.read_text() == before
    assert CREDENTIALS.password not in str(refused.value)


SHARED = f"{{username: admin, password: {CREDENTIALS.password}}}"
OWN = '"bmc@127.0.0.1"'


@pytest.mark.parametrize(
    "text",
    [
        f"{{bmc: {SHARED}, other: {{username: a, password: b}}}}\n",  # one flow mapping: no line can be added
        f"{OWN}:\n  username: admin\n  password: {CREDENTIALS.password}\nother: {{username: a, password: b}}\n",
        f"bmc: {SHARED}\n{OWN}: {{username: admin,\n  password: {CREDENTIALS.password}}}\n",
        f"? {OWN}\n: {SHARED}\nother: {{username: a, password: b}}\n",
        f"bmc: {SHARED}\nother: {{username: a, password: b}}\n...\n",  # what follows is another document
    ],
    ids=["flow", "multi-line", "broken-flow", "explicit-key", "document-end"],
)
def test_a_file_that_cannot_take_the_entry_is_left_as_it_was_before_the_bmc_is_asked(
    rack: Bench, keeper: Keeper, text: str
) -> None:
    """UsageError that says how to write it; not a byte changed, the old password on the BMC, and none in the words."""
    keeper.path.write_text(text)
    asked: list[str] = []

    def new_password() -> str:
        asked.append(make_password())
        return asked[-1]

    with pytest.raises(UsageError, match="cannot be written without touching others") as refused:
        rotate(keeper, opener(rack), new_password)
    assert keeper.path.read_text() == text
    assert rack.bmcs["tray01"].login.password == CREDENTIALS.password
    assert "on a line of its own" in refused.value.hint
    assert not any(word in f"{refused.value} {refused.value.hint}" for word in (CREDENTIALS.password, *asked))


def test_a_file_that_was_rewritten_by_hand_meanwhile_still_has_both_passwords(rack: Bench, keeper: Keeper) -> None:
    """Folded by an editor after the BMC took the new one: the end is refused, nothing is lost, and it goes on later."""
    wire_as = opener(rack)

    def folding(login: Credentials) -> Wire:
        if login.password != CREDENTIALS.password:  # the proof of the new one, which comes after the change
            document = yaml.safe_load(keeper.path.read_text())
            keeper.path.write_text(yaml.safe_dump(document, default_flow_style=True))
        return wire_as(login)

    with pytest.raises(UsageError, match="cannot be written"):
        rotate(keeper, folding, make_password)
    told = load_credentials(keeper.path, "bmc", at="127.0.0.1")
    assert rack.bmcs["tray01"].login.password == told.next_password
    document = yaml.safe_load(keeper.path.read_text())
    keeper.path.write_text("".join(f"{json.dumps(name)}: {json.dumps(entry)}\n" for name, entry in document.items()))
    assert rotate(keeper, wire_as, make_password) is Rotated.FINISHED
    assert load_credentials(keeper.path, "bmc", at="127.0.0.1").password == rack.bmcs["tray01"].login.password


def test_made_passwords_fit_the_strictest_bmc_that_is_known() -> None:
    """20 characters, four classes, few consecutive pairs, never twice the same."""
    made = {make_password() for _ in range(200)}
    assert len(made) == 200
    for password in made:
        assert len(password) == LENGTH
        assert any(c.isupper() for c in password) and any(c.islower() for c in password)
        assert any(c.isdigit() for c in password) and any(not c.isalnum() for c in password)
        assert sum(abs(ord(a) - ord(b)) == 1 for a, b in pairwise(password)) <= 4
