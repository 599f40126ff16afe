"""`kubeadm` on a node: join, reset, upgrade node, version. Of `init` only that it refuses.

https://kubernetes.io/docs/reference/setup-tools/kubeadm/implementation-details/ (discovery, TLS bootstrap, messages).
Not done: the check that the control plane is of kubeadm's own minor version or the one before. The virtual rack's
control plane is of whatever version its programs are.
"""

from __future__ import annotations

import argparse
import http.client
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import kubeadm_discovery
from .kube_files import KubeFileError, kubeconfig, read_access, read_documents, write_private
from .kubeadm_discovery import Cluster, DiscoveryError
from .kubelet_config import seconds
from .node_api import ApiError, NodeApi, segment
from .state import packed_version

Object = dict[str, Any]
_GROUP = "kubeadm.k8s.io/"
_MIN_VERSIONS = ("v1beta3", "v1beta4")
_IGNORE = (
    "[preflight] If you know what you are doing, you can make a check non-fatal with `--ignore-preflight-errors=...`"
)
_NO_SYSTEMD = "no supported init system detected, "
_TLS_BOOTSTRAP_S, _DISCOVERY_S = 300.0, 300.0  # v1beta4, timeouts
_POLL_S = 0.2
_MAPS = "/api/v1/namespaces/kube-system/configmaps"


class KubeadmError(Exception):
    """What kubeadm says before it ends with status 1."""


