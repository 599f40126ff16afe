"""Who holds the signing key: a file, a real ssh-agent, a program with a real openssl behind it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from toolkit.certificate.keyholder import SIGNER, SIGNER_KEY, signing_key
from toolkit.certificate.public_key import trusted_key
from toolkit.certificate.rotation import installed_trust, rotate
from toolkit.certificate.sign import sign
from toolkit.certificate.statement import Grounds, issue
from toolkit.certificate.verify import verify
from toolkit.errors import UndecidedError, UsageError

MONTH = timedelta(days=30)


def run(*argv: object) -> str:
    return subprocess.run([str(a) for a in argv], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An ssh-agent that holds one Ed25519 key; its fingerprint."""
    socket = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        while not socket.exists():
            assert process.poll() is None
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", tmp_path / "id")
        subprocess.run(["ssh-add", "-q", str(tmp_path / "id")], check=True, capture_output=True)
        yield run("ssh-add", "-l").split()[1]
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A signer as a site with an HSM writes one; here openssl holds the key."""
    key, file = tmp_path / "hsm.pem", tmp_path / "signer"
    run("openssl", "genpkey", "-algorithm", "ed25519", "-out", key)
    run("openssl", "pkey", "-in", key, "-pubout", "-out", tmp_path / "hsm.pub")
    file.write_text(
        f'#!/bin/sh\nf=$(mktemp) && cat >"$f" && openssl pkeyutl -sign -rawin -inkey {key} -in "$f" | base64 -w0\n'
    )
    file.chmod(0o755)
    return file


def test_an_ssh_agent_signs_and_the_certificate_verifies(
    agent: str, grounds: Grounds, now: datetime, tmp_path: Path
) -> None:
    """The private key never leaves it, and none is made on disk."""
    key = signing_key(tmp_path / "keys", {SIGNER: f"agent:{agent}"})
    envelope = sign(issue(grounds, now, MONTH, "1.2.3"), key)
    assert verify(envelope, [trusted_key(key.public_pem)], now).keyid == key.keyid
    assert [file.name for file in (tmp_path / "keys").iterdir()] == ["certificate.pub"]


def test_a_key_that_the_agent_does_not_hold_is_refused_with_those_that_it_does(agent: str, tmp_path: Path) -> None:
    """Nobody signs with whatever key comes first."""
    with pytest.raises(UsageError, match="holds no Ed25519 key 'SHA256:x'") as refused:
        signing_key(tmp_path, {SIGNER: "agent:SHA256:x"})
    assert agent in refused.value.hint


def test_a_program_signs_and_the_certificate_verifies(
    program: Path, grounds: Grounds, now: datetime, tmp_path: Path
) -> None:
    """It is given the bytes on its standard input and nothing in argv."""
    key = signing_key(tmp_path, {SIGNER: f"command:{program}", SIGNER_KEY: str(tmp_path / "hsm.pub")})
    envelope = sign(issue(grounds, now, MONTH, "1.2.3"), key)
    assert verify(envelope, [trusted_key(key.public_pem)], now).keyid == key.keyid


LYING = {
    "another key's signature": ("openssl genpkey -algorithm ed25519 -out other.pem; cat >in; openssl pkeyutl -sign "
                                "-rawin -inkey other.pem -in in | base64 -w0", "no signature of key"),
    "nothing": ("true", "wrote no Ed25519 signature"),
    "words": ("echo certainly", "wrote no Ed25519 signature"),
    "a complaint": ("echo 'no token in the slot' >&2; exit 1", "no token in the slot"),
}  # fmt: skip


@pytest.mark.parametrize("name", LYING)
def test_what_is_no_signature_of_the_key_is_never_kept(
    name: str, program: Path, grounds: Grounds, now: datetime, tmp_path: Path
) -> None:
    """It is found out here, not by the first reader."""
    script, words = LYING[name]
    program.write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
    key = signing_key(tmp_path, {SIGNER: f"command:{program}", SIGNER_KEY: str(tmp_path / "hsm.pub")})
    with pytest.raises(UndecidedError, match=words):
        sign(issue(grounds, now, MONTH, "1.2.3"), key)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({SIGNER: "hsm"}, "RACKPROOF_SIGNER is 'hsm'"),
        ({SIGNER: "command:signer"}, "names the program 'signer'"),
        ({SIGNER: "command:/bin/true"}, "RACKPROOF_SIGNER_KEY is not set"),
        ({SIGNER: "command:/bin/true", SIGNER_KEY: "/no/such.pub"}, "cannot be read"),
    ],
)
def test_a_signer_that_is_not_there_is_refused_before_anything_is_measured(
    env: dict[str, str], words: str, tmp_path: Path
) -> None:
    """With the name of the variable that is wrong."""
    with pytest.raises(UsageError, match=words):
        signing_key(tmp_path, env)


def test_without_a_word_the_key_is_a_file(tmp_path: Path) -> None:
    """Made on first use."""
    made = signing_key(tmp_path / "keys", {})
    assert (tmp_path / "keys/certificate.pub").read_bytes() == made.public_pem
    assert (tmp_path / "keys/certificate.key").stat().st_mode & 0o077 == 0


def test_certificates_are_signed_by_another_holder_only_after_a_rotation_to_it(
    program: Path, grounds: Grounds, now: datetime, tmp_path: Path
) -> None:
    """A variable that is set, or forgotten, makes no strangers of the certificates before; a rotation says it."""
    keys, hsm = tmp_path / "keys", {SIGNER: f"command:{program}", SIGNER_KEY: str(tmp_path / "hsm.pub")}
    first = signing_key(keys, {})
    before = sign(issue(grounds, now, MONTH, "1"), first)
    with pytest.raises(UsageError, match=f"certificates are signed by {first.keyid[:16]}") as refused:
        signing_key(keys, hsm)
    assert f"rackproof keys rotate --confirm {first.keyid[:8]}" in refused.value.hint
    old, new = rotate(keys, hsm, now)
    assert (old.keyid, signing_key(keys, hsm).keyid) == (first.keyid, new.keyid)
    trust = installed_trust(keys, now)
    assert verify(before, trust, now).keyid == first.keyid
    assert verify(sign(issue(grounds, now, MONTH, "2"), new), trust, now).keyid == new.keyid
    assert not (keys / "certificate.key").exists()
    with pytest.raises(UsageError, match="its private part is not in"):
        signing_key(keys, {})
    with pytest.raises(UsageError, match="not ours to replace"):
        rotate(keys, hsm, now)
