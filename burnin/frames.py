"""Files over a channel that keeps only text lines and may lose, cut, repeat or mix them: a container's log.

    @rackproof1 SEQ KIND NAME SIZE CHAIN PAYLOAD

    SEQ      0, 1, 2, ... without a gap
    KIND     hello (once, first), records, artifact, end (once, last)
    NAME     of the file; `-` for hello and end
    SIZE     of the payload's bytes, at most 8192
    CHAIN    sha256, in hexadecimal, of the CHAIN before it, of "SEQ KIND NAME SIZE\\n" and of the payload's bytes;
             before the first: of "rackproof frames 1\\nRUN\\nCARRIER\\nPROGRAM\\n", so that a line of another run, of
             another pod of the same run, or of another program fits nowhere
    PAYLOAD  in base64, compressed (zlib)

A line stays under 16 KiB, where container runtimes cut lines in two. hello and end hold a JSON object; end tells the
totals. What is not such a line is somebody else's word and no evidence. The chain finds what was lost or put in by
others; a program that lies from the start is not found by it, but by what it says.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator

MARK = "@rackproof1"
CHUNK_BYTES = 8192
NO_NAME = "-"
# The runtime writes a time, a stream and a tag before each line (CRI logging format), some 45 bytes.
_BESIDE_A_LINE = 64
_HEAD_BYTES = _BESIDE_A_LINE + 256  # what precedes a payload at most: the name has 128 characters, the chain 64


class Encoder:
    """Turns bytes into lines. `size` is what a log holds of them so far."""

    def __init__(self, run: str, carrier: str, program: str) -> None:
        """`carrier`: who writes, such as the pod's UID; `program`: its sha256."""
        self.size = 0
        self.frames = 0
        self._chain = hashlib.sha256(f"rackproof frames 1\n{run}\n{carrier}\n{program}\n".encode()).hexdigest()

    def lines(self, kind: str, name: str, content: bytes) -> Iterator[bytes]:
        """The lines that carry the content; at least one."""
        for start in range(0, max(1, len(content)), CHUNK_BYTES):
            yield self._line(kind, name, content[start : start + CHUNK_BYTES])

    def cost(self, content: bytes) -> int:
        """What a log would hold of the content's lines."""
        return sum(
            len(_packed(content[start : start + CHUNK_BYTES])) + _HEAD_BYTES
            for start in range(0, max(1, len(content)), CHUNK_BYTES)
        )

    def words(self, kind: str, told: dict[str, object]) -> bytes:
        """The one line of a hello or an end."""
        content = json.dumps(told, separators=(",", ":")).encode()
        if len(content) > CHUNK_BYTES:
            raise ValueError(f"{kind} of {len(content)} bytes: at most {CHUNK_BYTES}")
        return self._line(kind, NO_NAME, content)

    def _line(self, kind: str, name: str, payload: bytes) -> bytes:
        head = f"{self.frames} {kind} {name} {len(payload)}"
        self._chain = hashlib.sha256(f"{self._chain}{head}\n".encode() + payload).hexdigest()
        line = f"{MARK} {head} {self._chain} ".encode() + _packed(payload) + b"\n"
        self.frames += 1
        self.size += len(line) + _BESIDE_A_LINE
        return line


def _packed(payload: bytes) -> bytes:
    return base64.b64encode(zlib.compress(payload, 6))
