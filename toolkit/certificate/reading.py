"""Reads a statement whose signature was verified: what it proves, checked against itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from toolkit.certificate.fingerprint import Cable, Fingerprint, facts_from
from toolkit.certificate.refusal import CertificateRefusedError, Refusal
from toolkit.certificate.statement import EXTENSION, PASSED, PREDICATE_TYPE, READABLE, SHA256, STATEMENT_TYPE, WARNED
from toolkit.certificate.unverified import NotVerified, Unverified


@dataclass(frozen=True, slots=True)
class Verified:
    """A certificate that verified. Only `verify` makes one.

    digest       the certificate's name in the ledger and in the pool: sha256 of the envelope as it was first written,
                 whatever white space or further signatures it has now
    keyid        of the key that signed
    partial      True where nodes of the rack were left out; `left_out` says which and why
    statement    all of it, for reports
    revoked      (node, reason) of nodes that it no longer holds for
    version      of the statement
    supersedes   sha256 of the certificate issued before it for the rack; empty: it was the first on record there;
                 None: version 2, which does not say
    stamped_at   when it was there by a timestamp that was given; None: none was given
    warnings     optional gates that failed, each with its subject, in words
    evidence     (sha256, codes of the gates that rest on it) of every artifact it names; of version 2 also what is
                 no sha256, and names no artifact
    lifetime_source  why it holds as long as it does, in the words of the profile; empty: nobody wrote it down
    """

    rack: str
    digest: str
    keyid: str
    result: str
    issued_at: datetime
    expires_at: datetime
    fingerprint: Fingerprint
    left_out: tuple[tuple[str, str], ...]
    not_verified: tuple[NotVerified, ...]
    statement: Mapping[str, object]
    revoked: tuple[tuple[str, str], ...] = ()
    version: int = READABLE[0]
    supersedes: str | None = None
    lifetime_source: str = ""
    evidence: tuple[tuple[str, tuple[str, ...]], ...] = ()
    warnings: tuple[str, ...] = ()
    stamped_at: datetime | None = None

    @property
    def nodes(self) -> tuple[str, ...]:
        """Nodes it certifies."""
        return tuple(facts.node for facts in self.fingerprint.nodes)

    @property
    def partial(self) -> bool:
        """True where nodes of the rack were left out."""
        return bool(self.left_out)


def read_statement(statement: Mapping[str, object], digest: str, keyid: str) -> Verified:
    """Raises CertificateRefusedError: UNKNOWN_PREDICATE, or MALFORMED where the text contradicts itself."""
    kinds = (statement.get("_type"), statement.get("predicateType"))
    if kinds != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise CertificateRefusedError(Refusal.UNKNOWN_PREDICATE, f"it is a statement of {ascii(kinds)[:200]}")
    predicate = _object(statement, "predicate")
    extension = predicate.get(EXTENSION)
    if not isinstance(extension, dict) or (version := _version(extension)) is None:
        known = " or ".join(map(str, READABLE))
        raise CertificateRefusedError(
            Refusal.UNKNOWN_PREDICATE, f"it is a test result, but not version {known} of '{EXTENSION}'"
        )
    if predicate.get("result") not in (PASSED, WARNED) or predicate.get("failedTests") != []:
        _refuse(f"its result is {ascii(predicate.get('result'))[:40]}")
    fingerprint = _fingerprint(_object(extension, "fingerprint"))
    _check_subjects(statement, fingerprint)
    if extension.get("rack") != fingerprint.rack:
        _refuse("rack and fingerprint do not name the same rack")
    if extension.get("nodes") != [facts.node for facts in fingerprint.nodes]:
        _refuse("nodes and fingerprint do not name the same nodes")
    verified = Verified(
        fingerprint.rack,
        digest,
        keyid,
        str(predicate["result"]),
        _time(extension, "issuedAt"),
        _time(extension, "expiresAt"),
        fingerprint,
        tuple((_text(entry, "node"), _text(entry, "reason")) for entry in _objects(extension, "leftOut")),
        tuple(_not_verified(entry) for entry in _objects(extension, "notVerified")),
        statement,
        version=version,
        supersedes=_supersedes(extension) if version > READABLE[0] else None,
        lifetime_source=_words(extension, "lifetimeSource") if version > READABLE[0] else "",
        evidence=_evidence(extension, version),
        warnings=tuple(str(line) for line in _list(extension, "warnings")),
    )
    if verified.expires_at <= verified.issued_at:
        _refuse("it expires before it was issued")
    return verified


def _version(extension: Mapping[str, object]) -> int | None:
    """The version, where it is one that is read here. JSON's `true` is no number."""
    value = extension.get("version")
    return value if isinstance(value, int) and not isinstance(value, bool) and value in READABLE else None


