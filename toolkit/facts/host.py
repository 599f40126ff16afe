"""What a node's operating system says of itself: serial, image, packages, services, kubelet. Text in, values out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from toolkit.facts.unreadable import UnreadableError

MAX_WORD = 256
MAX_PACKAGES = 20_000
MAX_YAML = 256 * 1024
MAX_TAINTS = 64
MAX_ENTRIES = 1024
_ENTRY = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,252}")
_MODULE = re.compile(r"(\w{1,64}) \d{1,12} \d{1,6} \S{1,1000} (?:Live|Loading|Unloading) ")
_PACKAGE = re.compile(r"([a-z0-9][a-z0-9+.\-]{1,127})(?::\w{1,16})? (\S{1,128}) installed\Z")
_MANAGER = re.compile(r"[Ff]abric ?[Mm]anager version is ?: ?(\d{1,4}(?:\.\d{1,4}){1,3})\b")
_SHOWN = ("LoadState", "ActiveState", "SubState", "UnitFileState")


def word(text: str) -> str:
    """The one line of a one-line file. Raises UnreadableError for an empty, long or many-lined one."""
    found = text.strip()
    if not found:
        raise UnreadableError("empty")
    if len(found) > MAX_WORD or not found.isprintable():
        raise UnreadableError(f"not one printable line of at most {MAX_WORD} characters")
    return found


def fabric_manager_version(text: str) -> str:
    """The version in `nv-fabricmanager --version`."""
    found = _MANAGER.search(text)
    if found is None:
        raise UnreadableError("no version of a fabric manager in it")
    return found[1]


def services(text: str) -> dict[str, dict[str, str]]:
    """States by unit of `systemctl show --property=Id,LoadState,ActiveState,SubState,UnitFileState UNIT...`."""
    found: dict[str, dict[str, str]] = {}
    for block in text.replace("\r", "").split("\n\n"):
        said = dict(line.split("=", 1) for line in block.split("\n") if "=" in line)
        if "Id" in said:
            found[said["Id"][:MAX_WORD]] = {key: said[key][:MAX_WORD] for key in _SHOWN if key in said}
    if not found:
        raise UnreadableError("no unit in it: not the output of `systemctl show`")
    return found


def nodes_config(text: str) -> dict[str, Any]:
    """sha256 and entries of IMEX's nodes_config.cfg, printed as `sha256sum FILE; cat FILE`.

    The digest is of the bytes: the daemons compare the file by position, comments and all. `absent` alone: there is no
    such file, and the digest is None.
    """
    head, _, body = text.partition("\n")
    if head.strip() == "absent":
        return {"sha256": None, "entries": []}
    digest = re.fullmatch(r"([0-9a-f]{64})  \S{1,200}", head)
    lines = [line.strip() for line in body.split("\n")]
    entries = [line for line in lines if line and not line.startswith("#")]
    if digest is None or len(entries) > MAX_ENTRIES or any(not _ENTRY.fullmatch(e) for e in entries):
        raise UnreadableError("not a checksum and the names or addresses of at most 1024 nodes")
    return {"sha256": digest[1], "entries": entries}


def modules(text: str) -> list[str]:
    """Names of the loaded kernel modules, of /proc/modules."""
    found = sorted({m[1] for line in text.split("\n")[:MAX_PACKAGES] if (m := _MODULE.match(line))})
    if not found:
        raise UnreadableError("no module in it: not /proc/modules")
    return found


def packages(text: str) -> dict[str, str]:
    """Versions of the installed packages, of `dpkg-query` with the format of the probe."""
    lines = text.split("\n")
    if len(lines) > MAX_PACKAGES:
        raise UnreadableError(f"more than {MAX_PACKAGES} packages")
    found = {m[1]: m[2] for line in lines if (m := _PACKAGE.match(line))}
    if not found:
        raise UnreadableError("no installed package in it")
    return found


def kubelet(text: str) -> dict[str, Any]:
    """The taints a kubelet registers its node with, as `key[=value]:effect`, from its configuration and drop-ins.

    The documents come in the order the kubelet merges them; a list in a later one replaces an earlier one
    (kubernetes.io/docs/tasks/administer-cluster/kubelet-config-file, "merging order").
    """
    import yaml

    if len(text) > MAX_YAML:
        raise UnreadableError(f"longer than {MAX_YAML} characters")
    try:
        documents = [d for d in yaml.safe_load_all(text) if d is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UnreadableError(f"not YAML: {type(error).__name__}") from error
    if not documents or any(not isinstance(d, Mapping) or d.get("kind") != "KubeletConfiguration" for d in documents):
        raise UnreadableError("not a KubeletConfiguration")
    taints: object = []
    for document in documents:
        taints = document.get("registerWithTaints", taints)
    if not isinstance(taints, list) or len(taints) > MAX_TAINTS:
        raise UnreadableError("registerWithTaints is not a list of taints")
    return {"taints": [_taint(t) for t in taints]}


def _taint(raw: object) -> str:
    if not isinstance(raw, Mapping) or not all(isinstance(raw.get(k), str) for k in ("key", "effect")):
        raise UnreadableError("a taint without key or effect")
    value = raw.get("value")
    return f"{raw['key']}{f'={value}' if value else ''}:{raw['effect']}"[:MAX_WORD]
