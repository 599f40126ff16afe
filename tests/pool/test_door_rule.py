"""Who may change what of a Node: one table of cases, for the Python rule and for the CEL that is shipped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import celpy
import pytest

from toolkit.errors import UsageError
from toolkit.kubernetes.client import Object
from toolkit.pool.door import CERTIFICATE, CERTIFIED, CONDITION, CORDONED, TAINT
from toolkit.pool.door_rule import ANNOTATED, BEYOND, LABELLED, LIFTED, SAID, UNTAINTED, Asked, doormen, refusals
from toolkit.pool.manifests import Webhook, manifests
from toolkit.pool.node_object import read_node

DOOR = "system:serviceaccount:rackproof:rackproof-door"
KUBELET = "system:node:gpu-1"
ADMIN = "kubernetes-admin"
ALLOWED = doormen("rackproof", ("ops/rescue",), ("cpu-1",))
OURS = {"key": TAINT.key, "effect": TAINT.effect}
GPU = {"key": "nvidia.com/gpu", "effect": "NoSchedule", "value": "present"}
CONTROL = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
SAYS = {"type": CONDITION, "status": "True", "reason": "CertificateInForce", "message": "m"}
READY = {"type": "Ready", "status": "True"}


def node(
    *taints: Mapping[str, str],
    name: str = "gpu-1",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    conditions: tuple[Mapping[str, str], ...] = (),
) -> Object:
    """A Node as an admission request has it: empty maps and lists are left out."""
    meta: Object = {"name": name}
    meta |= {"labels": dict(labels)} if labels else {}
    meta |= {"annotations": dict(annotations)} if annotations else {}
    spec = {"taints": [dict(t) for t in taints]} if taints else {}
    return {"metadata": meta, "spec": spec, "status": {"conditions": [dict(c) for c in conditions]}}


SHUT, OPEN = node(OURS, GPU), node(GPU, labels={CERTIFIED: "true"}, annotations={CERTIFICATE: "ab"}, conditions=(SAYS,))
CASES: list[tuple[str, str, Object | None, Object, list[str]]] = [
    ("a kubelet joins with the taint", KUBELET, None, SHUT, []),
    ("a kubelet joins without it", KUBELET, None, node(GPU), [UNTAINTED]),
    ("a kubelet joins with it, but not so that it keeps off", KUBELET, None,
     node(OURS | {"effect": "PreferNoSchedule"}), [UNTAINTED]),
    ("a control plane joins with its own", KUBELET, None, node(CONTROL), []),
    ("one that only says that it is a control plane", KUBELET, None,
     node(CONTROL | {"effect": "PreferNoSchedule"}), [UNTAINTED]),
    ("a node named as exempt joins", "system:node:cpu-1", None, node(name="cpu-1"), []),
    ("an administrator makes a node without it", ADMIN, None, node(), [UNTAINTED]),
    ("a kubelet joins with marks", KUBELET, None,
     node(OURS, labels={CERTIFIED: "true"}, annotations={CERTIFICATE: "x"}, conditions=(SAYS,)),
     [LABELLED, ANNOTATED, SAID]),
    ("an administrator lifts the taint", ADMIN, SHUT, node(GPU), [LIFTED]),
    ("an administrator weakens it", ADMIN, SHUT, node(OURS | {"effect": "PreferNoSchedule"}, GPU), [LIFTED]),
    ("an administrator lifts all taints", ADMIN, SHUT, node(), [LIFTED]),
    ("the door lifts it", DOOR, SHUT, OPEN, []),
    ("the account that the policy names lifts it", "system:serviceaccount:ops:rescue", SHUT, OPEN, []),
    ("an account of the door's name elsewhere lifts it", "system:serviceaccount:default:rackproof-door", SHUT,
     node(GPU), [LIFTED]),
    ("the door puts its taint on", DOOR, OPEN,
     node(GPU, OURS, labels={CERTIFIED: "false", "rackproof.dev/rack": "r"}, annotations={CORDONED: "true"}), []),
    ("the door lifts another taint", DOOR, SHUT, node(OURS), [BEYOND]),
    ("the door adds another taint", DOOR, node(OURS), SHUT, [BEYOND]),
    ("the door changes another's label", DOOR, node(OURS, labels={"a": "b"}), node(OURS, labels={"a": "c"}), [BEYOND]),
    ("the door takes another's label off", DOOR, node(OURS, labels={"a": "b"}), node(OURS), [BEYOND]),
    ("the door adds another's label", DOOR, node(OURS), node(OURS, labels={"a": "b"}), [BEYOND]),
    ("the door labels as NVSentinel", DOOR, node(OURS),
     node(OURS, labels={"dgxc.nvidia.com/nvsentinel-state": "draining"}), [BEYOND]),
    ("the door keeps another's label", DOOR, node(OURS, labels={"a": "b"}),
     node(OURS, labels={"a": "b", "rackproof.dev/slot": "1"}), []),
    ("the door takes another's annotation off", DOOR, node(OURS, annotations={"quarantineHealthEvent": "x"}),
     node(OURS), [BEYOND]),
    ("the door says that a kubelet is ready", DOOR, SHUT, SHUT | {"status": {"conditions": [READY]}}, [BEYOND]),
    ("the door says what is its to say", DOOR, SHUT | {"status": {"conditions": [READY]}},
     SHUT | {"status": {"conditions": [READY, SAYS]}}, []),
    ("the door makes a node", DOOR, None, SHUT, [BEYOND]),
    ("anybody puts it on", ADMIN, node(GPU), SHUT, []),
    ("anybody changes another taint", ADMIN, SHUT, node(OURS), []),
    ("anybody gives it a value", ADMIN, SHUT, node(OURS | {"value": "why"}, GPU), []),
    ("a kubelet reports", KUBELET, OPEN, OPEN | {"status": {"conditions": [READY, SAYS]}}, []),
    ("a kubelet says that it is certified", KUBELET, SHUT, SHUT | {"status": {"conditions": [SAYS]}}, [SAID]),
    ("somebody sets the label", ADMIN, SHUT, node(OURS, GPU, labels={CERTIFIED: "true"}), [LABELLED]),
    ("somebody takes the label off", ADMIN, OPEN,
     node(GPU, annotations={CERTIFICATE: "ab"}, conditions=(SAYS,)), [LABELLED]),
    ("somebody sets another label", ADMIN, SHUT, node(OURS, GPU, labels={"a": "b"}), []),
    ("somebody swaps the certificate", ADMIN, OPEN,
     node(GPU, labels={CERTIFIED: "true"}, annotations={CERTIFICATE: "cd"}, conditions=(SAYS,)), [ANNOTATED]),
    ("somebody claims our cordon", ADMIN, SHUT, node(OURS, GPU, annotations={CORDONED: "true"}), [ANNOTATED]),
    ("somebody annotates something else", ADMIN, SHUT, node(OURS, GPU, annotations={"x": "y"}), []),
    ("somebody takes the condition off", ADMIN, OPEN, OPEN | {"status": {"conditions": []}}, [SAID]),
    ("somebody rewrites why", ADMIN, OPEN,
     OPEN | {"status": {"conditions": [SAYS | {"message": "fine"}]}}, [SAID]),
    ("a status without conditions", ADMIN, SHUT, SHUT | {"status": {}}, []),
]  # fmt: skip
NAMED = pytest.mark.parametrize(
    ("user", "before", "after", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)


@NAMED
def test_the_rule_says(user: str, before: Object | None, after: Object, expected: list[str]) -> None:
    """In Python, as the webhook asks it."""
    asked = Asked(user, read_node(after), None if before is None else read_node(before))
    assert list(refusals(asked, ALLOWED)) == expected


@pytest.fixture(scope="module")
def policy() -> Any:
    """The shipped policy's CEL, compiled: whom it asks about, its variables, its validations."""
    (spec,) = (o["spec"] for o in manifests("rackproof", ALLOWED, None) if o["kind"] == "ValidatingAdmissionPolicy")
    environment = celpy.Environment()

    def compiled(text: str) -> Any:
        return environment.program(environment.compile(text))

    conditions = [compiled(c["expression"]) for c in spec["matchConditions"]]
    variables = [(v["name"], compiled(v["expression"])) for v in spec["variables"]]
    validations = [(compiled(v["expression"]), v["message"]) for v in spec["validations"]]
    return conditions, variables, validations


