"""Timestamps by a real authority (openssl ts): of this very certificate, from before its key was stolen, or none."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.certificate.public_key import trusted_key
from toolkit.certificate.refusal import CertificateRefusedError, Refusal
from toolkit.certificate.rotation import installed_trust, rotate
from toolkit.certificate.sign import SigningKey, load_or_create, sign
from toolkit.certificate.statement import Grounds, issue
from toolkit.certificate.timestamp import STAMPER, Stamp, read_stamp, stamped
from toolkit.certificate.trust import Trust, TrustedKey
from toolkit.certificate.trust_file import load_trust
from toolkit.certificate.verify import verify
from toolkit.errors import InputError, UndecidedError, UsageError

HOUR, MONTH = timedelta(hours=1), timedelta(days=30)
CONFIGURATION = """\
[tsa]
dir = {folder}
serial = $dir/serial
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
[usage]
extendedKeyUsage = critical,timeStamping
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root, an authority under it, and a program that stamps what it reads."""
    return made(tmp_path_factory.mktemp("authority"))


def made(folder: Path) -> Path:
    (folder / "tsa.cnf").write_text(CONFIGURATION.format(folder=folder))
    (folder / "serial").write_text("01")
    script = f"""cd {folder}
        openssl req -x509 -newkey ed25519 -nodes -keyout root.key -out root.pem -subj /CN=root -days 3650
        openssl req -newkey rsa:2048 -nodes -keyout tsa.key -out tsa.csr -subj /CN=stamper
        openssl x509 -req -in tsa.csr -CA root.pem -CAkey root.key -CAcreateserial -out tsa.pem -days 3650 \\
          -extfile tsa.cnf -extensions usage"""
    subprocess.run(["sh", "-ec", script], check=True, capture_output=True)
    stamper = folder / "stamper"
    stamper.write_text(
        f"#!/bin/sh\ncd {folder} && cat >query && openssl ts -reply -config tsa.cnf -section tsa -queryfile query"
        " -signer tsa.pem -inkey tsa.key 2>/dev/null\n"
    )
    stamper.chmod(0o755)
    return folder


@pytest.fixture
def issued_at() -> datetime:
    """The authority's clock is the real one."""
    return datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def envelope(grounds: Grounds, issued_at: datetime, key: SigningKey) -> bytes:
    return sign(issue(grounds, issued_at, MONTH, "1.2.3"), key)


def env(authority: Path) -> dict[str, str]:
    return {STAMPER: f"command:{authority}/stamper"}


def stamp_of(authority: Path, envelope: bytes) -> Stamp:
    reply = stamped(envelope, env(authority))
    assert reply is not None
    return Stamp(reply, (authority / "root.pem").read_bytes())


def refused(envelope: bytes, trust: Trust, now: datetime, stamp: Stamp | None) -> CertificateRefusedError:
    with pytest.raises(CertificateRefusedError) as raised:
        verify(envelope, trust, now, stamp)
    return raised.value


def test_a_timestamp_says_when_the_certificate_was_there(
    authority: Path, envelope: bytes, key: SigningKey, issued_at: datetime
) -> None:
    """By the authority's clock; without one nothing is said."""
    trust = Trust.of([trusted_key(key.public_pem)])
    found = verify(envelope, trust, issued_at, stamp_of(authority, envelope))
    assert found.stamped_at is not None
    assert abs(found.stamped_at - issued_at) < timedelta(minutes=5)
    assert verify(envelope, trust, issued_at).stamped_at is None
    assert stamped(envelope, {}) is None


