"""kubeadm and the kubelet's TLS bootstrap on bare machines, with tickets of the pool's, into a real control plane."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.plane import settled
from tests.virtual.agents import condition, until
from tests.virtual.bare_machine import BareMachine, bare_machine
from toolkit.errors import UndecidedError
from toolkit.kubernetes.client import ApiServer
from toolkit.pool.join import KubernetesJoins, Ticket
from toolkit.virtual import cluster
from toolkit.virtual.control_plane.plane import ControlPlane

pytestmark = pytest.mark.root
JOIN = "/etc/kubernetes/rackproof/join.yaml"


@pytest.fixture(name="joins")
def _joins(api: ApiServer, control_plane: ControlPlane) -> KubernetesJoins:
    cluster.configure(api, control_plane.server.removeprefix("https://"))
    return KubernetesJoins(api)


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[BareMachine]:
    with bare_machine(tmp_path / "machine", "joiner") as machine:
        yield machine


def told(machine: BareMachine, ticket: Ticket, name: str, **discovery: Any) -> None:
    """Writes what kubeadm is told, as the role does; `discovery` is by the CA's file unless given."""
    token = {"apiServerEndpoint": ticket.endpoint, "token": ticket.token, **discovery}
    server = {"server": f"https://{ticket.endpoint}", "certificate-authority-data": cluster_data(ticket.ca)}
    kubeconfig = {"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "", "cluster": server}]}
    machine.write("/etc/kubernetes/rackproof/discovery.yaml", json.dumps(kubeconfig))
    by = {"bootstrapToken": token} if discovery else {"file": {"kubeConfigPath": JOIN.replace("join", "discovery")}}
    document = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "JoinConfiguration",
        "nodeRegistration": {
            "name": name,
            "criSocket": "unix:///run/containerd/containerd.sock",
            "taints": [{"key": "rackproof.dev/uncertified", "effect": "NoSchedule"}],
            "kubeletExtraArgs": [{"name": "node-labels", "value": "rackproof.dev/rack=r1"}],
        },
        "discovery": {**by, "tlsBootstrapToken": ticket.token},
        "timeouts": {"discovery": "3s", "tlsBootstrap": "30s"},
    }
    machine.write(JOIN, json.dumps(document))


def cluster_data(ca: str) -> str:
    """PEM as a kubeconfig holds it."""
    return base64.b64encode(ca.encode()).decode()


def test_a_machine_joins_with_a_ticket_and_its_logs_can_be_read(
    api: ApiServer, joins: KubernetesJoins, machine: BareMachine
) -> None:
    """By the CA's file: certificate, taint, labels; what it serves with is approved for its planned address only."""
    machine.start_kubelet_service()
    with joins.ticket(timedelta(minutes=5)) as ticket:
        told(machine, ticket, "joiner")
        joined = machine.kubeadm("join", "--config", JOIN)
        assert joined.returncode == 0, joined.stderr + machine.read("/var/log/kubelet")
        assert ticket.token not in joined.stdout + joined.stderr + machine.read("/var/log/kubelet")
        again = machine.kubeadm("join", "--config", JOIN)
    assert again.returncode == 1
    assert "/etc/kubernetes/kubelet.conf already exists" in again.stderr
    assert machine.read("/etc/kubernetes/bootstrap-kubelet.conf") == ""
    assert api.get("v1", "Secret", f"bootstrap-token-{ticket.token.partition('.')[0]}", "kube-system") is None
    mode = machine.run("stat", "-c", "%a", "/etc/kubernetes/kubelet.conf").stdout.strip()
    assert int(mode, 8) == stat.S_IRUSR | stat.S_IWUSR
    until(lambda: condition(api, "joiner", "Ready") == "True", "it is ready")
    settled(api, "joiner")
    member = joins.member("joiner")
    assert member is not None
    assert (member.ready, member.taints) == (True, {"rackproof.dev/uncertified"})
    assert member.machine == machine.read("/etc/machine-id").strip()
    with pytest.raises(UndecidedError, match=r"does not cover.*127\.0\.0\.1"):
        until(lambda: joins.approve_serving("joiner", "10.1.2.3"), "it asks for a certificate to serve with")
    assert joins.approve_serving("joiner", "127.0.0.1") == 1
    assert joins.approve_serving("joiner", "127.0.0.1") == 0
    until(lambda: machine.read("/var/lib/kubelet/pki/kubelet-server-current.pem"), "it is signed")
    reset = machine.kubeadm("reset", "--force", "--cri-socket", "unix:///run/containerd/containerd.sock")
    assert reset.returncode == 0, reset.stderr
    assert machine.read("/etc/kubernetes/kubelet.conf") == ""


def test_a_join_by_token_verifies_the_cluster_before_it_believes_it(
    joins: KubernetesJoins, machine: BareMachine
) -> None:
    """The pinned CA joins; another pin, a token of another secret and one that is over do not."""
    with joins.ticket(timedelta(minutes=5)) as ticket:
        told(machine, ticket, "by-token", caCertHashes=["sha256:" + "0" * 64])
        wrong_pin = machine.kubeadm("join", "--config", JOIN)
        last = "b" if ticket.token.endswith("a") else "a"
        forged = replace(ticket, token=ticket.token[:-1] + last)
        told(machine, forged, "by-token", caCertHashes=[ticket.ca_hash])
        wrong_secret = machine.kubeadm("join", "--config", JOIN)
        assert machine.read("/etc/kubernetes/kubelet.conf") == ""
        machine.start_kubelet_service()
        told(machine, ticket, "by-token", caCertHashes=[ticket.ca_hash])
        joined = machine.kubeadm("join", "--config", JOIN)
    assert (wrong_pin.returncode, "none of the public keys" in wrong_pin.stderr) == (1, True), wrong_pin.stderr
    assert (wrong_secret.returncode, "JWS" in wrong_secret.stderr) == (1, True), wrong_secret.stderr
    assert joined.returncode == 0, joined.stderr + machine.read("/var/log/kubelet")
    over = machine.kubeadm("reset", "--force")
    assert over.returncode == 0
    with joins.ticket(timedelta(minutes=5)) as unused:  # of a used one the API server remembers for ten seconds
        pass
    told(machine, unused, "too-late")
    late = machine.kubeadm("join", "--config", JOIN)
    assert late.returncode == 1
    assert "Unauthorized" in late.stderr


def test_kubeadm_says_its_version_and_makes_no_control_plane(machine: BareMachine) -> None:
    """`version -o short`; `init` is refused before it changes anything."""
    assert machine.kubeadm("version", "-o", "short").stdout == "vunpacked\n"
    refused = machine.kubeadm("init")
    assert refused.returncode == 1
    assert "[ERROR ImagePull]" in refused.stderr