@NAMED
def test_the_shipped_policy_says_the_same(
    policy: Any, user: str, before: Object | None, after: Object, expected: list[str]
) -> None:
    """In CEL, as API servers from 1.30 on evaluate it: the same cases, the same words."""
    conditions, variables, validations = policy
    request = {"userInfo": {"username": user}, "operation": "CREATE" if before is None else "UPDATE"}
    known = {key: celpy.json_to_cel(value) for key, value in
             {"object": after, "oldObject": before, "request": request}.items()}  # fmt: skip
    if not all(c.evaluate(known) for c in conditions):
        assert expected == []
        return
    found: dict[Any, Any] = {}
    for name, program in variables:
        found[celpy.celtypes.StringType(name)] = program.evaluate(known | {"variables": celpy.celtypes.MapType(found)})
    known["variables"] = celpy.celtypes.MapType(found)
    assert [message for program, message in validations if not program.evaluate(known)] == expected


def test_names_cannot_end_a_string_of_the_policy() -> None:
    """Whoever writes the policy file writes no CEL: a name with a quote is refused, not escaped."""
    for name in ('a/b"] || true', "noslash", "/x", "a/"):
        with pytest.raises(UsageError, match="is no service account"):
            doormen("rackproof", (name,))
    with pytest.raises(UsageError, match="is no node name"):
        doormen("rackproof", (), ("Node 1",))


