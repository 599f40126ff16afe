"""The door installed in a real API server: its account can do what it needs and nothing else, and nobody else can.

The API server here is 1.20: it has no ValidatingAdmissionPolicy, so the webhook is what holds. The policy's text is
tested against the same cases in test_door_rule.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.plane import api, control_plane, free_ports, own_address
from tests.pool.cluster_nodes import DIGEST, EXPIRES, OURS, THEIRS, Nodes, nodes, until
from toolkit.errors import UndecidedError, UsageError
from toolkit.kubernetes.client import ApiServer
from toolkit.kubernetes.errors import ApiRefusedError
from toolkit.pool.door import CERTIFIED, TAINT
from toolkit.pool.door_rule import doormen
from toolkit.pool.installation import ADMISSION, has_policies, install, webhook_kind, write_login
from toolkit.pool.kubernetes import KubernetesPool
from toolkit.pool.manifests import MUTATING, Webhook, manifests
from toolkit.pool.policy import KubernetesSite, PoolPolicy
from toolkit.pool.webhook import certificate_for, serving
from toolkit.virtual.control_plane.plane import ControlPlane

__all__ = ["api", "control_plane", "nodes"]

SPACE = "rackproof-door-test"
SITE = KubernetesSite(namespace=SPACE, kubeconfig="door.kubeconfig")
ALLOWED = doormen(SPACE, (), ("exempt-1",))


@pytest.fixture(scope="module")
def hook(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[str, int], Path, bytes]:
    """Where the webhook listens, with which certificate."""
    address = own_address()
    (port,) = free_ports(address, 1)
    file = tmp_path_factory.mktemp("door") / "webhook.pem"
    return (address, port), file, certificate_for(address, file, datetime.now(UTC))


@pytest.fixture(scope="module")
def door(api: ApiServer, control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory,
         hook: tuple[tuple[str, int], Path, bytes]) -> Iterator[ApiServer]:  # fmt: skip
    """The cluster with the door in it, as the door's account sees it. The webhook's configuration goes at the end."""
    assert not has_policies(api)
    (host, port), _, ca = hook
    objects = manifests(SPACE, ALLOWED, Webhook(f"https://{host}:{port}/door", ca, webhook_kind(api)))
    done = install(api, tuple(o for o in objects if o["kind"] != MUTATING))
    assert f"ServiceAccount {'rackproof-door'}" in done
    login = tmp_path_factory.mktemp("secrets") / SITE.kubeconfig
    write_login(api, SPACE, control_plane.admin, "", login)
    assert login.stat().st_mode & 0o777 == 0o600
    server = KubernetesPool.open(PoolPolicy(kubernetes=SITE), login.parent).api
    yield server
    server.close()


@pytest.fixture
def guarded(api: ApiServer, door: ApiServer, hook: tuple[tuple[str, int], Path, bytes]) -> Iterator[list[str]]:
    """The webhook is asked, and somebody answers. Yields what the doorkeeper told."""
    (host, port), file, ca = hook
    told: list[str] = []
    with serving((host, port), file, ALLOWED, told.append):
        hooked = manifests(SPACE, ALLOWED, Webhook(f"https://{host}:{port}/door", ca, webhook_kind(api)))[-1]
        install(api, (hooked,))
        try:
            until(lambda: _asks(api), 20.0)
            told.clear()
            yield told
        finally:
            api.delete(ADMISSION, MUTATING, "rackproof-door")
            until(lambda: not _asks(api), 20.0)


def _asks(api: ApiServer) -> bool:
    """Whether the API server asks the webhook by now: it takes a new configuration up by watching."""
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "probe-untainted"}}
    try:
        api.create(node)
    except ApiRefusedError as refused:
        assert refused.status == 403 or "denied the request" in refused.message, refused.message
        return True
    api.delete("v1", "Node", "probe-untainted")
    return False


def refused(act: Callable[[], Any]) -> ApiRefusedError:
    """The API server's no."""
    with pytest.raises(ApiRefusedError) as caught:
        act()
    return caught.value


def lift(api: ApiServer, name: str) -> Any:
    """Takes all taints off, as `kubectl taint nodes ... -` does."""
    return api.patch("v1", "Node", name, {"spec": {"taints": []}}, how="merge")


