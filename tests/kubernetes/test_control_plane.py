"""The virtual control plane: what it keeps through crashes, what it keeps secret, and how nodes join it."""

import base64
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.kubernetes.plane import plane_options, require_binaries
from toolkit.errors import BusyError, RackproofError
from toolkit.kubernetes.client import ApiServer
from toolkit.kubernetes.errors import ApiRefusedError, ApiUnreachableError, ExpiredError
from toolkit.virtual.control_plane import binaries, components
from toolkit.virtual.control_plane.components import APISERVER, CONTROLLERS, ETCD, SCHEDULER
from toolkit.virtual.control_plane.layout import PlaneLayout, PlaneOptions
from toolkit.virtual.control_plane.plane import ControlPlane

ALL = {ETCD, APISERVER, CONTROLLERS, SCHEDULER}


def poll(look, deadline_s=30.0):
    end = time.monotonic() + deadline_s
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def program(path, text="#!/bin/sh\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def a_set(folder, *, etcd=True, help_text=""):
    names = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", *(["etcd"] if etcd else [])]
    for name in names:
        program(folder / name, f"#!/bin/sh\necho '{help_text}'\n")
    return folder


def test_binaries_are_looked_up_where_the_convention_says(tmp_path):
    """KUBEBUILDER_ASSETS, else the cache; etcd may be the distribution's."""
    assets, cache = a_set(tmp_path / "assets"), tmp_path / "cache"
    a_set(cache / "kubernetes", etcd=False)
    system = program(tmp_path / "bin/etcd").parent
    assert binaries.find(cache, {"KUBEBUILDER_ASSETS": str(assets)}, "").etcd == assets / "etcd"
    found = binaries.find(cache, {}, str(system))
    assert found.apiserver == cache / "kubernetes/kube-apiserver"
    assert found.etcd == system / "etcd"


def test_missing_binaries_are_said_loudly(tmp_path):
    """What is missing, where it was looked for, and the command that makes it; a named folder is not passed over."""
    cache = tmp_path / "cache"
    with pytest.raises(binaries.NoBinariesError, match="make kubernetes-binaries") as told:
        binaries.find(cache, {}, "")
    assert str(cache / "kubernetes") in told.value.message
    a_set(cache / "kubernetes", etcd=False)
    with pytest.raises(binaries.NoBinariesError, match="apt-get install etcd-server"):
        binaries.find(cache, {}, "")
    envtest = tmp_path / "envtest"
    program(envtest / "kube-apiserver")
    (envtest / "kube-scheduler").write_text("not executable")
    with pytest.raises(binaries.NoBinariesError, match="kube-controller-manager, kube-scheduler not in"):
        binaries.find(cache, {"KUBEBUILDER_ASSETS": str(envtest)}, "")


@pytest.mark.parametrize("known", ["--port", "--kube-api-qps"])
def test_flags_of_another_version_are_left_out(tmp_path, known):
    """Until 1.23 the insecure port must be closed by a flag that later versions refuse: they are asked for theirs."""
    found = binaries.find(tmp_path, {"KUBEBUILDER_ASSETS": str(a_set(tmp_path / "a", help_text=f"  {known} int"))}, "")
    layout = PlaneLayout(tmp_path)
    for component in (components.scheduler(found, layout), components.controllers(found, layout, PlaneOptions())):
        flags = {argument.partition("=")[0] for argument in component.argv}
        assert flags & {"--port", "--kube-api-qps", "--kube-api-burst"} == {known}
        assert "--secure-port=0" in component.argv


def test_a_cluster_places_pods(api):
    """Scheduler and controllers are at work: a ready node takes a Deployment's pod, a tainted one does not."""
    taint = {"key": "rackproof.dev/uncertified", "effect": "NoSchedule"}
    for name, taints in (("works-1", []), ("works-2", [taint])):
        meta = {"name": name, "labels": {"test": "places"}}
        api.create({"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {"taints": taints}})
        room = {"cpu": "4", "memory": "8Gi", "pods": "10"}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
        status = {"status": {"capacity": room, "allocatable": room, "conditions": [ready]}}
        api.patch("v1", "Node", name, status, how="strategic", subresource="status")
    labels = {"app": "places"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "image": "busybox"}], "nodeSelector": {"test": "places"}},
    }
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    meta = {"name": "places", "namespace": "default"}
    api.create({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec})

    def placed():
        pods = api.list("v1", "Pod", "default", labels="app=places")
        names = [pod["spec"].get("nodeName") for pod in pods]
        return len(names) == 2 and all(names) and names

    assert poll(placed) == ["works-1", "works-1"]
    api.delete("apps/v1", "Deployment", "places", "default")