def test_the_webhook_never_asks_about_a_kubelets_report() -> None:
    """nodes/status is under none of its rules, and nodes that run jobs pass while the doorkeeper is away."""
    found = manifests("rackproof", ALLOWED, Webhook("https://10.0.0.5:9443/door", b"pem"))
    (configuration,) = (o for o in found if o["kind"] == "ValidatingWebhookConfiguration")
    hooks = {h["name"].split(".")[0]: h for h in configuration["webhooks"]}
    assert [r["resources"] for h in hooks.values() for r in h["rules"]] == [["nodes"]] * 3
    assert {name: h["failurePolicy"] for name, h in hooks.items()} == {
        "joining": "Fail",
        "shut": "Fail",
        "others": "Ignore",
    }
    (shut,), (others,) = (hooks[n]["objectSelector"]["matchExpressions"] for n in ("shut", "others"))
    assert (shut["operator"], others["operator"]) == ("In", "NotIn")
    assert shut["values"] == others["values"] == ["false"]
    with pytest.raises(UsageError, match="over TLS only"):
        manifests("rackproof", ALLOWED, Webhook("http://10.0.0.5", b"pem"))


def test_the_account_can_touch_nodes_and_no_secrets() -> None:
    """What RBAC grants is a list that is read at a glance."""
    rules = {
        (o["kind"], group or "core", resource): sorted(rule["verbs"])
        for o in manifests("rackproof", ALLOWED, None)
        if o["kind"] in ("ClusterRole", "Role")
        for rule in o["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert rules["ClusterRole", "core", "nodes"] == ["get", "list", "patch", "watch"]
    assert {verb for verbs in rules.values() for verb in verbs} <= {
        "get", "list", "watch", "patch", "create", "update", "delete"
    }  # fmt: skip
    assert not [key for key in rules if key[2] in ("secrets", "*") or key[1] == "*"]
    assert json.dumps(sorted(key[2] for key in rules if key[0] == "ClusterRole")) == json.dumps(
        ["events", "nodes", "nodes/status", "poddisruptionbudgets", "pods", "pods/eviction"]
    )