def test_the_account_can_do_what_it_needs(door: ApiServer, nodes: Nodes, api: ApiServer) -> None:
    """Register, admit, look, drain, lead: with its own token, by the rights that are shipped."""
    name = nodes.add()
    pool = KubernetesPool(door, SITE)
    pool.register(name, "joined", {"rackproof.dev/rack": "demo"})
    with pool.leading("the test"):
        pool.admit(name, DIGEST, EXPIRES, {"rackproof.dev/rack": "demo"})
        assert pool.nodes()[name].admitted
        assert pool.signs([name], datetime.now(UTC)) == ()
    nodes.pod(name, f"{name}-train")
    assert pool.running([name]) == {name}
    assert pool.drain(name, "maintenance", 10.0).left == ()
    assert pool.capacity().out >= 1


@pytest.mark.parametrize(
    "act",
    [
        lambda api: api.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "made-up"}}),
        lambda api: api.delete("v1", "Node", "exempt-1"),
        lambda api: api.list("v1", "Secret"),
        lambda api: api.list("v1", "Secret", SPACE),
        lambda api: api.delete("v1", "Pod", "x", "default"),
        lambda api: api.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "namespace": "default"},
                                "spec": {"containers": [{"name": "c", "image": "i"}]}}, namespace="default"),
        lambda api: api.list("v1", "ConfigMap"),
        lambda api: api.delete("coordination.k8s.io/v1", "Lease", "x", "kube-system"),
        lambda api: api.get("coordination.k8s.io/v1", "Lease", "x", "kube-system"),
        lambda api: api.create({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                                "metadata": {"name": "mine"}, "roleRef": {"kind": "ClusterRole", "name": "admin",
                                "apiGroup": "rbac.authorization.k8s.io"}}),
        lambda api: api.delete(ADMISSION, MUTATING, "rackproof-door"),
    ],
)  # fmt: skip
def test_the_account_can_do_nothing_else(door: ApiServer, act: Callable[[ApiServer], Any]) -> None:
    """403 for whatever is not on its list."""
    assert refused(lambda: act(door)).status == 403


def test_nobody_else_lifts_the_taint(
    guarded: list[str], api: ApiServer, door: ApiServer, nodes: Nodes, control_plane: ControlPlane
) -> None:
    """Not an administrator, by patch, update or apply; the door itself does, and then others may work on the node."""
    name = nodes.add(taints=(OURS, THEIRS))
    no = refused(lambda: lift(api, name))
    assert no.status == 403
    assert "is lifted by rackproof alone" in no.message
    raw = nodes.raw(name)
    raw["spec"]["taints"] = [t for t in raw["spec"]["taints"] if t["key"] != TAINT.key]
    assert refused(lambda: api.replace(raw)).status == 403
    weak = [{"op": "replace", "path": "/spec/taints/0/effect", "value": "PreferNoSchedule"}]
    assert refused(lambda: api.patch("v1", "Node", name, weak, how="json")).status == 403
    label = {"metadata": {"labels": {CERTIFIED: "true"}}}
    assert refused(lambda: api.patch("v1", "Node", name, label, how="merge")).status == 403
    assert any(f"refused kubernetes-admin on {name}" in line for line in guarded)
    theirs = {"metadata": {"labels": {"dgxc.nvidia.com/nvsentinel-state": "remediated"}}}
    stolen = refused(lambda: door.patch("v1", "Node", name, theirs, how="merge"))  # by a login of ours in other hands
    assert (stolen.status, "of others" in stolen.message) == (403, True)
    KubernetesPool(door, SITE).admit(name, DIGEST, EXPIRES, {})
    assert TAINT not in nodes.seen(name).taints
    api.patch("v1", "Node", name, {"metadata": {"labels": {"team": "a"}}}, how="merge")
    off = {"metadata": {"labels": {CERTIFIED: None}}}
    assert refused(lambda: api.patch("v1", "Node", name, off, how="merge")).status == 403


