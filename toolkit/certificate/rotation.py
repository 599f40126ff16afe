"""The installation's own keys: the one that signs now, those that signed before, and whom its verbs trust."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from toolkit.certificate.keyholder import SIGNER, remote_key
from toolkit.certificate.public_key import read_pem, trusted_key, trusted_keys
from toolkit.certificate.purpose import Purpose
from toolkit.certificate.sign import RETIRED, SigningKey, load_or_create, passphrase
from toolkit.certificate.trust import Trust
from toolkit.certificate.trust_file import load_trust
from toolkit.durable import write_whole
from toolkit.errors import UsageError

if TYPE_CHECKING:
    from securesystemslib.signer import Key

TRUST = Purpose.CERTIFICATE.trust
_HEADER = "# Whose signatures this installation believes. rackproof keys rotate adds to it; what a site adds is kept.\n"


def installed_trust(keys: Path, now: datetime, purpose: Purpose = Purpose.CERTIFICATE) -> Trust:
    """`trust.yml` of the keys' folder, and where there is none the one key that signs. See `load_trust`.
    Images have a file and a key of their own: `image-trust.yml`, `image.pub`.

    UsageError where there is neither: nobody is trusted by mistake.
    """
    file, public = keys / purpose.trust, keys / purpose.public
    if file.exists():
        return load_trust(file, now)
    if not public.exists():
        raise UsageError(
            f"this installation has no key of its own to trust: there is no {public}",
            f"give the public key of who issued the {purpose}: --key {purpose.public}, or --trust FILE",
        )
    return Trust.of(trusted_keys((public,)))


def rotate(
    keys: Path,
    env: Mapping[str, str],
    now: datetime,
    *,
    stolen: bool = False,
    purpose: Purpose = Purpose.CERTIFICATE,
) -> tuple[Key, SigningKey]:
    """The old key and the new one. The old one's certificates stay good; nothing that it signs from now on is.

    Where RACKPROOF_SIGNER names somebody who holds another key, that is the new one; else one is made in a file. An
    image key is always one in a file.

    stolen  what it signed counts from now on only with a timestamp from before now: its thief dates as he likes
    Killed at any instant, the old key or the new one signs, and the trust file has both. UsageError where there is no
    key yet, and where the one in use is somebody else's to replace.
    """
    public, private = keys / purpose.public, keys / purpose.private
    if not public.exists():
        raise UsageError(f"there is no key in {keys} yet", f"it is made with the first {purpose}")
    installed_trust(keys, now, purpose)  # a trust file that a site broke is told before anything is replaced
    remote, secret = remote_key(env) if purpose is Purpose.CERTIFICATE else None, passphrase(env)
    # Whoever cannot open the old one makes no new one.
    pem = load_or_create(keys, secret, purpose).public_pem if remote is None else read_pem(public)
    old = trusted_key(pem, str(public))
    if remote is not None and remote.keyid == old.keyid:
        raise UsageError(
            f"key {old.keyid[:16]} is held by {env[SIGNER][:80]}: it is not ours to replace",
            f"make another where it is held, let {SIGNER} name that one, then: rackproof keys rotate",
        )
    kept = Path(RETIRED) / f"{old.keyid[:16]}.pub"
    (keys / RETIRED).mkdir(mode=0o700, exist_ok=True)
    write_whole(keys / kept, pem)
    _write_trust(keys, str(kept), now, stolen, purpose)
    if remote is not None:
        private.unlink(missing_ok=True)  # first: what is left behind would sign again
        write_whole(public, remote.public_pem)
        return old, remote
    return old, _made_anew(keys, secret, purpose)


def _made_anew(keys: Path, secret: bytes | None, purpose: Purpose) -> SigningKey:
    aside = keys / ".rotating"
    if aside.exists():
        for left in aside.iterdir():
            left.unlink()
    new = load_or_create(aside, secret, purpose)
    (aside / purpose.private).replace(keys / purpose.private)
    (aside / purpose.public).replace(keys / purpose.public)
    aside.rmdir()
    return new


def _write_trust(keys: Path, retired: str, now: datetime, stolen: bool, purpose: Purpose) -> None:
    """Adds the key that goes; a site's own entries stay as they are, a second rotation changes no earlier time."""
    file = keys / purpose.trust
    known = (
        yaml.safe_load(file.read_text()) if file.exists() else {"keys": [{"file": purpose.public, "name": "current"}]}
    )
    entries = [entry for entry in known["keys"] if entry["file"] != retired]
    until = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    word = "stolen" if stolen else "retired"
    gone: dict[str, object] = {"file": retired, "name": f"{word} {until[:10]}", "until": until}
    entries.append(gone | ({"stamped": True} if stolen else {}))
    text = yaml.safe_dump({**known, "keys": entries}, sort_keys=False, default_style=None)
    write_whole(file, (_HEADER + text).encode())
