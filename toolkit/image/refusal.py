"""Why an image is not taken: one code each, with the part that it is about."""

from __future__ import annotations

from enum import StrEnum

from toolkit.errors import UsageError


class ImageRefusal(StrEnum):
    """Stable names; each is a reason why nothing of a release is offered or written."""

    UNSIGNED = "IMAGE_UNSIGNED"
    MALFORMED = "IMAGE_MALFORMED"
    UNTRUSTED = "IMAGE_UNTRUSTED"
    KEY_EXPIRED = "IMAGE_KEY_EXPIRED"
    REVOKED = "IMAGE_REVOKED"
    ALTERED = "IMAGE_ALTERED"
    PART_MISSING = "IMAGE_PART_MISSING"
    PART_TRUNCATED = "IMAGE_PART_TRUNCATED"
    PART_ALTERED = "IMAGE_PART_ALTERED"
    PART_EXTRA = "IMAGE_PART_EXTRA"
    OLDER = "IMAGE_OLDER"
    OTHER_NAME = "IMAGE_OTHER_NAME"


_NEXT = {
    ImageRefusal.UNSIGNED: "rackproof image sign RELEASE, where the site's image key is",
    ImageRefusal.MALFORMED: "copy the release again from where it was built, or build it again",
    ImageRefusal.UNTRUSTED: "if you know who signed it, add their public key to keys/image-trust.yml",
    ImageRefusal.KEY_EXPIRED: "build and sign it again with the key that is in use",
    ImageRefusal.REVOKED: "build and sign another",
    ImageRefusal.ALTERED: "do not use it; copy it again from where it was signed",
    ImageRefusal.PART_MISSING: "copy the release again from where it was signed",
    ImageRefusal.PART_TRUNCATED: "copy the release again from where it was signed",
    ImageRefusal.PART_ALTERED: "do not use it; copy the release again from where it was signed",
    ImageRefusal.PART_EXTRA: "nobody signed it: move it out of the folder",
    ImageRefusal.OLDER: "to go back on purpose: rackproof image publish RELEASE --allow-older",
    ImageRefusal.OTHER_NAME: "publish the release again under the name that it was signed with",
}


class ImageRefusedError(UsageError):
    """The release is not what its signature says. `part` is the file it is about; empty: the manifest itself."""

    def __init__(self, refusal: ImageRefusal, detail: str, part: str = "", hint: str = "") -> None:
        super().__init__(f"{refusal}: {detail}", hint or _NEXT[refusal])
        self.refusal = refusal
        self.part = part
