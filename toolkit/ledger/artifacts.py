"""Raw evidence on disk, named by its sha256."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EDQUOT, EFBIG, ENOSPC
from pathlib import Path
from typing import IO

from toolkit.errors import RackproofError
from toolkit.ledger.errors import ArtifactError, LedgerError, LedgerFullError

_CHUNK_BYTES = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Artifacts:
    """A folder of files `ab/abcd...`. A file that is there is whole: it was written aside, synced and renamed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, source: bytes | Path) -> str:
        """Keeps the bytes, or a copy of the file, and answers their sha256. Putting the same again is harmless."""
        with self._writable():
            incoming = self._folder / "incoming"
            incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=incoming, delete=False) as aside:
                try:
                    digest = _copy(source, aside)
                    self._settle(aside, digest)
                except BaseException:
                    with suppress(FileNotFoundError):
                        Path(aside.name).unlink()
                    raise
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes. Raises ArtifactError if they are missing or are not those of their name."""
        try:
            content = self.path(digest).read_bytes()
        except FileNotFoundError:
            raise self._missing(digest) from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise self._altered(digest)
        return content

    def verify(self, digest: str) -> Path:
        """The path of the artifact after reading it once. Raises ArtifactError as `get` does."""
        path = self.path(digest)
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise self._missing(digest) from None
        if found != digest:
            raise self._altered(digest)
        return path

    def path(self, digest: str) -> Path:
        """Where the artifact of that sha256 is or would be; nothing is read."""
        if not _DIGEST.fullmatch(digest):
            raise RackproofError(f"not the sha256 of an artifact: {digest[:80]!r}")
        return self._folder / digest[:2] / digest

    def _settle(self, aside: IO[bytes], digest: str) -> None:
        aside.flush()
        os.fchmod(aside.fileno(), 0o440)
        os.fsync(aside.fileno())
        target = self.path(digest)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        # Replacing a file of the same name also heals one that was damaged.
        Path(aside.name).replace(target)
        for folder in (target.parent, self._folder):
            _sync_folder(folder)

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            if exc.errno in (ENOSPC, EDQUOT, EFBIG):
                raise LedgerFullError(f"artifact store {self._folder}", str(exc.strerror)) from exc
            raise LedgerError(
                f"an artifact could not be stored in {self._folder}: {exc}",
                "check the folder's owner and permissions, and that the source file is there",
            ) from exc

    def _missing(self, digest: str) -> ArtifactError:
        return ArtifactError(
            f"artifact {digest} is not in {self._folder}",
            "restore it from a copy, or measure again: what rests on it is not proven",
        )

    def _altered(self, digest: str) -> ArtifactError:
        return ArtifactError(
            f"artifact {self.path(digest)} is damaged: its bytes are not those of its name",
            "restore it from a copy, or measure again: what rests on it is not proven",
        )


def _copy(source: bytes | Path, target: IO[bytes]) -> str:
    if isinstance(source, bytes):
        target.write(source)
        return hashlib.sha256(source).hexdigest()
    digest = hashlib.sha256()
    with source.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            target.write(chunk)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
