"""What a key of this installation signs. A key signs one kind of thing: who may sign images cannot admit a rack."""

from __future__ import annotations

from enum import StrEnum


class Purpose(StrEnum):
    """Kinds of signed things, each with files of its own in the folder of keys."""

    CERTIFICATE = "certificate"
    IMAGE = "image"

    @property
    def private(self) -> str:
        """File of the private key."""
        return f"{self}.key"

    @property
    def public(self) -> str:
        """File of the public key."""
        return f"{self}.pub"

    @property
    def trust(self) -> str:
        """File of those who are believed, where a site trusts others than its own key."""
        return "trust.yml" if self is Purpose.CERTIFICATE else f"{self}-trust.yml"
