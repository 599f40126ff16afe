"""A kubeconfig, read with lightkube; what would be less safe, or other, than it says is refused and never ignored."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import InputError, Problem, UsageError

if TYPE_CHECKING:
    from lightkube.config.kubeconfig import SingleConfig

_MAX_BYTES = 1 << 20
_REFUSED = {
    "exec": "runs a program to log in, which has no deadline and may ask somebody",
    "auth-provider": "was removed from Kubernetes",
    "as": "acts as somebody else",
    "as-groups": "acts as somebody else",
    "as-uid": "acts as somebody else",
}
_LOGIN = "use a client certificate, or the token of a service account (`token` or `tokenFile`)"


def load(path: Path, context: str = "") -> SingleConfig:
    """The context of that name, or the current one. Talks to nobody.

    Raises UsageError for a file that is missing or that others may read, InputError for one that is wrong.
    """
    from lightkube.config.kubeconfig import KubeConfig
    from lightkube.core.exceptions import ConfigError
    from msgspec import MsgspecError

    document = _document(path)
    name = context or document.get("current-context")
    if not isinstance(name, str) or not name:
        raise _wrong(path, "current-context", "no context is named", "name one in the file, or in the site's pool file")
    try:
        chosen = KubeConfig.from_dict(document, fname=path).get(name)
    except ConfigError as error:
        raise _wrong(path, "contexts", str(error), "one of the contexts of this file") from None
    except (KeyError, TypeError, AttributeError, MsgspecError) as error:
        raise _wrong(
            path, "", f"not a kubeconfig: {type(error).__name__} {error}"[:200], "kubectl config view"
        ) from None
    if chosen is None:  # lightkube's type only: it raises
        raise _wrong(path, "contexts", f"no context {name}", "one of the contexts of this file")
    _check(path, document, chosen)
    return chosen


def _document(path: Path) -> dict[str, Any]:
    import yaml

    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"reading the kubeconfig {path}: {error.strerror}", "put the cluster's there, mode 0600"
        ) from None
    if mode & 0o077:
        raise UsageError(f"{path} has mode {mode:04o}: others can read the cluster's login", f"chmod 600 {path}")
    try:
        document = yaml.safe_load(text) if len(text) <= _MAX_BYTES else None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)  # the error's text would quote the file
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise InputError((Problem(str(path), line, column, "", "not YAML"),)) from None
    if not isinstance(document, dict):
        raise _wrong(path, "", "not a kubeconfig", "a mapping with clusters, users and contexts, of 1 MiB at most")
    return document


def _check(path: Path, document: dict[str, Any], chosen: SingleConfig) -> None:
    """Everything that would make the connection less than it claims to be."""
    cluster = _entry(document, "clusters", "cluster", chosen.context.cluster)
    user = _entry(document, "users", "user", chosen.context.user or "")
    at = f"clusters[{chosen.context.cluster}]"
    if cluster.get("insecure-skip-tls-verify"):
        raise _wrong(path, f"{at}.insecure-skip-tls-verify", "the server would not be verified", "name its CA instead")
    if not chosen.cluster.server.startswith("https://"):
        raise _wrong(path, f"{at}.server", "not https://, so anybody could answer", "the API server's https address")
    if chosen.user is None:
        raise _wrong(path, f"contexts[{chosen.context_name}].user", "names no user", _LOGIN)
    for field, why in _REFUSED.items():
        if user.get(field):
            raise _wrong(path, f"users[{chosen.context.user}].{field}", f"not supported: it {why}", _LOGIN)
    for field in ("proxy-url", "tls-server-name"):
        if cluster.get(field):
            raise _wrong(
                path, f"{at}.{field}", "not supported", "name an address that is reached and verified as it is"
            )


def _entry(document: dict[str, Any], table: str, key: str, name: str) -> dict[str, Any]:
    found = [row[key] for row in document.get(table) or () if row["name"] == name]
    return dict(found[-1] or {}) if found else {}


def _wrong(path: Path, field: str, wrong: str, right: str) -> InputError:
    return InputError((Problem(str(path), 1, 1, field, wrong, right),))
