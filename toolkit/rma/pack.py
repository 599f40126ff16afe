"""The archive: documents and raw outputs, redacted, bounded, hashed. The same evidence gives the same bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from toolkit import __version__
from toolkit.ledger import ArtifactError, Event, Ledger
from toolkit.rma.answers import Answer, answer
from toolkit.rma.evidence import Evidence, Raw, tried
from toolkit.rma.form import Form
from toolkit.rma.readme import readme
from toolkit.rma.redaction import Redactor

SCHEMA = "rackproof.dev/rma/1"
# A longer raw output is left out whole: nothing of it could be vouched for unread.
MAX_RAW_BYTES = 8 * 1024 * 1024
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # of the zip format


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A raw output that is not in the archive, and why."""

    name: str
    sha256: str
    why: str


@dataclass(frozen=True, slots=True)
class Packed:
    """An archive's files by path, before they are put into one. `answers`: the vendor's questions."""

    root: str
    files: Mapping[str, bytes]
    answers: tuple[Answer, ...]
    redacted: Mapping[str, int]
    left_out: tuple[LeftOut, ...]


@dataclass(slots=True)
class _Entries:
    """What the manifest says of each file."""

    files: dict[str, bytes] = field(default_factory=dict)
    told: list[dict[str, object]] = field(default_factory=list)

    def add(self, path: str, content: bytes, **more: object) -> None:
        self.files[path] = content
        self.told.append({"path": path, "bytes": len(content), "sha256": _sha256(content), **more})


def pack(ledger: Ledger, evidence: Evidence, form: Form, redactor: Redactor) -> Packed:
    """Everything that goes in. Hidden names are counted over all of it."""
    answers = tuple(answer(question, evidence) for question in form.questions)
    entries = _Entries()
    for path, document in _documents(evidence, answers).items():
        entries.add(path, _json(redactor.value(document)))
    left_out = _raw_outputs(ledger, evidence.raw, form, redactor, entries)
    hidden = tuple(_answer(redactor, a) for a in answers)
    text = readme(evidence, hidden, tuple(entries.files), left_out, redactor)
    entries.add("README.txt", text.encode("utf-8"))
    manifest: dict[str, object] = {
        "schema": SCHEMA, "tool": f"rackproof {__version__}", "until": evidence.until.isoformat(),
        "run": evidence.run.id, "code": evidence.run.code, "parts": [asdict(p) for p in evidence.parts],
        "unknown": [a.ask for a in answers if not a.known],
        "limits": {"artifact_bytes": form.artifact_bytes, "total_bytes": form.total_bytes},
        "files": sorted(entries.told, key=lambda e: str(e["path"])), "left_out": [asdict(one) for one in left_out],
    }  # fmt: skip
    told = redactor.value(manifest)
    counts = {kind: redactor.counts[kind] for kind in ("host", "address", "mac", "user", "secret")}
    hidden_words = {"policy": asdict(redactor.policy), "replaced_or_removed": counts}
    files = dict(entries.files) | {"manifest.json": _json({"manifest": told, "redaction": hidden_words})}
    sums = "".join(f"{_sha256(content)}  {path}\n" for path, content in sorted(files.items()))
    files["SHA256SUMS"] = sums.encode()
    return Packed(_root(evidence), files, hidden, counts, left_out)


def archive(packed: Packed, kind: str) -> bytes:
    """The files in one: `zip`, or `tar.gz`. No time, owner or order of this machine is in it."""
    members = [(f"{packed.root}/{path}", content) for path, content in sorted(packed.files.items())]
    return _zip(members) if kind == "zip" else _tar_gz(members)


