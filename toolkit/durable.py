"""Files that are there whole or not at all, whenever a reader comes and whenever the writer is killed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Makes `path` hold exactly `content`: written beside, flushed to the disk, then renamed over it.

    Its folder is made if it is missing. Raises OSError, and then `path` is as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as aside:
        try:
            os.fchmod(aside.fileno(), mode)
            aside.write(content)
            aside.flush()
            os.fsync(aside.fileno())
            Path(aside.name).replace(path)
        except BaseException:
            Path(aside.name).unlink(missing_ok=True)
            raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # the new name must outlive a power cut too
    finally:
        os.close(folder)
