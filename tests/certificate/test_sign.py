"""The key pair: who may read it, how it opens, and that there is one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.certificate.sign import load_or_create, passphrase
from toolkit.errors import UsageError


def test_a_key_is_made_on_first_use_and_kept(keys: Path) -> None:
    """For the owner alone; the public part is for everyone."""
    first = load_or_create(keys)
    assert (keys / "certificate.key").stat().st_mode & 0o777 == 0o600
    assert keys.stat().st_mode & 0o777 == 0o700
    assert (keys / "certificate.pub").read_bytes() == first.public_pem
    assert first.public_pem.startswith(b"-----BEGIN PUBLIC KEY-----")
    assert load_or_create(keys).keyid == first.keyid
    assert sorted(p.name for p in keys.iterdir()) == ["certificate.key", "certificate.pub"]


def test_a_key_that_others_may_read_is_refused(keys: Path) -> None:
    """With the command that mends it."""
    load_or_create(keys)
    (keys / "certificate.key").chmod(0o640)
    with pytest.raises(UsageError, match=r"can be read by others\n.*chmod 600"):
        load_or_create(keys)


def test_an_encrypted_key_needs_its_passphrase(keys: Path) -> None:
    """None, a wrong one and the right one."""
    made = load_or_create(keys, b"correct horse")
    assert b"ENCRYPTED" in (keys / "certificate.key").read_bytes()
    with pytest.raises(UsageError, match="is encrypted and no passphrase was given"):
        load_or_create(keys)
    with pytest.raises(UsageError, match="the passphrase is wrong") as refused:
        load_or_create(keys, b"battery staple")
    assert "staple" not in str(refused.value)
    assert load_or_create(keys, b"correct horse").keyid == made.keyid


def test_a_plain_key_with_a_passphrase_set_is_said_to_be_plain(keys: Path) -> None:
    """The operator believes it to be encrypted."""
    load_or_create(keys)
    with pytest.raises(UsageError, match="is not encrypted, but a passphrase is set"):
        load_or_create(keys, b"correct horse")


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_damaged_key_is_refused_not_replaced(keys: Path, content: bytes) -> None:
    """A new key would silently end the trust in the old one."""
    load_or_create(keys)
    (keys / "certificate.key").write_bytes(content)
    with pytest.raises(UsageError, match="cannot be opened"):
        load_or_create(keys)
    assert (keys / "certificate.key").read_bytes() == content


def test_a_key_of_another_kind_is_refused(keys: Path) -> None:
    """Ed25519 only."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    load_or_create(keys)
    other = ec.generate_private_key(ec.SECP256R1())
    pem = other.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (keys / "certificate.key").write_bytes(pem)
    with pytest.raises(UsageError, match="not an Ed25519 key"):
        load_or_create(keys)


def test_processes_that_begin_at_once_share_one_key(keys: Path) -> None:
    """Whoever is first has made it."""
    script = (
        "import sys; from pathlib import Path; from toolkit.certificate.sign import load_or_create\n"
        "print(load_or_create(Path(sys.argv[1])).keyid)\n"
    )
    command = [sys.executable, "-c", script, str(keys)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert len({child.communicate()[0] for child in children}) == 1
    assert sorted(p.name for p in keys.iterdir()) == ["certificate.key", "certificate.pub"]


def test_the_passphrase_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    """The file is asked first; an empty or missing one is an error, not an unencrypted key."""
    file = tmp_path / "secret"
    file.write_text("from file\n")
    env = {"RACKPROOF_KEY_PASSPHRASE_FILE": str(file), "RACKPROOF_KEY_PASSPHRASE": "from env"}
    assert passphrase(env) == b"from file"
    assert passphrase({"RACKPROOF_KEY_PASSPHRASE": "from env"}) == b"from env"
    assert passphrase({}) is None
    file.write_text("\n")
    with pytest.raises(UsageError, match="is empty"):
        passphrase(env)
    file.unlink()
    with pytest.raises(UsageError, match="cannot be read"):
        passphrase(env)
