"""What is asked of a node here and nowhere else: the image it was made from, its clock, its kernel's arguments."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from toolkit.facts.probe import Probe
from toolkit.facts.unreadable import UnreadableError

MAX_ARGUMENTS = 512
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SECONDS = re.compile(r"\d{9,11}\.\d{9}\Z")
_REBOOT = "f=/run/reboot-required; [ -e $f ] || { echo none; exit 0; }; exec head -c 4096 $f"
_OURS = re.compile(r"^rackproof: (.{1,400})$", re.MULTILINE)  # as the role kernel_settings writes it


def seconds(text: str) -> float:
    """Seconds since 1970 of `date +%s.%N`."""
    found = text.strip()
    if not _SECONDS.match(found) or not math.isfinite(value := float(found)):
        raise UnreadableError("not the seconds and nanoseconds of `date +%s.%N`")
    return value


def arguments(text: str) -> list[str]:
    """Words of /proc/cmdline, in order."""
    words = text.split()
    if not words or len(words) > MAX_ARGUMENTS:
        raise UnreadableError(f"not 1 to {MAX_ARGUMENTS} words: not /proc/cmdline")
    return words


def pending(text: str) -> dict[str, Any]:
    """What waits for a reboot by rackproof's own word; `ours` None: nothing of ours."""
    found = _OURS.search(text)
    return {"ours": found[1] if found else None, "any": text.strip() != "none"}


def planted_image(text: str) -> str:
    """sha256 of the image that a node was made from, of the file that imaging planted (`seeds.seed_files`)."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableError("not JSON") from error
    image = told.get("image") if isinstance(told, dict) else None
    if not isinstance(image, str) or not _SHA256.fullmatch(image):
        raise UnreadableError("no sha256 of an image in it")
    return image


PLANTED = Probe("image", ("cat", "/etc/rackproof/node.json"), planted_image, 20)
CLOCK = Probe("clock", ("date", "+%s.%N"), seconds, 20)
ARGUMENTS = Probe("kernel_arguments", ("cat", "/proc/cmdline"), arguments, 20)
REBOOT = Probe("reboot", ("sh", "-c", _REBOOT), pending, 20)