def test_a_node_joins_with_a_token_and_is_kept_to_its_own(api, control_plane, tmp_path):
    """cluster-info for anybody, a certificate for who has the token, and NodeRestriction from then on."""
    token = control_plane.token()
    poll(lambda: f"jws-kubeconfig-{token[:6]}" in api.get("v1", "ConfigMap", "cluster-info", "kube-public")["data"])
    told = json.loads(api.get("v1", "ConfigMap", "cluster-info", "kube-public")["data"]["kubeconfig"])
    assert told["clusters"][0]["cluster"]["server"] == control_plane.server
    assert control_plane.authority.pin.startswith("sha256:")
    joiner = ApiServer.connect(with_login(tmp_path / "joiner", control_plane, {"token": token}))
    key, request = signing_request("system:node:joins-1")
    usages = ["key encipherment", "digital signature", "client auth"]
    spec = {"request": request, "signerName": "kubernetes.io/kube-apiserver-client-kubelet", "usages": usages}
    kind = ("certificates.k8s.io/v1", "CertificateSigningRequest")
    body = {"apiVersion": kind[0], "kind": kind[1], "metadata": {"name": "joins-1"}, "spec": spec}
    joiner.create(body)
    with pytest.raises(ApiRefusedError, match="cannot list resource"):
        joiner.list("v1", "Secret", "kube-system")
    issued = poll(lambda: joiner.get(*kind, "joins-1").get("status", {}).get("certificate"))
    login = {"client-certificate-data": issued, "client-key-data": key}
    kubelet = ApiServer.connect(with_login(tmp_path / "kubelet", control_plane, login))
    taint = {"key": "rackproof.dev/uncertified", "effect": "NoSchedule"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "joins-1"}, "spec": {"taints": [taint]}}
    kubelet.create(node)
    api.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "joins-2"}})
    certified = {"metadata": {"labels": {"rackproof.node-restriction.kubernetes.io/certified": "true"}}}
    for name, patch in (("joins-1", certified), ("joins-1", {"spec": {"taints": []}}), ("joins-2", certified)):
        with pytest.raises(ApiRefusedError) as refused:
            kubelet.patch("v1", "Node", name, patch, how="merge")
        assert refused.value.status == 403


def with_login(path, plane, login):
    document = json.loads(plane.admin.read_text())
    document["users"][0]["user"] = login
    path.touch(0o600)
    path.write_text(json.dumps(document))
    return path


def signing_request(user):
    key = ec.generate_private_key(ec.SECP256R1())
    names = [(x509.NameOID.ORGANIZATION_NAME, "system:nodes"), (x509.NameOID.COMMON_NAME, user)]
    subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in names])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return base64.b64encode(pem).decode(), base64.b64encode(request.public_bytes(Encoding.PEM)).decode()


def test_secrets_are_encrypted_where_they_lie(api, control_plane):
    """etcd's files hold a ConfigMap's text as it is, and of a Secret only what the key turns it into."""
    place = {"namespace": "default"}
    api.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "plain", **place}, "data": {"a": "seen-7b1e"}}
    )
    secret = {"name": "hidden", **place}
    api.create({"apiVersion": "v1", "kind": "Secret", "metadata": secret, "stringData": {"a": "unseen-7b1e"}})
    stored = b"".join(path.read_bytes() for path in control_plane.layout.data.rglob("*") if path.is_file())
    assert b"seen-7b1e" in stored
    assert b"k8s:enc:secretbox:v1:key1:" in stored
    assert b"unseen-7b1e" not in stored
    assert base64.b64decode(api.get("v1", "Secret", "hidden", "default")["data"]["a"]) == b"unseen-7b1e"


def test_keys_and_logins_are_for_their_owner_only(control_plane):
    """No file with a key in it can be read by others, and no argument of a program is one."""
    for folder in ("pki", "kubeconfigs"):
        for path in (control_plane.layout.folder / folder).iterdir():
            assert path.stat().st_mode & 0o077 == 0, path
    assert control_plane.layout.folder.stat().st_mode & 0o077 == 0


