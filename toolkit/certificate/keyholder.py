"""Who holds the signing key: a file of this installation, an SSH agent, or a program (PKCS#11, a cloud's KMS).

RACKPROOF_SIGNER names it: `file` (the default), `agent:SHA256:...` with the key's fingerprint as `ssh-add -l` prints
it, or `command:/path/of/program`, which reads the bytes to sign on its standard input and writes the 64 bytes of the
Ed25519 signature in base64; its public key lies in RACKPROOF_SIGNER_KEY (PEM). Whoever signs, what comes back is
verified before anybody sees it.

Ed25519 signs the text itself, not a digest of it: whoever holds the key takes all of it in one piece, 42 kB for two
nodes of 8 GPUs and 7 kB for each one more. C_Sign of a PKCS#11 token does (SoftHSM 2.6, by one call: tried);
pkcs11-tool of OpenSC 0.23 does not, it cuts anything over 1 kB into pieces; AWS KMS takes 4,096 bytes
(docs.aws.amazon.com, kms sign), CloudHSM 16,000 (the same, cloudhsm_cli-crypto-sign-ed25519). A key of another kind is
refused: an ECDSA signature can be rewritten without the key, and a revoked certificate would have another name.
"""

from __future__ import annotations

import base64
import binascii
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from toolkit.certificate.public_key import read_pem, trusted_key
from toolkit.certificate.sign import PUBLIC, SigningKey, load_or_create, passphrase
from toolkit.durable import write_whole
from toolkit.errors import UndecidedError, UsageError

if TYPE_CHECKING:
    from paramiko import AgentKey
    from securesystemslib.signer import Key, Signature

SIGNER, SIGNER_KEY = "RACKPROOF_SIGNER", "RACKPROOF_SIGNER_KEY"
FILE, AGENT, COMMAND = "file", "agent:", "command:"
COMMAND_SECONDS = 120
SIGNATURE_BYTES = 64
_KINDS = f"{FILE}, {AGENT}SHA256:FINGERPRINT or {COMMAND}/PATH"


@dataclass(frozen=True, slots=True)
class RemoteSigner:
    """Signs by asking somebody else. It has what securesystemslib asks of a signer."""

    public_key: Key
    ask: Callable[[bytes], bytes]

    def sign(self, payload: bytes) -> Signature:
        """The signature over these bytes. UndecidedError where whoever holds the key gives none, or a wrong one."""
        from securesystemslib.exceptions import UnverifiedSignatureError
        from securesystemslib.signer import Signature

        made = Signature(self.public_key.keyid, self.ask(payload).hex())
        try:
            self.public_key.verify_signature(made, payload)
        except UnverifiedSignatureError as exc:
            raise UndecidedError(
                f"what {SIGNER} gave is no signature of key {self.public_key.keyid[:12]}",
                f"check that {SIGNER} and {SIGNER_KEY} belong together",
            ) from exc
        return made


def signing_key(folder: Path, env: Mapping[str, str]) -> SigningKey:
    """The key that certificates are signed with. UsageError where it is not there or not ours to use, and where this
    installation's certificates were signed by another one until now: nobody is to trust another by mistake.

    folder   of a key in a file; its public part is kept there whoever holds the private one
    """
    key = remote_key(env)
    return load_or_create(folder, passphrase(env)) if key is None else _known(folder, key)


def remote_key(env: Mapping[str, str]) -> SigningKey | None:
    """The key that RACKPROOF_SIGNER names, where somebody else holds it; None where it is a file of ours."""
    named = env.get(SIGNER) or FILE
    if named == FILE:
        return None
    if named.startswith(AGENT):
        return _of_agent(named.removeprefix(AGENT))
    if named.startswith(COMMAND):
        return _of_command(Path(named.removeprefix(COMMAND)), env.get(SIGNER_KEY, ""))
    raise UsageError(f"{SIGNER} is {named[:80]!a}", f"one of: {_KINDS}")


def _known(folder: Path, key: SigningKey) -> SigningKey:
    """Leaves the public part where this installation's verbs look for whom they trust."""
    public = folder / PUBLIC
    if not public.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(public, key.public_pem)
        return key
    known = trusted_key(read_pem(public), str(public)).keyid
    if known != key.keyid:
        raise UsageError(
            f"{SIGNER} holds key {key.keyid[:16]}, and this installation's certificates are signed by {known[:16]}",
            f"to change over to it: rackproof keys rotate --confirm {known[:8]}; else correct {SIGNER}",
        )
    return key


def _of_agent(fingerprint: str) -> SigningKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from paramiko import Agent
    from paramiko.message import Message

    held = {str(key.fingerprint): key for key in Agent().get_keys() if key.get_name() == "ssh-ed25519"}
    key = held.get(fingerprint)
    if key is None:
        known = ", ".join(held) or "none"
        raise UsageError(f"the SSH agent holds no Ed25519 key {fingerprint[:80]!a}", f"ssh-add -l; it holds: {known}")
    blob = Message(key.asbytes())
    blob.get_text()
    public = Ed25519PublicKey.from_public_bytes(blob.get_binary())
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return _remote(pem, lambda payload: _agent_signs(key, payload))


def _agent_signs(key: AgentKey, payload: bytes) -> bytes:
    """An agent signs an Ed25519 key's data as they are (RFC 8709, section 6)."""
    from paramiko import SSHException
    from paramiko.message import Message

    try:
        answer = Message(cast(bytes, key.sign_ssh_data(payload)))  # typed as a Message, and bytes since paramiko 3
    except SSHException as exc:
        raise UndecidedError(
            f"the SSH agent did not sign these {len(payload):,} bytes: {exc}",
            "ssh-add -l; is it locked? OpenSSH's agent takes 256 KiB at most",
        ) from exc
    answer.get_text()
    return answer.get_binary()


def _of_command(program: Path, public: str) -> SigningKey:
    if not program.is_absolute() or not program.exists():
        raise UsageError(f"{SIGNER} names the program {str(program)[:200]!a}", "the full path of one that is there")
    if not public:
        raise UsageError(f"{SIGNER} is a program and {SIGNER_KEY} is not set", "the PEM file of its public key")
    return _remote(read_pem(Path(public)), lambda payload: _command_signs(program, payload))


def _command_signs(program: Path, payload: bytes) -> bytes:
    try:
        ran = subprocess.run([str(program)], input=payload, capture_output=True, timeout=COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise UndecidedError(f"{program} did not sign: {exc}", f"run it by hand; see {SIGNER}") from exc
    if ran.returncode != 0:
        said = ascii(ran.stderr[-300:].decode("utf-8", "replace").strip())
        raise UndecidedError(
            f"{program} did not sign these {len(payload):,} bytes: exit status {ran.returncode}: {said}",
            "run it by hand, with as many bytes: a token or a key service may take fewer",
        )
    try:
        made = base64.b64decode(ran.stdout.strip(), validate=True)
    except (binascii.Error, ValueError):
        made = b""
    if len(made) != SIGNATURE_BYTES:
        raise UndecidedError(
            f"{program} wrote no Ed25519 signature: {len(ran.stdout)} bytes", "64 bytes in base64 are expected"
        )
    return made


def _remote(pem: bytes, ask: Callable[[bytes], bytes]) -> SigningKey:
    key = trusted_key(pem, SIGNER_KEY)
    return SigningKey(RemoteSigner(key, ask), key.keyid, pem)