def test_a_kubelet_joins_with_the_taint_or_not_at_all(
    guarded: list[str], nodes: Nodes, control_plane: ControlPlane, api: ApiServer
) -> None:
    """Under its own credentials. It cannot lift the taint later, nor take another name with this login."""
    name = f"kubelet-{id(nodes)}"
    kubelet = ApiServer.connect(control_plane.kubeconfig(f"system:node:{name}", ("system:nodes",)))
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    assert "a node joins with the taint" in refused(lambda: kubelet.create(node)).message
    kubelet.create(node | {"spec": {"taints": [OURS]}})
    nodes.names.append(name)
    assert refused(lambda: lift(kubelet, name)).status == 403
    renamed = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"{name}-b"}, "spec": {"taints": [OURS]}}
    assert refused(lambda: kubelet.create(renamed)).status == 403
    marked = {"metadata": {"labels": {CERTIFIED: "true"}}}
    for sub in ("", "status"):
        assert refused(lambda sub=sub: kubelet.patch("v1", "Node", name, marked, how="merge", subresource=sub)).status == 403  # fmt: skip  # noqa: E501
    kubelet.close()


def test_while_the_doorkeeper_is_away_kubelets_report_and_nothing_is_lifted(
    guarded: list[str], api: ApiServer, door: ApiServer, nodes: Nodes, hook: tuple[tuple[str, int], Path, bytes]
) -> None:
    """A webhook that nobody answers: a shut node stays shut, a node that runs jobs is held up by nothing."""
    shut, running = nodes.add(), nodes.add()
    pool = KubernetesPool(door, SITE)
    pool.register(shut, "joined")
    pool.admit(running, DIGEST, EXPIRES, {})
    (host, _), _, ca = hook
    (nowhere,) = free_ports(host, 1)
    install(api, (manifests(SPACE, ALLOWED, Webhook(f"https://{host}:{nowhere}/door", ca, webhook_kind(api)))[-1],))
    until(lambda: _away(api, shut), 20.0)
    for name in (shut, running):
        nodes.report(name)
        assert nodes.seen(name).ready
    assert "failed calling webhook" in refused(lambda: lift(api, shut)).message
    api.patch("v1", "Node", running, {"metadata": {"labels": {"team": "a"}}}, how="merge")
    lost = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}
    api.patch("v1", "Node", running, [{"op": "add", "path": "/spec/taints/-", "value": lost}], how="json")
    with pytest.raises(UndecidedError):
        pool.admit(shut, DIGEST, EXPIRES, {})
    assert TAINT in nodes.seen(shut).taints
    pool.evict(running, "revoked")
    assert TAINT in nodes.seen(running).taints


def _away(api: ApiServer, shut: str) -> bool:
    try:
        api.patch("v1", "Node", shut, {"metadata": {"labels": {"x": "y"}}}, how="merge")
    except ApiRefusedError as no:
        return no.status == 500
    return False


def test_an_expired_client_certificate_says_what_to_renew(control_plane: ControlPlane) -> None:
    """Undecided, with the file and its date; nothing is tried without it."""
    from toolkit.virtual.control_plane.certificates import Validity

    now = datetime.now(UTC)
    past = Validity(now - timedelta(days=2), now - timedelta(days=1))
    pool = KubernetesPool(ApiServer.connect(control_plane.kubeconfig("system:node:old", (), past)), SITE)
    with pytest.raises(UndecidedError) as caught:
        pool.admit("any", DIGEST, EXPIRES, {})
    assert "renew" in caught.value.hint


def test_the_webhooks_certificate_is_kept_until_it_runs_out_or_moves(tmp_path: Path) -> None:
    """The key is for its owner alone."""
    file, now = tmp_path / "webhook.pem", datetime.now(UTC)
    first = certificate_for("10.0.0.5", file, now)
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in first
    assert certificate_for("10.0.0.5", file, now + timedelta(days=365)) == first
    assert certificate_for("10.0.0.5", file, now + timedelta(days=3 * 365 - 30)) != first
    moved = certificate_for("door.example", file, now)
    assert certificate_for("door.example", file, now) == moved
    file.write_text("no certificate")
    with pytest.raises(UsageError, match="cannot listen"), serving(("127.0.0.1", 0), file, ALLOWED, lambda line: None):
        pass
    assert threading.active_count() < 100