class Places:
    """Where kubeadm reads and writes; `root` stands for `/` (kubeadm --rootfs)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.kubernetes = root / "etc/kubernetes"
        self.kubelet_conf = self.kubernetes / "kubelet.conf"
        self.bootstrap_conf = self.kubernetes / "bootstrap-kubelet.conf"
        self.ca = self.kubernetes / "pki/ca.crt"
        self.kubelet = root / "var/lib/kubelet"
        self.config = self.kubelet / "config.yaml"
        self.flags = self.kubelet / "kubeadm-flags.env"


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="kubeadm", allow_abbrev=False)
    parser.add_argument("--rootfs", default="/", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    version = commands.add_parser("version", allow_abbrev=False)
    version.add_argument("-o", "--output", default="")
    join = commands.add_parser("join", allow_abbrev=False)
    join.add_argument("--config", type=Path, required=True)
    join.add_argument("--ignore-preflight-errors", default="")
    reset = commands.add_parser("reset", allow_abbrev=False)
    reset.add_argument("-f", "--force", action="store_true")
    reset.add_argument("--cri-socket", default="")
    upgrade = commands.add_parser("upgrade", allow_abbrev=False)
    upgrade.add_argument("what", choices=("node",))
    init = commands.add_parser("init", allow_abbrev=False)
    init.add_argument("--config", type=Path)
    options = parser.parse_args(arguments)
    run: dict[str, Callable[[argparse.Namespace, Places], None]] = {
        "version": _version, "join": _join, "reset": _reset, "upgrade": _upgrade, "init": _init,
    }  # fmt: skip
    try:
        run[options.command](options, Places(options.rootfs))
    except KubeadmError as error:
        sys.stderr.write(f"{error}\nTo see the stack trace of this error execute with --v=5 or higher\n")
        return 1
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _version(options: argparse.Namespace, _: Places) -> None:
    number = packed_version("kubeadm")
    _say(f"v{number}" if options.output == "short" else f'kubeadm version: &version.Info{{GitVersion:"v{number}"}}')


def _init(_: argparse.Namespace, __: Places) -> None:
    image = f"registry.k8s.io/kube-apiserver:v{packed_version('kubeadm')}"
    raise KubeadmError(
        "error execution phase preflight: [preflight] Some fatal errors occurred:\n"
        f"\t[ERROR ImagePull]: failed to pull image {image}: a virtual node reaches no registry\n{_IGNORE}"
    )


# --- join --------------------------------------------------------------------------------------------------------


def _join(options: argparse.Namespace, places: Places) -> None:
    told = _configuration(options.config)
    _say("[preflight] Running pre-flight checks")
    _preflight(places, options.ignore_preflight_errors.split(","))
    limits = told.get("timeouts") or {}
    cluster = _discover(told, seconds(limits.get("discovery")) or _DISCOVERY_S)
    api = NodeApi(cluster.access(), agent="kubeadm")
    _say('[preflight] Reading configuration from the "kubeadm-config" ConfigMap in namespace "kube-system"...')
    name = _node_name(told)
    config = _kubelet_config(api)
    _refuse_taken(api, name)
    write_private(places.bootstrap_conf, kubeconfig(cluster.server, cluster.ca, "tls-bootstrap-token-user", {
        "token": cluster.token,
    }))  # fmt: skip
    try:
        write_private(places.ca, cluster.ca, 0o644)
        _systemctl("stop", "kubelet")
        _say(f'[kubelet-start] Writing kubelet configuration to file "{places.config}"')
        write_private(places.config, config, 0o644)
        _say(f'[kubelet-start] Writing kubelet environment file with flags to file "{places.flags}"')
        write_private(places.flags, _flags(told), 0o644)
        _say("[kubelet-start] Starting the kubelet")
        _systemctl("restart", "kubelet")
        _wait_for_identity(places, config, seconds(limits.get("tlsBootstrap")) or _TLS_BOOTSTRAP_S)
        _mark_socket(places, name, str((told.get("nodeRegistration") or {}).get("criSocket") or ""))
    finally:
        places.bootstrap_conf.unlink(missing_ok=True)  # the token in it is worth a membership
    _say(
        "\nThis node has joined the cluster:\n"
        "* Certificate signing request was sent to apiserver and a response was received.\n"
        "* The Kubelet was informed of the new secure connection details.\n\n"
        "Run 'kubectl get nodes' on the control-plane to see this node join the cluster.\n"
    )


def _configuration(path: Path) -> Object:
    try:
        found = [d for d in read_documents(path) if d.get("kind") == "JoinConfiguration"]
    except KubeFileError as error:
        raise KubeadmError(f"unable to read config from {str(path)!r}: {error}") from error
    if len(found) != 1:
        raise KubeadmError("no kind JoinConfiguration in the configuration file")
    group, _, version = str(found[0].get("apiVersion", "")).partition("/")
    if f"{group}/" != _GROUP or version not in _MIN_VERSIONS:
        raise KubeadmError(f'no kind "JoinConfiguration" is registered for version "{group}/{version}"')
    return found[0]


def _preflight(places: Places, ignored: list[str]) -> None:
    checks = {
        "IsPrivilegedUser": "" if os.geteuid() == 0 else "user is not running as root",
        "DirAvailable--etc-kubernetes-manifests": _not_empty(places.kubernetes / "manifests"),
        "FileAvailable--etc-kubernetes-kubelet.conf": _there(places.kubelet_conf),
        "FileAvailable--etc-kubernetes-bootstrap-kubelet.conf": _there(places.bootstrap_conf),
        "FileAvailable--etc-kubernetes-pki-ca.crt": _there(places.ca),
    }
    wrong = {check: why for check, why in checks.items() if why and not {check.lower(), "all"} & set(ignored)}
    if wrong:
        rows = "".join(f"\t[ERROR {check}]: {why}\n" for check, why in wrong.items())
        raise KubeadmError(f"error execution phase preflight: [preflight] Some fatal errors occurred:\n{rows}{_IGNORE}")


def _there(path: Path) -> str:
    return f"{path} already exists" if path.exists() else ""


def _not_empty(folder: Path) -> str:
    return f"{folder} is not empty" if folder.is_dir() and any(folder.iterdir()) else ""


def _discover(told: Object, limit_s: float) -> Cluster:
    try:
        return kubeadm_discovery.discover(told, limit_s)
    except DiscoveryError as error:
        raise KubeadmError(
            f"error execution phase preflight: couldn't validate the identity of the API Server: {error}"
        ) from error


def _kubelet_config(api: NodeApi) -> str:
    """The kubelets' configuration; the cluster's own is read too, as proof that the token may."""
    try:
        for name, key in (("kubeadm-config", "ClusterConfiguration"), ("kubelet-config", "kubelet")):
            found = (api.get(f"{_MAPS}/{name}").get("data") or {}).get(key)
            if found is None:
                raise KubeadmError(f'error execution phase preflight: the ConfigMap "{name}" has no key "{key}"')
    except ApiError as error:
        raise KubeadmError(
            f"error execution phase preflight: unable to fetch the {name} ConfigMap: failed to get config map: {error}"
        ) from error
    return str(found)


def _node_name(told: Object) -> str:
    return str((told.get("nodeRegistration") or {}).get("name") or os.uname().nodename).strip().lower()


def _refuse_taken(api: NodeApi, name: str) -> None:
    """Two machines of one name would take turns at being one node."""
    try:
        node = api.get(f"/api/v1/nodes/{segment(name)}")
    except ApiError as error:
        if error.status == http.HTTPStatus.NOT_FOUND:
            return
        raise KubeadmError(f'error execution phase kubelet-start: cannot get Node "{name}": {error}') from error
    conditions = (node.get("status") or {}).get("conditions") or ()
    if any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions):
        raise KubeadmError(
            f'error execution phase kubelet-start: a Node with name "{name}" and status "Ready" already exists in the '
            "cluster. You must delete the existing Node or change the name of this new joining Node"
        )


def _flags(told: Object) -> str:
    """KUBELET_KUBEADM_ARGS: v1beta4 has a list of arguments, v1beta3 a mapping."""
    registration = told.get("nodeRegistration") or {}
    extra = registration.get("kubeletExtraArgs") or []
    pairs = list(extra.items()) if isinstance(extra, dict) else [(a["name"], a["value"]) for a in extra]
    if registration.get("criSocket"):
        pairs.insert(0, ("container-runtime-endpoint", registration["criSocket"]))
    if registration.get("name") and "hostname-override" not in dict(pairs):
        pairs.append(("hostname-override", registration["name"]))
    taints = [f"{t['key']}={t.get('value') or ''}:{t['effect']}" for t in registration.get("taints") or ()]
    if taints:
        pairs.append(("register-with-taints", ",".join(taints)))
    words = " ".join(f"--{name}={value}" for name, value in pairs)
    return f'KUBELET_KUBEADM_ARGS="{words}"\n'


def _systemctl(verb: str, unit: str) -> None:
    if not Path("/run/systemd/system").is_dir():
        after = "won't make sure the kubelet is running properly." if verb == "restart" else "won't stop the kubelet."
        _say(f"[kubelet-start] {_NO_SYSTEMD}{after}")
        return
    subprocess.run(["systemctl", "daemon-reload"], check=False)
    done = subprocess.run(["systemctl", verb, f"{unit}.service"], check=False).returncode
    if done:
        sys.stderr.write(f"[kubelet-start] WARNING: unable to {verb} the kubelet service: exit status {done}\n")


def _wait_for_identity(places: Places, config: str, limit_s: float) -> None:
    """The kubelet has got its certificate when it has written its kubeconfig."""
    import yaml

    told = yaml.safe_load(config) or {}
    port = int(told.get("healthzPort", 10248))
    url = f"http://127.0.0.1:{port}/healthz"
    _say(f"[kubelet-check] Waiting for a healthy kubelet at {url}. This can take up to 4m0s")
    _say("[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap")
    end = time.monotonic() + limit_s
    while not places.kubelet_conf.exists():
        if time.monotonic() > end:
            well = _healthy(port)
            raise KubeadmError(
                "error execution phase kubelet-start: timed out waiting for the condition"
                if well
                else "error execution phase kubelet-start: The kubelet is not healthy after "
                f"{limit_s:g}s: failed to call {url}\n\nUnfortunately, an error has occurred, likely caused by:\n"
                "\t- The kubelet is not running\n"
                "If you are on a systemd-powered system, you can try to troubleshoot the error with:\n"
                "\t- 'systemctl status kubelet'\n\t- 'journalctl -xeu kubelet'"
            )
        time.sleep(_POLL_S)


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _mark_socket(places: Places, name: str, socket: str) -> None:
    """The node remembers its container runtime's socket; `kubeadm upgrade` reads it there."""
    if not socket:
        return
    body = {"metadata": {"annotations": {"kubeadm.alpha.kubernetes.io/cri-socket": socket}}}
    end = time.monotonic() + _TLS_BOOTSTRAP_S
    while True:
        try:
            NodeApi(read_access(places.kubelet_conf), agent="kubeadm").patch(
                f"/api/v1/nodes/{segment(name)}", body, manager="kubeadm"
            )
        except (ApiError, KubeFileError, OSError) as error:
            if time.monotonic() > end:
                raise KubeadmError(
                    f"error execution phase kubelet-start: error writing Crisocket information: {error}"
                ) from error
            time.sleep(_POLL_S)
        else:
            return


