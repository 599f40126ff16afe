"""The API client against a real server: what it gives, and how each refusal and failure is told."""

import base64
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from tests.kubernetes.plane import settled
from toolkit.errors import RackproofError
from toolkit.kubernetes.client import ApiServer
from toolkit.kubernetes.errors import ApiRefusedError, ApiUnreachableError, ConflictError
from toolkit.virtual.control_plane.certificates import Authority, Validity

NO_TOKEN = {"automountServiceAccountToken": False}
BUDGET_VERSIONS = ("policy/v1", "policy/v1beta1")


@pytest.fixture
def namespace(api, request):
    """A namespace of the test's own."""
    name = request.node.name.replace("_", "-")[:50].strip("-")
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


def config_map(name, namespace, **data):
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def node(name, **labels):
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def test_a_server_tells_its_version_and_what_it_serves(api):
    """An old server has no policy/v1; that is learnt from it, and a kind that nobody has is no error."""
    version = api.version()
    assert version >= (1, 20)
    assert api.serves("policy/v1", "Eviction") == (version >= (1, 22))
    assert any(api.serves(v, "Eviction") for v in BUDGET_VERSIONS)
    assert api.serves("v1", "Node")
    assert not api.serves("v1", "Nodule")
    assert not api.serves("example.com/v9", "Thing")
    with pytest.raises(ApiRefusedError, match=r"no Thing in example.com/v9") as told:
        api.get("example.com/v9", "Thing", "x")
    assert told.value.status == 404


def test_what_is_served_is_asked_once(api, control_plane):
    """A server is asked for its kinds once, and for those it does not have once in a while."""
    fresh = ApiServer.connect(control_plane.admin)
    for _ in range(3):
        assert fresh.get("v1", "Node", "nobody") is None
        assert not fresh.serves("example.com/v9", "Thing")
    assert fresh.requests == 3 + 2  # of /api/v1 and of /apis/example.com/v9
    fresh.close()


def test_a_list_is_read_page_by_page_and_its_objects_are_whole(api, namespace):
    """Pages of two give all five, each with its kind, and the version that a watch goes on from."""
    for i in range(5):
        made = config_map(f"m{i}", namespace)
        made["metadata"]["labels"] = {"half": str(i % 2)}
        api.create(made)
    before = api.requests
    listing = api.listing("v1", "ConfigMap", namespace, labels="half", page=2)
    assert [m["metadata"]["name"] for m in listing.objects] == [f"m{i}" for i in range(5)]
    assert {(m["apiVersion"], m["kind"]) for m in listing.objects} == {("v1", "ConfigMap")}
    assert api.requests - before == 3
    assert int(listing.version) > 0
    assert len(api.list("v1", "ConfigMap", namespace, labels="half=1")) == 2
    assert [m["metadata"]["name"] for m in api.list("v1", "ConfigMap", fields="metadata.name=m3")] == ["m3"]
    assert api.list("v1", "ConfigMap", namespace, labels="half=7") == ()


def test_an_apply_takes_no_field_from_another_manager(api, namespace):
    """409 names the manager that owns the field; force takes it; a field nobody owns is free."""
    theirs = config_map("shared", namespace, a="1")
    api.apply(theirs, manager="somebody-else")
    with pytest.raises(ConflictError, match="somebody-else") as told:
        api.apply(config_map("shared", namespace, a="2"))
    assert told.value.status == 409
    assert "FieldManagerConflict" in told.value.causes
    assert api.apply(config_map("shared", namespace, b="2"))["data"] == {"a": "1", "b": "2"}
    assert api.apply(config_map("shared", namespace, a="2"), force=True)["data"] == {"a": "2"}
    owners = {m["manager"] for m in api.get("v1", "ConfigMap", "shared", namespace)["metadata"]["managedFields"]}
    assert "rackproof" in owners