def test_what_a_stolen_key_signed_counts_only_with_a_timestamp_from_before(
    authority: Path, grounds: Grounds, envelope: bytes, key: SigningKey, issued_at: datetime, tmp_path: Path
) -> None:
    """The thief dates his certificate back, and has no timestamp of then."""
    stamp = stamp_of(authority, envelope)
    lost_later = Trust((TrustedKey(trusted_key(key.public_pem), "lost", issued_at + HOUR, stamped=True),))
    assert verify(envelope, lost_later, issued_at, stamp).keyid == key.keyid
    assert "counts with a timestamp only" in refused(envelope, lost_later, issued_at, None).message
    lost_before = Trust((TrustedKey(trusted_key(key.public_pem), "lost", issued_at - HOUR, stamped=True),))
    forged = sign(issue(grounds, issued_at - 2 * HOUR, MONTH, "1.2.3"), key)
    by_its_date = Trust((replace(lost_before.keys[0], stamped=False),))
    assert verify(forged, by_its_date, issued_at).keyid == key.keyid, "by its own date it is good: that is the hole"
    wrong = refused(forged, lost_before, issued_at, stamp_of(authority, forged))
    assert (wrong.refusal, "by its timestamp" in wrong.message) == (Refusal.UNTRUSTED, True)


def of_another(authority: Path, envelope: bytes, tmp_path: Path) -> Stamp:
    return stamp_of(authority, envelope + b" ")


def by_a_stranger(authority: Path, envelope: bytes, tmp_path: Path) -> Stamp:
    return replace(stamp_of(made(tmp_path), envelope), roots=(authority / "root.pem").read_bytes())


def rejected(authority: Path, envelope: bytes, tmp_path: Path) -> Stamp:
    """PKIStatusInfo with status 2 and nothing else."""
    return Stamp(bytes.fromhex("30053003020102"), (authority / "root.pem").read_bytes())


def cut(authority: Path, envelope: bytes, tmp_path: Path) -> Stamp:
    whole = stamp_of(authority, envelope)
    return replace(whole, reply=whole.reply[:-9])


@pytest.mark.parametrize("wrong", [of_another, by_a_stranger, rejected, cut])
def test_a_timestamp_that_is_not_of_this_certificate_by_that_authority_is_refused(
    wrong: Callable[[Path, bytes, Path], Stamp],
    authority: Path, envelope: bytes, key: SigningKey, issued_at: datetime, tmp_path: Path,
) -> None:  # fmt: skip
    """With it the certificate does not count, though without it it would."""
    trust = Trust.of([trusted_key(key.public_pem)])
    assert refused(envelope, trust, issued_at, wrong(authority, envelope, tmp_path)).refusal is Refusal.STAMP_WRONG


def test_a_timestamp_older_than_the_issue_contradicts_it(
    authority: Path, grounds: Grounds, key: SigningKey, issued_at: datetime
) -> None:
    """One of the two clocks was wrong, and nobody can say which."""
    later = sign(issue(grounds, issued_at + HOUR, MONTH, "1.2.3"), key)
    trust = Trust.of([trusted_key(key.public_pem)])
    wrong = refused(later, trust, issued_at + HOUR, stamp_of(authority, later))
    assert wrong.refusal is Refusal.STAMP_WRONG and "says that it was issued" in wrong.message


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(content=st.binary(max_size=300), data=st.data())
def test_any_other_reply_is_refused_with_words(
    authority: Path, envelope: bytes, key: SigningKey, issued_at: datetime, content: bytes, data: st.DataObject
) -> None:
    """Random bytes, and a good one with one byte of it changed: never a traceback, never another time."""
    roots = (authority / "root.pem").read_bytes()
    good = bytearray(good_reply(authority, envelope))
    position = data.draw(st.integers(0, len(good) - 1))
    good[position] ^= data.draw(st.integers(1, 255))
    trust = Trust.of([trusted_key(key.public_pem)])
    for reply in (content, bytes(good)):
        try:
            found = verify(envelope, trust, issued_at, Stamp(reply, roots))
        except CertificateRefusedError as wrong:
            assert wrong.refusal is Refusal.STAMP_WRONG
        else:  # a byte that nobody signed: of the status' free text, say
            assert found.stamped_at == Stamp(good_reply(authority, envelope), roots).at(found.digest)


