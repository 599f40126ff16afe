"""Why an image was not taken, code by code, and what to do."""

from __future__ import annotations

IMAGE_CODES = {
    "IMAGE_UNSIGNED": "There is no signed manifest beside the parts. Nothing unsigned is offered to a node: rackproof "
    "image sign RELEASE, where the site's image key is.",
    "IMAGE_MALFORMED": "The signed manifest is no image's, or contradicts itself: subjects that are not its parts, a "
    "root file system beyond the disk, a field that is not known. Copy the release again, or build it again.",
    "IMAGE_UNTRUSTED": "None of the image keys that this site trusts signed it. The key of certificates does not "
    "count. If you know who signed it, add their public key to keys/image-trust.yml.",
    "IMAGE_KEY_EXPIRED": "A key signed it that was in use before, and the image is dated after that time. Build and "
    "sign it again with the key that is in use.",
    "IMAGE_REVOKED": "Whoever signed it took it back. Build and sign another.",
    "IMAGE_ALTERED": "The signature is not of these bytes, or the readable manifest is not the signed one. Do not use "
    "it; copy it again from where it was signed, and find out who wrote to it.",
    "IMAGE_PART_MISSING": "A part that was signed is not there. Copy the release again.",
    "IMAGE_PART_TRUNCATED": "A part is shorter than it was signed: a copy that was cut off. Copy the release again.",
    "IMAGE_PART_ALTERED": "A part has other bytes than were signed, or is a link. Do not use it: a disk that goes bad, "
    "or somebody who writes to the folder.",
    "IMAGE_PART_EXTRA": "A file lies in the release that nobody signed. Move it out; find out where it came from.",
    "IMAGE_OLDER": "A newer release of that name is offered now. An old one may have holes that the newer one closed. "
    "To go back on purpose: rackproof image publish RELEASE --allow-older.",
    "IMAGE_OTHER_NAME": "What lies under a name in the provisioning root was signed with another name: somebody moved "
    "it there. Publish the release under its own.",
}
