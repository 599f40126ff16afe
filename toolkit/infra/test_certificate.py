"""Certificate: signed by a trusted key, in force, and of the nodes as they are now, serial by serial."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from toolkit.certificate.drifted import drifted, drifted_design
from toolkit.certificate.fingerprint import NodeFacts
from toolkit.certificate.reading import Verified
from toolkit.certificate.refusal import CertificateRefusedError, Refusal
from toolkit.certificate.rotation import installed_trust
from toolkit.certificate.trust_file import load_trust
from toolkit.certificate.verify import read_envelope, verify
from toolkit.infra import words
from toolkit.infra.questions import GOOD, Answered, Plan, Question, asks, of_nodes, of_rack
from toolkit.infra.readings import Readings, now
from toolkit.infra.targets import Target
from toolkit.rack.model import Rack

BOARD = frozenset({"bios", "bmc"})  # firmware by the BMC's word: see `toolkit.stages.identity`


def verified(plan: Plan, rack: Rack) -> Verified:
    """The certificate, verified now. CertificateRefusedError, or UsageError where there is none."""
    file = plan.certificate or plan.settings.certificate(rack.name)
    trust = load_trust(plan.trust, now()) if plan.trust else installed_trust(plan.settings.keys, now())
    certificate = verify(read_envelope(file), trust, now())
    if certificate.rack != rack.name:
        raise CertificateRefusedError(Refusal.OTHER_RACK, f"{file} is of {certificate.rack}, not of {rack.name}")
    return certificate


def in_force(plan: Plan, rack: Rack) -> Iterator[Question]:
    """Of the certificate itself: no node is asked."""

    def ask(_: Readings) -> Answered:
        try:
            verified(plan, rack)
        except CertificateRefusedError as refused:
            what = refused.message.removeprefix(f"{refused.refusal}: ")
            return words.failed(refused.refusal, what, refused.hint)
        return GOOD

    yield Question(None, "", ask)


def _of_certificate(plan: Plan, rack: Rack, then: Callable[[Verified], Answered]) -> Answered:
    """What a good certificate says of a node. A refused one says nothing, and `test_in_force` fails for it."""
    try:
        certificate = verified(plan, rack)
    except CertificateRefusedError as refused:
        what = f"the certificate is refused, so it says nothing of a node: {refused.message}"
        return words.inconclusive("CERTIFICATE_REFUSED", what, f"rackproof bringup {rack.name}")
    return then(certificate)


def naming(plan: Plan, rack: Rack, target: Target) -> Iterator[Question]:
    """Whether the certificate is the node's too."""
    yield Question(target, "", lambda _: _of_certificate(plan, rack, lambda c: _named(c, rack, target)))


def _named(certificate: Verified, rack: Rack, target: Target) -> Answered:
    name, next_ = f"certificate {certificate.digest[:12]}", f"rackproof why {target.name}"
    gone = dict(certificate.revoked).get(target.name)
    if gone is not None:
        return words.failed("CERTIFICATE_REVOKED_FOR_NODE", f"{name} is revoked for {target.name}: {gone}", next_)
    if certificate.fingerprint.node(target.name) is None:
        why = dict(certificate.left_out).get(target.name, "it is not one of its nodes")
        return words.failed("CERTIFICATE_LEAVES_OUT", f"{name} does not name {target.name}: {why}", next_)
    changes = drifted_design(certificate.fingerprint, rack)
    if changes:
        what = f"{name} is of another version of the rack file than the one here: {changes[0]}"
        others = [f"also:   {change}" for change in changes[1 : 1 + words.SHOWN]]
        return words.failed("CERTIFICATE_OF_ANOTHER_PLAN", what, f"rackproof bringup {rack.name}", *others)
    return GOOD


def facts(plan: Plan, rack: Rack, target: Target) -> Iterator[Question]:
    """Serials of tray, GPUs and HCAs, driver, firmware of GPUs and HCAs: all but what only the BMC says."""

    def ask(readings: Readings) -> Answered:
        def compared(certificate: Verified) -> Answered:
            return _compared(certificate, target, readings.identity(target), lambda c: c not in BOARD)

        return _of_certificate(plan, rack, compared)

    yield Question(target, "", ask)


def board(plan: Plan, rack: Rack, target: Target) -> Iterator[Question]:
    """BIOS and BMC, asked of the BMC."""
    unit = target.asked_as
    login = plan.settings.secrets(rack.site) / "bmc.yml"
    skip = "" if unit.bmc else f"{target.name} has no BMC in the rack file: it is rented"
    if not skip and not login.exists():
        skip = f"this pipeline has no login of the BMCs: {login}"

    def ask(readings: Readings) -> Answered:
        def compared(certificate: Verified) -> Answered:
            then = certificate.fingerprint.node(target.name)
            seen = readings.board_firmware(unit)
            return _compared(certificate, target, replace(then, firmware=seen) if then else None, BOARD.__contains__)

        return _of_certificate(plan, rack, compared)

    yield Question(target, "", ask, skip)


def _compared(certificate: Verified, target: Target, seen: NodeFacts | None, of: Callable[[str], bool]) -> Answered:
    """What is no longer as certified, firmware by the components of `of` alone."""
    then = certificate.fingerprint.node(target.name)
    if then is None or seen is None:
        pytest.skip(f"the certificate does not name {target.name}: test_names_the_node says why")
    changes = drifted(replace(then, firmware=tuple(f for f in then.firmware if of(f[0]))), seen)
    unread = [change for change in changes if change.unread]
    first = next((change for change in changes if not change.unread), None)
    name = f"certificate {certificate.digest[:12]}"
    if first is None and unread:
        what = f"{target.name} may or may not be as {name} certified it: {unread[0]}"
        return words.inconclusive("FACT_UNREAD", what, f"rackproof facts {target.name}")
    if first is None:
        return GOOD
    others = [f"also:   {change}" for change in changes if change is not first][: words.SHOWN]
    what = f"{target.name} is not as {name} certified it: {first}"
    next_ = f"rackproof recert plan {certificate.rack} --after 'swap {target.name}' shows what has to be measured again"
    return words.failed("CERTIFICATE_DRIFTED", what, next_, *others)


@pytest.mark.smoke
@asks(of_rack(in_force))
def test_in_force(answer: Answered) -> None:
    """The rack's certificate verifies and has not expired."""
    answer.holds()


@pytest.mark.smoke
@asks(of_nodes(naming))
def test_names_the_node(answer: Answered) -> None:
    """It names the node, by this rack file, and is not revoked for it."""
    answer.holds()


@asks(of_nodes(facts))
def test_facts(answer: Answered) -> None:
    """Every serial, driver and firmware version that it binds is the node's now."""
    answer.holds()


@asks(of_nodes(board))
def test_board_firmware(answer: Answered) -> None:
    """BIOS and BMC are as certified."""
    answer.holds()