def _documents(e: Evidence, answers: Sequence[Answer]) -> dict[str, object]:
    gpus = {str(i): {"serial": seat.serial, "pci": seat.pci} for i, seat in sorted(e.seats.items())}
    read = asdict(e.read.gpu) if e.read else None
    return {
        "questions.json": [asdict(a) for a in answers],
        "subject.json": {
            "blamed": [asdict(p) for p in e.parts], "code": e.run.code, "message": e.run.message,
            "system": {"sku": e.rack.profile.sku, "serial": e.node.serial, "slot": e.node.slot, "rack": e.rack.name},
            "gpus": gpus, "hcas": [asdict(h) for h in e.node.hcas],
            "driver": e.read.driver if e.read else None, "part_numbers": dict(e.read.numbers) if e.read else None,
            "vbios": e.read.gpu.vbios if e.read else None,
        },
        "findings.json": list(e.findings),
        "xids.json": {"events": list(e.xids), "doubt": e.log_doubt},
        "counters.json": {
            "read_at": e.read.at.isoformat() if e.read else None, "artifact": e.read.artifact if e.read else None,
            "gpu": read, "during_burn_in": [_measurement(m) for m in e.around],
        },
        "measurements.json": {
            "failing": [_measurement(m) for m in e.failing], "control": [_measurement(m) for m in e.control],
            "healthy_neighbours": list(e.neighbours),
        },
        "history.json": {
            "removals": [asdict(r) | {"at": r.at.isoformat()} for r in e.removals],
            "certificates": [asdict(c) for c in e.certificates],
            "recovery": [_tried(event) for event in e.rungs],
            "moves": [{"at": m.at.isoformat(), "what": m.what, "reason": m.body.get("reason", "")} for m in e.moves],
        },
    }  # fmt: skip


def _measurement(m: Any) -> dict[str, object]:
    return {
        "metric": m.metric, "unit": m.unit, "value": m.value, "subject": str(m.subject), "at": m.at.isoformat(),
        "run": m.run, "artifact": m.origin,
    }  # fmt: skip


def _tried(event: Event) -> dict[str, object]:
    what, how = tried(event)
    return {"at": event.at.isoformat(), "what": what, "how": how}


def _raw_outputs(
    ledger: Ledger, raw: Sequence[Raw], form: Form, redactor: Redactor, entries: _Entries
) -> tuple[LeftOut, ...]:
    left_out: list[LeftOut] = []
    room = form.total_bytes
    for one in raw:
        content = _text_of(ledger, one)
        if isinstance(content, LeftOut):
            left_out.append(content)
            continue
        before = redactor.counts.total()
        hidden = redactor.text(content).encode("utf-8")
        whole, hidden = len(hidden), _cut(hidden, form.artifact_bytes)
        if len(hidden) > room:
            why = f"over the archive's bound of {form.total_bytes} bytes"
            left_out.append(LeftOut(one.name, one.digest, why))
            continue
        room -= len(hidden)
        more = {"name": one.name, "original_sha256": one.digest, "replaced": redactor.counts.total() - before}
        entries.add(f"raw/{one.digest[:16]}.txt", hidden, **more, cut_bytes=max(0, whole - form.artifact_bytes))
    return tuple(left_out)


def _text_of(ledger: Ledger, one: Raw) -> str | LeftOut:
    try:
        size = ledger.artifacts.path(one.digest).stat().st_size
        if size > MAX_RAW_BYTES:
            return LeftOut(one.name, one.digest, f"{size} bytes: more than are read for names to hide")
        content = ledger.artifacts.get(one.digest)
        if b"\0" in content:
            return LeftOut(one.name, one.digest, "not text: names in it could not be hidden")
        return content.decode("utf-8", "backslashreplace")
    except (ArtifactError, OSError) as gone:
        return LeftOut(one.name, one.digest, f"it is not to be had: {gone}"[:200])


def _cut(content: bytes, most: int) -> bytes:
    """The beginning and the end of what is too long, each to a whole line where there is one."""
    if len(content) <= most:
        return content
    half = most // 2
    head, tail = content[:half], content[-half:]
    head = head[: head.rfind(b"\n") + 1] or head
    tail = tail[tail.find(b"\n") + 1 :] or tail
    return head + f"[{len(content) - len(head) - len(tail)} bytes left out]\n".encode() + tail


def _answer(redactor: Redactor, told: Answer) -> Answer:
    return Answer(
        told.ask, told.known, redactor.text(told.answer), tuple(redactor.text(e) for e in told.evidence), told.how,
        told.source,
    )  # fmt: skip


def _root(e: Evidence) -> str:
    serial = next(iter(e.serials), e.node.serial)
    return "rma-" + "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in serial)[:64]


def _json(value: object) -> bytes:
    """Control characters and everything beyond ASCII as escapes: safe to show as it is."""
    return (json.dumps(value, indent=1, sort_keys=True, default=str) + "\n").encode("ascii")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _tar_gz(members: Sequence[tuple[str, bytes]]) -> bytes:
    packed = io.BytesIO()
    # No name and no time in the header of gzip either (RFC 1952).
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _zip(members: Sequence[tuple[str, bytes]]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            entry = zipfile.ZipInfo(name, _EARLIEST)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16  # Unix, wherever it is packed
            entry.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(entry, content)
    return packed.getvalue()