def test_a_condition_is_applied_beside_those_of_others(api):
    """The status is a subresource; our condition and the kubelet's are entries of one list, each its owner's."""
    api.create(node("status-1"))
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    api.patch("v1", "Node", "status-1", {"status": {"conditions": [ready]}}, how="strategic", subresource="status")
    ours = node("status-1") | {"status": {"conditions": [{"type": "RackCertified", "status": "True", "reason": "x"}]}}
    applied = api.apply(ours, subresource="status")
    assert {c["type"] for c in applied["status"]["conditions"]} == {"Ready", "RackCertified"}


def test_a_guarded_json_patch_is_refused_where_the_guard_does_not_hold(api):
    """A taint is lifted only from where it was read: the controllers put theirs beside it at any time."""
    taints = [{"key": key, "effect": "NoSchedule"} for key in ("other/taint", "rackproof.dev/uncertified")]
    api.create(node("guard-1") | {"spec": {"taints": taints}})
    settled(api, "guard-1")

    def keys():
        return [taint["key"] for taint in api.get("v1", "Node", "guard-1")["spec"].get("taints", ())]

    def lift(index):
        path = f"/spec/taints/{index}"
        guard = {"op": "test", "path": f"{path}/key", "value": "rackproof.dev/uncertified"}
        return api.patch("v1", "Node", "guard-1", [guard, {"op": "remove", "path": path}], how="json")

    with pytest.raises(ApiRefusedError) as told:
        lift(keys().index("other/taint"))
    assert told.value.status == 422
    assert {"other/taint", "rackproof.dev/uncertified"} <= set(keys())

    def lifted():
        try:
            return lift(keys().index("rackproof.dev/uncertified"))
        except ApiRefusedError as refused:
            assert refused.status == 422
            return None

    wait_for(lifted)
    assert "rackproof.dev/uncertified" not in keys()
    assert "other/taint" in keys()


def test_names_that_are_taken_and_versions_that_are_old_conflict(api, namespace):
    """A second create and a replace of what was changed meanwhile are told as conflicts, and change nothing."""
    made = api.create(config_map("once", namespace, a="1"))
    with pytest.raises(ConflictError, match="already exists"):
        api.create(config_map("once", namespace, a="2"))
    api.replace(made | {"data": {"a": "3"}})
    with pytest.raises(ConflictError, match="modified") as told:
        api.replace(made | {"data": {"a": "4"}})
    assert told.value.reason == "Conflict"
    assert api.get("v1", "ConfigMap", "once", namespace)["data"] == {"a": "3"}
    assert api.delete("v1", "ConfigMap", "once", namespace)
    assert not api.delete("v1", "ConfigMap", "once", namespace)
    assert api.get("v1", "ConfigMap", "once", namespace) is None


def test_a_watch_tells_what_happens_and_ends(api, namespace):
    """From a list's version on: what was made, changed and deleted, in this order, and then an end."""
    since = api.listing("v1", "ConfigMap", namespace).version
    told = []
    began = threading.Event()

    def look():
        began.set()
        told.extend(api.watch("v1", "ConfigMap", namespace, since=since, fields="metadata.name=w", timeout_s=2))

    thread = threading.Thread(target=look)
    thread.start()
    began.wait()
    api.create(config_map("w", namespace, a="1"))
    api.create(config_map("other", namespace))
    api.apply(config_map("w", namespace, b="1"), force=True)
    api.delete("v1", "ConfigMap", "w", namespace)
    thread.join(20)
    assert [event for event, _ in told if event != "BOOKMARK"] == ["ADDED", "MODIFIED", "DELETED"]
    first = next(api.watch("v1", "ConfigMap", namespace, fields="metadata.name=other", timeout_s=2))
    assert (first[0], first[1]["metadata"]["name"]) == ("ADDED", "other")


