"""The signing key is replaced: what it signed stays good, what it signs later is not; after a kill one key signs."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from toolkit.certificate.refusal import CertificateRefusedError, Refusal
from toolkit.certificate.rotation import TRUST, installed_trust, rotate
from toolkit.certificate.sign import load_or_create, sign
from toolkit.certificate.statement import Grounds, issue
from toolkit.certificate.verify import verify
from toolkit.errors import InputError, UsageError

HOUR, MONTH = timedelta(hours=1), timedelta(days=30)


def certificate(keys: Path, grounds: Grounds, at: datetime) -> bytes:
    return sign(issue(grounds, at, MONTH, "1.2.3"), load_or_create(keys))


def test_without_a_rotation_the_one_key_is_trusted(keys: Path, grounds: Grounds, now: datetime) -> None:
    """No file is needed for it."""
    envelope = certificate(keys, grounds, now)
    assert verify(envelope, installed_trust(keys, now), now).keyid == load_or_create(keys).keyid


def test_both_keys_certificates_are_good_after_a_rotation(keys: Path, grounds: Grounds, now: datetime) -> None:
    """And of the old one, none that is dated later."""
    before = certificate(keys, grounds, now - HOUR)
    stolen = keys.parent / "stolen"
    shutil.copytree(keys, stolen)
    old, new = rotate(keys, {}, now)
    assert old.keyid != new.keyid == load_or_create(keys).keyid
    trust = installed_trust(keys, now)
    assert verify(before, trust, now).keyid == old.keyid
    assert verify(certificate(keys, grounds, now), trust, now).keyid == new.keyid
    with pytest.raises(CertificateRefusedError) as refused:
        verify(certificate(stolen, grounds, now + HOUR), trust, now + HOUR)
    assert refused.value.refusal is Refusal.UNTRUSTED


def test_a_second_rotation_keeps_the_first_one_s_end(keys: Path, grounds: Grounds, now: datetime) -> None:
    """Three keys are known, two of them ended, each at its time."""
    load_or_create(keys)
    rotate(keys, {}, now)
    rotate(keys, {}, now + HOUR)
    ends = [key.until for key in installed_trust(keys, now).keys]
    whole = now.replace(microsecond=0)
    assert ends == [None, whole, whole + HOUR]


def test_what_a_site_wrote_into_the_trust_file_stays(keys: Path, now: datetime) -> None:
    """Another site's key, say."""
    load_or_create(keys)
    other = load_or_create(keys.parent / "other")
    (keys / "other.pub").write_bytes(other.public_pem)
    (keys / TRUST).write_text("keys:\n  - {file: certificate.pub}\n  - {file: other.pub, name: the other site}\n")
    rotate(keys, {}, now)
    assert "the other site" in [key.name for key in installed_trust(keys, now).keys]


def test_a_trust_file_that_a_site_broke_is_told_before_the_key_is_replaced(keys: Path, now: datetime) -> None:
    """With its line; the old key still signs."""
    old = load_or_create(keys)
    (keys / TRUST).write_text("key: certificate.pub\n")
    with pytest.raises(InputError, match="a trust file has `keys`"):
        rotate(keys, {}, now)
    assert load_or_create(keys).keyid == old.keyid


def test_a_rotation_that_was_cut_off_is_finished_by_the_next(keys: Path, grounds: Grounds, now: datetime) -> None:
    """The trust file was written and the key was not replaced: the old one still signs and is still believed."""
    old = load_or_create(keys)
    rotate(keys, {}, now)
    shutil.copy(keys.parent / keys.name / "retired" / f"{old.keyid[:16]}.pub", keys / "certificate.pub")
    (keys / ".rotating").mkdir()
    (keys / ".rotating/certificate.key").write_text("half")
    second, third = rotate(keys, {}, now + HOUR)
    assert load_or_create(keys).keyid == third.keyid
    assert {old.keyid, second.keyid, third.keyid} == {k.key.keyid for k in installed_trust(keys, now).keys}


def test_where_there_is_no_key_there_is_nothing_to_rotate(keys: Path, now: datetime) -> None:
    """And none is made for it."""
    with pytest.raises(UsageError, match="no key in"):
        rotate(keys, {}, now)
    assert not keys.exists()


def test_a_key_whose_private_part_is_elsewhere_is_not_replaced_by_accident(keys: Path, now: datetime) -> None:
    """All that it signed would be a stranger's from then on: nothing is made, and nothing overwritten."""
    old = load_or_create(keys)
    (keys / "certificate.key").unlink()
    for deed in (lambda: load_or_create(keys), lambda: rotate(keys, {}, now)):
        with pytest.raises(UsageError, match="its private part is not in") as refused:
            deed()
        assert "RACKPROOF_SIGNER" in refused.value.hint
    assert (keys / "certificate.pub").read_bytes() == old.public_pem
    assert not (keys / "certificate.key").exists()


def test_a_private_key_beside_another_s_public_one_signs_nothing(keys: Path) -> None:
    """Left over from before somebody else held the key; where it was a rotation that was cut off, it signs."""
    load_or_create(keys)
    other = load_or_create(keys.parent / "other")
    (keys / "certificate.pub").write_bytes(other.public_pem)
    with pytest.raises(UsageError, match=f"certificate.pub is key {other.keyid[:16]}, and certificate.key"):
        load_or_create(keys)
    (keys / "certificate.pub").write_text("half a f")
    assert load_or_create(keys).public_pem == (keys / "certificate.pub").read_bytes(), "damaged, it is made again"