def _evidence(extension: Mapping[str, object], version: int) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The list of evidence and what each gate says it rests on: the same digests, or it contradicts itself."""
    named = {_text(_object(entry, "digest"), "sha256") for entry in _objects(extension, "evidence")}
    rests: dict[str, set[str]] = {}
    for gate in _objects(extension, "gates"):
        for digest in _list(gate, "evidence"):
            rests.setdefault(str(digest), set()).add(_text(gate, "code"))
    if named != rests.keys():
        _refuse("its gates rest on other evidence than it lists")
    # Version 2 named the fabric's evidence by its place in a ledger: it is in force, and nobody can look that up.
    if version > READABLE[0] and not all(SHA256.fullmatch(digest) for digest in named):
        _refuse("it names evidence by something that is no sha256")
    return tuple((digest, tuple(sorted(rests[digest]))) for digest in sorted(rests))


def _supersedes(extension: Mapping[str, object]) -> str:
    value = _words(extension, "supersedes")
    if value and not SHA256.fullmatch(value):
        _refuse("what it supersedes is no sha256")
    return value


def _not_verified(entry: Mapping[str, object]) -> NotVerified:
    kind = _text(entry, "kind")
    if kind not in {known.value for known in Unverified}:
        _refuse(f"{ascii(kind)[:40]} is no kind of what was not verified")
    nodes = _list(entry, "nodes") if "nodes" in entry else []
    if not all(isinstance(node, str) and node for node in nodes):
        _refuse("'nodes' holds no names")
    return NotVerified(Unverified(kind), _text(entry, "what"), tuple(str(node) for node in nodes))


def _fingerprint(document: Mapping[str, object]) -> Fingerprint:
    nodes = _object(document, "nodes")
    switches = _object(document, "switches")
    try:
        facts = tuple(facts_from(name, _object(nodes, name)) for name in sorted(nodes))
    except ValueError as exc:
        _refuse(f"the fingerprint is incomplete: {exc}")
    cables = []
    for entry in _objects(document, "cables"):
        ends = _list(entry, "ends")
        if len(ends) != 2:
            _refuse("a cable has not two ends")
        cables.append(Cable((str(ends[0]), str(ends[1])), _text(entry, "part")))
    return Fingerprint(
        _text(document, "rack"),
        _text(_object(document, "topology"), "sha256"),
        facts,
        tuple(sorted((name, str(serial)) for name, serial in switches.items())),
        tuple(cables),
    )


def _check_subjects(statement: Mapping[str, object], fingerprint: Fingerprint) -> None:
    """The subjects' digests are those of the facts that are listed, recomputed."""
    expected = {fingerprint.rack: fingerprint.digest}
    expected.update({f"{fingerprint.rack}/{facts.node}": facts.digest for facts in fingerprint.nodes})
    found = {}
    for entry in _objects(statement, "subject"):
        found[_text(entry, "name")] = _text(_object(entry, "digest"), "sha256")
    if found != expected:
        _refuse("its subjects are not the fingerprint's")


def _object(document: Mapping[str, object], key: str) -> dict[str, object]:
    value = document.get(key)
    if not isinstance(value, dict):
        _refuse(f"'{key}' is no object")
    return value


def _list(document: Mapping[str, object], key: str) -> list[object]:
    value = document.get(key)
    if not isinstance(value, list):
        _refuse(f"'{key}' is no list")
    return value


def _objects(document: Mapping[str, object], key: str) -> list[dict[str, object]]:
    return [
        entry if isinstance(entry, dict) else _refuse(f"'{key}' holds no objects") for entry in _list(document, key)
    ]


def _text(document: Mapping[str, object], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not value:
        _refuse(f"'{key}' is no text")
    return value


def _words(document: Mapping[str, object], key: str) -> str:
    """A text that may be empty, and must be there."""
    value = document.get(key)
    return value if isinstance(value, str) else _refuse(f"'{key}' is no text")


def _time(document: Mapping[str, object], key: str) -> datetime:
    try:
        at = datetime.fromisoformat(_text(document, key))
    except ValueError:
        _refuse(f"'{key}' is no time")
    return at if at.tzinfo is not None else _refuse(f"'{key}' has no time zone")


def _refuse(detail: str) -> NoReturn:
    raise CertificateRefusedError(Refusal.MALFORMED, f"it is signed, but {detail}")