def test_changes_of_nodes_are_audited_and_secrets_are_not(api, control_plane):
    """Who changed which node, and how; a Secret's change is there by name and without its content."""
    api.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "audit-1"}})
    api.patch("v1", "Node", "audit-1", {"metadata": {"labels": {"seen": "yes"}}}, how="merge")
    meta = {"name": "audited", "namespace": "default"}
    api.create({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"a": "unseen-9c2d"}})

    def events():
        return [json.loads(line) for line in control_plane.layout.audit_log.read_text().splitlines()]

    def of(resource, name):
        return [
            e for e in events() if e["objectRef"].get("resource") == resource and e["objectRef"].get("name") == name
        ]

    def ours():
        changes = (e for e in of("nodes", "audit-1") if e["verb"] == "patch")  # the controllers change taints
        return [e for e in changes if e["user"]["username"] == "kubernetes-admin"]

    (patch,) = poll(ours)
    assert patch["requestObject"] == {"metadata": {"labels": {"seen": "yes"}}}
    assert poll(lambda: of("secrets", "audited"))
    assert "unseen-9c2d" not in control_plane.layout.audit_log.read_text()


def test_a_client_and_the_data_outlive_an_outage(api, control_plane):
    """etcd and the API server are killed: calls say so at once. Who starts the plane next keeps what still runs.

    The same client goes on, every object is there, and what was to be watched from before is to be listed again.
    """
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "survives"}})
    before = control_plane.pids()
    assert set(before) == ALL
    os.kill(before[ETCD], signal.SIGKILL)
    control_plane.stop_api()
    poll(lambda: set(control_plane.pids()) == {CONTROLLERS, SCHEDULER})
    for _ in range(3):
        with pytest.raises(ApiUnreachableError, match="get Namespace survives"):
            api.get("v1", "Namespace", "survives")
    again = ControlPlane(control_plane.layout.folder, control_plane._binaries, control_plane.options)
    again.start_api()
    again.start()
    after = again.pids()
    assert {name for name in ALL if after[name] != before[name]} == {ETCD, APISERVER}
    assert api.get("v1", "Namespace", "survives") is not None
    with pytest.raises(ExpiredError) as told:
        list(api.watch("v1", "Namespace", since="1", timeout_s=5))
    assert told.value.status == 410


STARTER = """
import sys
from pathlib import Path
from toolkit.virtual.control_plane.binaries import Binaries
from toolkit.virtual.control_plane.layout import PlaneOptions
from toolkit.virtual.control_plane.plane import ControlPlane
folder, port, etcd, peer, address, *programs = sys.argv[1:]
options = PlaneOptions(address, int(port), int(etcd), int(peer), durable=False)
ControlPlane(Path(folder), Binaries(*map(Path, programs)), options).start()
"""


def test_a_start_that_is_killed_leaves_nothing_that_a_second_stumbles_over(built, tmp_path):
    """While one starts, another is told so; once it is killed, the next one ends what it left, or takes it over."""
    found, options = require_binaries(built), plane_options()
    plane = ControlPlane(tmp_path / "plane", found, options)
    programs = [str(path) for path in (found.etcd, found.apiserver, found.controller_manager, found.scheduler)]
    ports = [str(port) for port in (options.port, options.etcd_port, options.etcd_peer_port)]
    argv = [sys.executable, "-c", STARTER, str(tmp_path / "plane"), *ports, options.address, *programs]
    starter = subprocess.Popen(argv)
    try:
        poll(lambda: APISERVER in plane.pids())
        with pytest.raises(BusyError, match="is being started"):
            plane.start()
        starter.kill()
        starter.wait()
        etcd = plane.pids()[ETCD]
        other = ControlPlane(tmp_path / "plane", found, plane_options(apiserver=("--no-such-flag",)))
        with pytest.raises(RackproofError, match=r"kube-apiserver ended by itself:\n(.*\n)*.*no-such-flag"):
            other.start()
        assert other.pids()[ETCD] != etcd, "etcd was to listen elsewhere"
    finally:
        starter.kill()
        plane.stop()
    assert plane.pids() == {}
    plane.stop()
