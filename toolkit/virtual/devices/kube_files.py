"""Files of a Kubernetes node: YAML documents, kubeconfigs, and PEM files that only root may read."""

from __future__ import annotations

import base64
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MAX_BYTES = 4 << 20
_OPENSSL_S = 30


class KubeFileError(Exception):
    """A file that cannot be used; its text says which and why."""


@dataclass(frozen=True)
class Access:
    """How a kubeconfig's current context reaches its cluster. `ca`: PEM; a token, a pair of PEM files, or neither."""

    server: str
    ca: str
    token: str = ""
    certificate: str = ""
    key: str = ""


def documents(text: str, path: object) -> list[dict[str, Any]]:
    """Every YAML (or JSON) document of a file that is a mapping. KubeFileError for another or a broken one."""
    import yaml  # python3-yaml of the node's image

    try:
        found = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise KubeFileError(f"{path}: not YAML: {' '.join(str(error).split())[:300]}") from error
    if not all(isinstance(document, dict) for document in found):
        raise KubeFileError(f"{path}: not a mapping")
    return found


def read_documents(path: Path) -> list[dict[str, Any]]:
    """As `documents`, of a file. KubeFileError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return documents(file.read(_MAX_BYTES).decode(errors="replace"), path)
    except OSError as error:
        raise KubeFileError(f"open {path}: {(error.strerror or str(error)).lower()}") from error


def write_private(path: Path, text: str, mode: int = 0o600) -> None:
    """Replaces the file as a whole; nobody ever sees half of it, or more of it than `mode` says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
    Path(aside).replace(path)


def kubeconfig(server: str, ca: str, user: str, credentials: Mapping[str, str]) -> str:
    """A kubeconfig with one context."""
    import yaml

    encoded = base64.b64encode(ca.encode()).decode()
    cluster = {"server": server, "certificate-authority-data": encoded}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "kubernetes", "cluster": cluster}],
            "users": [{"name": user, "user": dict(credentials)}],
            "contexts": [{"name": f"{user}@kubernetes", "context": {"cluster": "kubernetes", "user": user}}],
            "current-context": f"{user}@kubernetes",
        },
        sort_keys=False,
    )


def read_access(path: Path) -> Access:
    """The current context of a kubeconfig. KubeFileError where it does not say where to go."""
    found = read_documents(path)
    return access(found[0] if found else {}, path)


def access(config: Mapping[str, Any], path: object) -> Access:
    """As `read_access`, of a kubeconfig that was read. A context it lacks is the first cluster without a user."""
    clusters = {c.get("name"): c.get("cluster") or {} for c in config.get("clusters") or ()}
    users = {u.get("name"): u.get("user") or {} for u in config.get("users") or ()}
    contexts = {c.get("name"): c.get("context") or {} for c in config.get("contexts") or ()}
    context = contexts.get(config.get("current-context"), {})
    cluster = clusters.get(context.get("cluster")) or next(iter(clusters.values()), {})
    user = users.get(context.get("user")) or {}
    if not str(cluster.get("server", "")).startswith("https://"):
        raise KubeFileError(f"{path}: it names no cluster with an https:// server")
    return Access(
        server=str(cluster["server"]).rstrip("/"),
        ca=_pem(cluster, "certificate-authority", path),
        token=str(user.get("token", "")),
        certificate=_file(user, "client-certificate", path),
        key=_file(user, "client-key", path),
    )


def _pem(entry: Mapping[str, Any], key: str, path: object) -> str:
    """PEM text that is in the kubeconfig, or in a file that it names."""
    data = entry.get(f"{key}-data")
    try:
        if data:
            return base64.b64decode(str(data), validate=True).decode()
        return Path(str(entry[key])).read_text() if entry.get(key) else ""
    except (ValueError, OSError) as error:
        raise KubeFileError(f"{path}: unable to read {key}: {error}") from error


def _file(entry: Mapping[str, Any], key: str, path: object) -> str:
    """Path of a PEM file that the kubeconfig names, or of one with what it holds (Python's TLS wants files)."""
    if entry.get(key):
        return str(entry[key])
    text = _pem(entry, key, path)
    if not text:
        return ""
    home = Path(str(path)).with_name(f".{Path(str(path)).name}.{key}.pem")
    write_private(home, text)
    return str(home)


def openssl(*arguments: str, given: str = "") -> str:
    """What openssl(1) answers; secrets go in `given` or in files. KubeFileError with its words where it fails."""
    try:
        done = subprocess.run(
            ["openssl", *arguments], input=given.encode(), capture_output=True, timeout=_OPENSSL_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KubeFileError(f"openssl {arguments[0]}: {error}") from error
    if done.returncode:
        raise KubeFileError(f"openssl {arguments[0]}: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return done.stdout.decode(errors="replace")
