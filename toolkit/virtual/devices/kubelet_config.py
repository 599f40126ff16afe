"""What a kubelet is told: flags, its configuration file, and drop-ins that override it in the order of their names.

Of kubelet(8) and KubeletConfiguration v1beta1 only what is named here has an effect; the rest is taken and ignored.
"""

from __future__ import annotations

import argparse
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .kube_files import KubeFileError, read_documents

_GROUP = "kubelet.config.k8s.io/"
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class ConfigError(Exception):
    """What the kubelet refuses to start with, in its words."""


@dataclass(frozen=True)
class Settings:
    """What it was told, with the defaults of KubeletConfiguration v1beta1.

    kubeconfig   its identity; None: no API server, the kubelet runs for itself
    bootstrap    the identity it asks for that one with
    root         where pods and certificates lie
    heartbeat_s  between two reports of the node's state; the lease is renewed at a quarter of `lease_s`
    serving      certificate and key that it serves with; None: one of its own, or with `asks_serving` one that the
                 cluster signs
    authorize    whether who may call it is asked of the API server (Webhook) or everyone with a certificate may
    """

    name: str
    address: str
    kubeconfig: Path | None
    bootstrap: Path | None
    root: Path
    certificates: Path
    labels: Mapping[str, str]
    taints: tuple[Mapping[str, str], ...]
    port: int
    healthz_port: int
    heartbeat_s: float
    lease_s: int
    client_ca: Path | None
    serving: tuple[Path, Path] | None
    asks_serving: bool
    authorize: bool
    max_pods: int


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(prog="kubelet", allow_abbrev=False)
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--config", default="")
    parser.add_argument("--config-dir", default="")
    parser.add_argument("--kubeconfig", default="")
    parser.add_argument("--bootstrap-kubeconfig", default="")
    parser.add_argument("--root-dir", default="/var/lib/kubelet")
    parser.add_argument("--cert-dir", default="")
    parser.add_argument("--hostname-override", default="")
    parser.add_argument("--node-ip", default="")
    parser.add_argument("--node-labels", default="")
    parser.add_argument("--register-with-taints", default="")
    return parser.parse_known_args(arguments)[0]


def load(flags: argparse.Namespace) -> Settings:
    """Everything put together; a flag wins over the files. ConfigError in the kubelet's words."""
    config = _merged(flags)
    name = (flags.hostname_override or socket.gethostname()).strip().lower()
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", name):
        raise ConfigError(f'failed to run Kubelet: invalid node name "{name}"')
    root = Path(flags.root_dir)
    access = config.get("authentication") or {}
    client_ca = (access.get("x509") or {}).get("clientCAFile")
    certificate, key = config.get("tlsCertFile"), config.get("tlsPrivateKeyFile")
    return Settings(
        name=name,
        address=flags.node_ip or _address(),
        kubeconfig=Path(flags.kubeconfig) if flags.kubeconfig else None,
        bootstrap=Path(flags.bootstrap_kubeconfig) if flags.bootstrap_kubeconfig else None,
        root=root,
        certificates=Path(flags.cert_dir) if flags.cert_dir else root / "pki",
        labels=_labels(flags.node_labels),
        taints=_taints(flags.register_with_taints, config.get("registerWithTaints")),
        port=int(config.get("port", 10250)),
        healthz_port=int(config.get("healthzPort", 10248)),
        heartbeat_s=seconds(config.get("nodeStatusUpdateFrequency") or "10s"),
        lease_s=int(config.get("nodeLeaseDurationSeconds") or 40),
        client_ca=Path(str(client_ca)) if client_ca else None,
        serving=(Path(str(certificate)), Path(str(key))) if certificate and key else None,
        asks_serving=bool(config.get("serverTLSBootstrap")),
        authorize=(config.get("authorization") or {}).get("mode", "Webhook") == "Webhook",
        max_pods=int(config.get("maxPods", 110)),
    )


def seconds(text: object) -> float:
    """A duration as Go writes it: 10s, 1m30s, 500ms; `0s` where there is none."""
    parts = re.findall(r"([0-9.]+)(ms|h|m|s)", str(text))
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def _merged(flags: argparse.Namespace) -> dict[str, Any]:
    """The file, then the drop-ins: mappings are merged, anything else of a later one replaces the earlier
    (kubernetes.io/docs/tasks/administer-cluster/kubelet-config-file).
    """
    paths = [Path(flags.config)] if flags.config else []
    if flags.config_dir:
        paths += sorted(Path(flags.config_dir).glob("*.conf"))
    config: dict[str, Any] = {}
    for path in paths:
        failed = f"failed to load kubelet config file, path: {path}, error: "
        try:
            found = read_documents(path)
        except KubeFileError as error:
            raise ConfigError(failed + str(error)) from error
        if len(found) != 1 or found[0].get("kind") != "KubeletConfiguration":
            raise ConfigError(failed + "no kind KubeletConfiguration is registered")
        if not str(found[0].get("apiVersion", "")).startswith(_GROUP):
            raise ConfigError(failed + "Object 'apiVersion' is missing, or of another group")
        config = _over(config, found[0])
    return config


def _over(under: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _labels(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(",") if part)
    labels = {key: value for key, _, value in pairs}
    # kubelet(8), --node-labels: "Labels in the 'kubernetes.io' namespace must begin with an allowed prefix"
    refused = sorted(key for key in labels if _reserved(key))
    if refused:
        raise ConfigError(f"unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: {refused}")
    return labels


def _reserved(key: str) -> bool:
    space = key.partition("/")[0] if "/" in key else ""
    ours = space in ("kubernetes.io", "k8s.io") or space.endswith((".kubernetes.io", ".k8s.io"))
    allowed = ("kubelet.kubernetes.io", "node.kubernetes.io")
    return ours and not any(space == name or space.endswith(f".{name}") for name in allowed)


def _taints(flag: str, configured: object) -> tuple[Mapping[str, str], ...]:
    if flag:
        found = [re.fullmatch(r"([^=:]+)(?:=([^:]*))?:(\w+)", part) for part in flag.split(",")]
        if not all(found):
            raise ConfigError(f"invalid argument {flag!r} for --register-with-taints")
        return tuple({"key": m[1], "value": m[2] or "", "effect": m[3]} for m in found if m)
    taints = configured if isinstance(configured, list) else []
    return tuple({k: str(t.get(k) or "") for k in ("key", "value", "effect")} for t in taints if isinstance(t, dict))


def _address() -> str:
    """The address that packets to elsewhere would leave from; no packet is sent."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1, RFC 5737
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ConfigError(f"failed to run Kubelet: no default routes found: {error}") from error
