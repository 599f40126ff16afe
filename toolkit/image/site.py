"""The site's image key and whom this installation believes about images. Apart from certificates' on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from toolkit.certificate.purpose import Purpose
from toolkit.certificate.rotation import installed_trust
from toolkit.certificate.sign import SigningKey, load_or_create, passphrase
from toolkit.certificate.trust import Trust


def image_key(keys: Path, env: Mapping[str, str]) -> SigningKey:
    """The key that images are signed with (`image.key`), made when it is first needed. Raises UsageError for one that
    is not ours to use.
    """
    return load_or_create(keys, passphrase(env), Purpose.IMAGE)


def image_trust(keys: Path, now: datetime) -> Trust:
    """Those in `image-trust.yml`, and where there is none the site's own key. UsageError where there is neither."""
    return installed_trust(keys, now, Purpose.IMAGE)