# --- reset, upgrade ----------------------------------------------------------------------------------------------


def _reset(options: argparse.Namespace, places: Places) -> None:
    if not options.force:
        raise KubeadmError("error execution phase preflight: aborted reset operation: use --force")
    _say("[preflight] Running pre-flight checks")
    _say("[reset] Stopping the kubelet service")
    _systemctl("stop", "kubelet")
    _say('[reset] Unmounting mounted directories in "/var/lib/kubelet"')
    _end_pods(places.kubelet)
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        if line.split(" ")[1].startswith(f"{places.kubelet}/"):
            subprocess.run(["umount", "--lazy", line.split(" ")[1]], check=False)
    _say("[reset] Deleting contents of directories: [/etc/kubernetes/manifests /var/lib/kubelet /etc/kubernetes/pki]")
    for folder in (places.kubernetes / "manifests", places.kubelet, places.kubernetes / "pki"):
        for path in folder.iterdir() if folder.is_dir() else ():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    _say(f"[reset] Deleting files: [{places.bootstrap_conf} {places.kubelet_conf}]")
    for path in (places.bootstrap_conf, places.kubelet_conf):
        path.unlink(missing_ok=True)


def _end_pods(kubelet: Path) -> None:
    """`kubeadm reset` removes the containers too."""
    from .kubelet_container import Container

    found = [Container(folder, folder.name, "") for folder in kubelet.glob("pods/*/containers/*")]
    end = time.monotonic() + _TLS_BOOTSTRAP_S
    while any(one.alive for one in found) and time.monotonic() < end:
        for one in found:
            one.signal(kill=True)
        time.sleep(_POLL_S)


def _upgrade(_: argparse.Namespace, places: Places) -> None:
    _say("[upgrade] Reading configuration from the cluster...")
    try:
        config = _kubelet_config(NodeApi(read_access(places.kubelet_conf), agent="kubeadm"))
    except (KubeFileError, OSError) as error:
        raise KubeadmError(
            f"couldn't create a Kubernetes client from file {str(places.kubelet_conf)!r}: {error}"
        ) from error
    _say(f'[kubelet-start] Writing kubelet configuration to file "{places.config}"')
    write_private(places.config, config, 0o644)
    _say("[upgrade] The configuration for this node was successfully updated!")
    _say("[upgrade] Now you should go ahead and upgrade the kubelet package using your package manager.")


if __name__ == "__main__":
    sys.exit(main())
