"""A trust file: the keys that a site believes, and where its list of revocations lies.

    keys:
      - {file: lab-2026.pub, name: lab, until: "2027-01-01T00:00:00Z"}
      - {file: lost.pub, until: "2026-10-01T00:00:00Z", stamped: true}   # stolen: only with a timestamp from before
    revocations: revocations.dsse.json        # optional; signed by one of the keys

Paths are relative to the file. A list of revocations that is named is part of the trust: where it is too old, or signed
by a stranger, nothing can be said of any certificate.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from toolkit.certificate.envelope import MAX_ENVELOPE_BYTES
from toolkit.certificate.public_key import read_pem, trusted_key
from toolkit.certificate.revocations import read_revocations, time_of
from toolkit.certificate.trust import Trust, TrustedKey
from toolkit.errors import UsageError
from toolkit.rack.document import Data, Problems, read

_FIELDS = {"file", "name", "until", "stamped"}


def load_trust(file: Path, now: datetime) -> Trust:
    """Raises InputError with lines for a file that is wrong, UndecidedError for a list of revocations of no use."""
    document = read(file)
    problems = Problems(document)
    data = document.data if isinstance(document.data, dict) else {}
    entries, listed = data.get("keys"), data.get("revocations")
    if not isinstance(entries, list) or set(data) - {"keys", "revocations"}:
        problems.add((), "a trust file has `keys`, a list, and perhaps `revocations`", "keys: [{file: some.pub}]")
        entries = []
    elif not entries:
        problems.add(("keys",), "no key is trusted", "at least one, as `file: certificate.pub`")
    keys = [_key(file.parent, entry, number, problems) for number, entry in enumerate(entries)]
    envelope = _envelope(file.parent / str(listed), problems) if listed is not None else b""
    problems.raise_any()
    trust = Trust(tuple(key for key in keys if key is not None))
    return trust if listed is None else read_revocations(envelope, trust, now)


def _envelope(file: Path, problems: Problems) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_ENVELOPE_BYTES + 1)
    except OSError as exc:
        problems.add(("revocations",), f"{file} cannot be read: {exc.strerror}", "the file beside this one")
        return b""


def _key(folder: Path, entry: Data, number: int, problems: Problems) -> TrustedKey | None:
    loc = ("keys", number)
    named = entry.get("file") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(named, str) or set(entry) - _FIELDS:
        problems.add(loc, "a key is {file, name, until, stamped}; all but file may be left out", "file: x.pub")
        return None
    until = time_of(entry.get("until"))
    if "until" in entry and until is None:
        problems.add((*loc, "until"), f"{entry['until']!a} is no time with a zone", "such as 2027-01-01T00:00:00Z")
    stamped = entry.get("stamped", "false")
    if stamped not in ("true", "false"):
        problems.add((*loc, "stamped"), f"{stamped!a} is neither", "true or false")
    elif stamped == "true" and until is None:
        problems.add((*loc, "stamped"), "a timestamp of any day would do", "until: when the key was lost")
    path = folder / named
    try:
        key = trusted_key(read_pem(path), str(path))
    except UsageError as wrong:
        problems.add((*loc, "file"), wrong.message, wrong.hint)
        return None
    return TrustedKey(key, str(entry.get("name") or path.name), until, stamped == "true")