def good_reply(authority: Path, envelope: bytes) -> bytes:
    """One reply for each envelope."""
    file = authority / f"{hash(envelope)}.tsr"
    if not file.exists():
        file.write_bytes(stamp_of(authority, envelope).reply)
    return file.read_bytes()


SILENT = {
    "a complaint": ("echo 'no route' >&2; exit 7", "exit status 7: 'no route'"),
    "words": ("echo certainly", "is no timestamp"),
    "the answer to another query": ("cat {other}", "the answer to another query"),
}


@pytest.mark.parametrize("name", SILENT)
def test_a_timestamper_that_gives_none_is_undecided(
    name: str, authority: Path, envelope: bytes, tmp_path: Path
) -> None:
    """Nothing is issued with a timestamp that a reader would refuse."""
    script, words = SILENT[name]
    (tmp_path / "other").write_bytes(stamp_of(authority, envelope).reply)
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n" + script.format(other=tmp_path / "other") + "\n")
    program.chmod(0o755)
    with pytest.raises(UndecidedError, match=words):
        stamped(envelope, {STAMPER: f"command:{program}"})


def test_a_timestamper_and_files_that_are_not_there_are_usage_errors(tmp_path: Path, envelope: bytes) -> None:
    """They say nothing about the certificate."""
    for named in ("command:stamper", "https://tsa.example", "command:/no/such"):
        with pytest.raises(UsageError, match=STAMPER):
            stamped(envelope, {STAMPER: named})
    with pytest.raises(UsageError, match="cannot be read"):
        read_stamp(tmp_path / "gone", tmp_path / "gone")
    with pytest.raises(UsageError, match="no PEM"):
        Stamp(bytes.fromhex("30053003020100"), b"no root").at("ab" * 32)


def test_a_trust_file_says_whose_certificates_need_one(key: SigningKey, issued_at: datetime, tmp_path: Path) -> None:
    """And a word that is neither true nor false has its line."""
    (tmp_path / "lost.pub").write_bytes(key.public_pem)
    file = tmp_path / "trust.yml"
    file.write_text("keys:\n  - {file: lost.pub, until: '2026-10-01T00:00:00Z', stamped: true}\n")
    assert load_trust(file, issued_at).keys[0].stamped
    file.write_text("keys:\n  - file: lost.pub\n    stamped: perhaps\n")
    with pytest.raises(InputError) as wrong:
        load_trust(file, issued_at)
    assert (wrong.value.problems[0].line, wrong.value.problems[0].right) == (3, "true or false")
    file.write_text("keys:\n  - file: lost.pub\n    stamped: true\n")
    with pytest.raises(InputError, match="a timestamp of any day would do"):
        load_trust(file, issued_at)


def test_a_stolen_key_is_rotated_out_with_all_that_no_timestamp_shows_to_be_older(
    authority: Path, grounds: Grounds, issued_at: datetime, keys: Path
) -> None:
    """By one command: the certificate with a timestamp holds, the same without one does not, nor does the thief's."""
    before = sign(issue(grounds, issued_at, MONTH, "1.2.3"), load_or_create(keys))
    stamp = stamp_of(authority, before)
    thief = load_or_create(keys)
    _, new = rotate(keys, {}, issued_at + HOUR, stolen=True)
    trust = installed_trust(keys, issued_at + HOUR)
    assert [(k.stamped, k.name.split()[0]) for k in trust.keys] == [(False, "current"), (True, "stolen")]
    assert verify(before, trust, issued_at + HOUR, stamp).keyid == thief.keyid
    assert refused(before, trust, issued_at + HOUR, None).refusal is Refusal.UNTRUSTED
    forged = sign(issue(grounds, issued_at - HOUR, MONTH, "9"), thief)
    assert refused(forged, trust, issued_at + HOUR, None).refusal is Refusal.UNTRUSTED
    assert refused(forged, trust, issued_at + HOUR, stamp).refusal is Refusal.STAMP_WRONG
    assert verify(sign(issue(grounds, issued_at, MONTH, "2"), new), trust, issued_at + HOUR).keyid == new.keyid