def test_logs_that_nobody_can_give_are_refused(api, namespace):
    """A node that does not answer, and a pod that is not there: errors, and neither is an empty log."""
    wait_for(lambda: api.get("v1", "ServiceAccount", "default", namespace))  # its token comes later still
    api.create(node("silent-1"))
    addresses = {"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}}
    silent = {"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}, **addresses["status"]}}
    api.patch("v1", "Node", "silent-1", silent, how="strategic", subresource="status")
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mute", "namespace": namespace}}
    api.create(body | {"spec": {"containers": [{"name": "c", "image": "busybox"}], "nodeName": "silent-1", **NO_TOKEN}})
    with pytest.raises(ApiRefusedError, match="connection refused") as told:
        api.logs("mute", namespace, max_bytes=1000)
    assert told.value.status >= 500
    with pytest.raises(ApiRefusedError, match="not found") as told:
        api.logs("nobody", namespace, max_bytes=1000, container="c", since_s=5)
    assert told.value.status == 404


def wait_for(look, deadline_s=30.0):
    end = time.monotonic() + deadline_s
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def test_an_eviction_that_a_budget_forbids_is_an_answer_at_once(api, namespace):
    """429 with the budget as its cause: the client does not wait it out; without the budget the pod goes."""
    version = next(v for v in BUDGET_VERSIONS if api.serves(v, "PodDisruptionBudget"))
    wait_for(lambda: api.get("v1", "ServiceAccount", "default", namespace))  # its token comes later still
    place = {"namespace": namespace}
    spec = {
        "containers": [{"name": "c", "image": "busybox"}],
        "nodeName": "evict-1",
        **NO_TOKEN,
        "terminationGracePeriodSeconds": 0,
    }
    labels = {"app": "kept"}
    api.create(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kept", "labels": labels, **place}, "spec": spec}
    )
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    api.patch("v1", "Pod", "kept", {"status": ready}, namespace=namespace, how="merge", subresource="status")
    budget = {"minAvailable": 1, "selector": {"matchLabels": labels}}
    meta = {"name": "budget", **place}
    api.create({"apiVersion": version, "kind": "PodDisruptionBudget", "metadata": meta, "spec": budget})
    wait_for(
        lambda: (
            api.get(version, "PodDisruptionBudget", "budget", namespace).get("status", {}).get("currentHealthy") == 1
        )
    )
    eviction = {"apiVersion": version, "kind": "Eviction", "metadata": {"name": "kept", **place}}
    began = time.monotonic()
    with pytest.raises(ApiRefusedError, match="disruption budget") as told:
        api.create(eviction)
    assert (told.value.status, told.value.causes) == (429, ("DisruptionBudget",))
    assert time.monotonic() - began < 5
    api.delete(version, "PodDisruptionBudget", "budget", namespace)
    assert wait_for(lambda: evicted(api, eviction))


def evicted(api, eviction):
    """The disruption controller's cache may know the budget for a moment longer."""
    try:
        return api.create(eviction)
    except ApiRefusedError as refused:
        assert refused.status == 429
        return None


def test_who_has_no_right_is_told_so(api, control_plane):
    """RBAC's 403 with the server's words, and the next step; a right that is given counts at once."""
    stranger = ApiServer.connect(control_plane.kubeconfig("mallory", ("nobodies",)))
    with pytest.raises(ApiRefusedError, match='User "mallory" cannot list resource "nodes"') as told:
        stranger.list("v1", "Node")
    assert told.value.status == 403
    assert "auth can-i" in told.value.hint
    stranger.close()
    viewer = ApiServer.connect(control_plane.kubeconfig("system:node:n-1", ("system:nodes",)))
    assert isinstance(viewer.list("v1", "Node"), tuple)
    viewer.close()


def test_an_expired_certificate_is_named(control_plane):
    """401 says only Unauthorized; the error says which file's certificate expired, and when."""
    now = datetime.now(UTC)
    old = Validity(now - timedelta(days=2), now - timedelta(days=1))
    path = control_plane.kubeconfig("late", ("system:masters",), old)
    with pytest.raises(ApiRefusedError, match="401") as told:
        ApiServer.connect(path).list("v1", "Node")
    assert f"the client certificate in {path} expired at {old.ends.date()}" in told.value.hint


def test_a_certificate_of_tomorrow_is_a_matter_of_clocks(control_plane):
    """A client whose clock goes ahead made it: the error says what both clocks say."""
    now = datetime.now(UTC)
    path = control_plane.kubeconfig("early", (), Validity(now + timedelta(days=1), now + timedelta(days=2)))
    with pytest.raises(ApiRefusedError) as told:
        ApiServer.connect(path).list("v1", "Node")
    assert "set the clocks" in told.value.hint


def test_a_server_of_another_ca_is_not_talked_to(control_plane, tmp_path):
    """Nothing is sent to a server whose certificate our CA did not sign."""
    document = json.loads(control_plane.admin.read_text())
    other = Authority.at(tmp_path / "other.pem").pem.certificate
    document["clusters"][0]["cluster"]["certificate-authority-data"] = base64.b64encode(other).decode()
    path = tmp_path / "kubeconfig"
    path.touch(0o600)
    path.write_text(json.dumps(document))
    with pytest.raises(ApiUnreachableError, match="is not the server that") as told:
        ApiServer.connect(path).list("v1", "Node")
    assert "CA" in told.value.hint


def test_a_login_that_no_longer_counts_has_no_dates_to_blame(control_plane, tmp_path):
    """A service account's token that is wrong: 401 with the general advice, and no word of the token."""
    document = json.loads(control_plane.admin.read_text())
    document["users"][0]["user"] = {"token": "not-a-token-5f3a"}
    path = tmp_path / "kubeconfig"
    path.touch(0o600)
    path.write_text(json.dumps(document))
    with pytest.raises(ApiRefusedError, match="401") as told:
        ApiServer.connect(path).list("v1", "Node")
    assert "renew" in told.value.hint
    assert "5f3a" not in str(told.value)


def test_names_lead_nowhere_else(api):
    """A name from elsewhere stays one segment of the path."""
    with pytest.raises(RackproofError, match="names no object"):
        api.get("v1", "Node", "..")
    with pytest.raises(RackproofError, match="in a namespace"):
        api.get("v1", "Pod", "x")
    assert api.get("v1", "Node", "../namespaces/default?x=1") is None


def test_custom_resources_are_objects_like_any_other(api, control_plane):
    """A kind of the site's own is found once it is served, applied, listed and refused by its schema."""
    names = {"plural": "racks", "singular": "rack", "kind": "Rack"}
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"units": {"type": "integer"}}}},
    }
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = {"group": "test.rackproof.dev", "scope": "Cluster", "names": names, "versions": [version]}
    kind = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    name = "racks.test.rackproof.dev"
    api.create({"apiVersion": kind[0], "kind": kind[1], "metadata": {"name": name}, "spec": spec})

    def established():
        conditions = api.get(*kind, name).get("status", {}).get("conditions") or ()
        return any((c["type"], c["status"]) == ("Established", "True") for c in conditions)

    wait_for(established)

    def who_knows():
        connected = ApiServer.connect(control_plane.admin)
        return connected if connected.serves("test.rackproof.dev/v1", "Rack") else connected.close()

    fresh = wait_for(who_knows)
    rack = {"apiVersion": "test.rackproof.dev/v1", "kind": "Rack", "metadata": {"name": "r1"}, "spec": {"units": 18}}
    fresh.apply(rack)
    assert [r["spec"] for r in fresh.list("test.rackproof.dev/v1", "Rack")] == [{"units": 18}]
    with pytest.raises(ApiRefusedError, match="units") as told:
        fresh.create(rack | {"metadata": {"name": "r2"}, "spec": {"units": "many"}})
    assert told.value.status == 422
    fresh.close()


def test_threads_share_one_client(api):
    """Eight threads at once: each gets its own answers, and every request is counted."""
    for i in range(8):
        api.create(node(f"thread-{i}"))
    before = api.requests
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda i: api.get("v1", "Node", f"thread-{i % 8}")["metadata"]["name"], range(80)))
    assert names == [f"thread-{i % 8}" for i in range(80)]
    assert api.requests - before == 80
