"""`door`, `revoke` and `drain` as an operator types them, against a real API server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.plane import api, control_plane, free_ports, own_address
from tests.pool.cluster_nodes import Nodes, nodes, until
from toolkit.cli import rackproof
from toolkit.errors import UsageError
from toolkit.kubernetes.client import ApiServer
from toolkit.kubernetes.errors import ApiRefusedError
from toolkit.ledger import Change, EventKind, Ledger, NewEvent
from toolkit.pool.door import TAINT
from toolkit.pool.installation import ADMISSION
from toolkit.pool.kubernetes import KubernetesPool
from toolkit.pool.manifests import MUTATING
from toolkit.pool.policy_file import load_policy
from toolkit.rack.lifecycle import Move, NodeState
from toolkit.rack.loading import load_rack
from toolkit.settings import Settings, load
from toolkit.virtual.control_plane.plane import ControlPlane

__all__ = ["api", "control_plane", "nodes"]

RACK = "dgx-h100-su"
WAY = (Move.IMAGE, Move.CONFIGURE, Move.CONNECT, Move.JOIN, Move.TEST, Move.CERTIFY, Move.ADMIT)


class Operator:
    """Somebody at a terminal, with an installation of their own."""

    def __init__(self, home: Path) -> None:
        self.env = {**os.environ, "RACKPROOF_HOME": str(home)}
        self.env.pop("RACKPROOF_INVENTORY", None)
        self.settings: Settings = load(self.env)
        self.rack = load_rack(RACK, self.settings.inventory)

    def types(self, *words: str) -> tuple[int, str, str]:
        """Exit status, stdout, stderr."""
        done = subprocess.run(self.argv(*words), env=self.env, capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stdout, done.stderr

    def argv(self, *words: str) -> list[str]:
        """The program with these words."""
        return [sys.executable, "-c", "from toolkit.cli import main; main()", *words]


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    made = Operator(tmp_path / "home")
    pools = made.settings.home / "pools"
    pools.mkdir(parents=True)
    (pools / f"{made.rack.site}.yml").write_text(
        "kind: kubernetes\nregulation: {floor: 0.0, drain_deadline: 30s}\nkubernetes: {namespace: rackproof-verbs}\n"
    )
    return made


@pytest.fixture
def installed(operator: Operator, api: ApiServer, control_plane: ControlPlane) -> Iterator[str]:
    """The door, put into the cluster by its verb; yields where the webhook is to listen."""
    address = own_address()
    (port,) = free_ports(address, 1)
    listen = f"{address}:{port}"
    code, out, err = operator.types(
        "door", "install", "--site", operator.rack.site, "--kubeconfig", str(control_plane.admin),
        "--webhook", f"https://{listen}/door",
    )  # fmt: skip
    try:
        assert code == 0, err
        assert f"door watch --site {operator.rack.site} --listen {listen}" in out
        yield listen
    finally:
        api.delete(ADMISSION, MUTATING, "rackproof-door")


def certify(ledger: Ledger, name: str) -> tuple[str, datetime]:
    """On record as admitted by a certificate, as the stages would have it."""
    ledger.enter(RACK, {name: NodeState.PLANNED}, "test")
    for move in WAY:
        ledger.move(RACK, name, Change(ledger.node_states(RACK)[name].state, move), "test")
    expires, digest = datetime.now(UTC) + timedelta(days=9), "ab" * 32
    body = {"nodes": [name], "expires": expires.isoformat()}
    ledger.append(NewEvent(EventKind.CERTIFICATE_ISSUED, RACK, body=body, what=digest))
    ledger.intent(RACK, name, "admit", {"certificate": digest})
    return digest, expires


def test_an_operators_day_at_the_door(
    operator: Operator, installed: str, api: ApiServer, nodes: Nodes, control_plane: ControlPlane
) -> None:
    """Install, watch; a taint lifted by hand is refused; a revoked node is shut and drained, and `why` says why."""
    name = operator.rack.nodes[0].name
    argv = operator.argv("door", "watch", "--site", operator.rack.site, "--listen", installed, "--json")
    watch = subprocess.Popen(argv, env=operator.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert watch.stderr is not None
        assert "webhook at" in watch.stderr.readline()
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                "spec": {"taints": [{"key": TAINT.key, "effect": TAINT.effect}]}}  # fmt: skip
        until(lambda: _made(api, node), 20.0)
        nodes.names.append(name)
        nodes.report(name)
        policy = load_policy(operator.settings, operator.rack.site)
        pool = KubernetesPool.open(policy, operator.settings.secrets(operator.rack.site))
        with Ledger.open(operator.settings.ledger_url, operator.settings.artifacts, "test",
                         lambda: datetime.now(UTC)) as ledger:  # fmt: skip
            pool.register(name, "joined")
            with pytest.raises(ApiRefusedError, match="is lifted by rackproof alone"):
                api.patch("v1", "Node", name, {"spec": {"taints": []}}, how="merge")
            pool.admit(name, *certify(ledger, name), {"rackproof.dev/rack": RACK})
        nodes.pod(name, "verbs-train")
        code, out, err = operator.types("revoke", name, "--reason", "cable recall", "--json")
        assert code == 0, err
        (row,) = json.loads(out)["nodes"]
        assert (row["shut"], row["drained"]["end"]) == (True, "EMPTY")
        assert "1 of 1 take no more jobs" in err
        assert pool.nodes()[name].reason.endswith("revoked: cable recall")  # our word, or the doorkeeper's
        code, out, err = operator.types("status", RACK)
        assert f"{name} " in out
        assert "JOINED" in out
    finally:
        watch.send_signal(signal.SIGTERM)
        told, _ = watch.communicate(timeout=30)
    assert watch.returncode == 0
    lines = [json.loads(line)["told"] for line in told.splitlines()]
    assert any(line.startswith(f"refused kubernetes-admin on {name}") for line in lines)


def _made(api: ApiServer, node: dict[str, Any]) -> bool:
    try:
        api.create(node)
    except ApiRefusedError:
        return False  # the webhook is asked, and does not answer yet
    return True


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("revoke", "nobody", "--reason", "x"), "no rack on record has a node nobody"),
        (("revoke", RACK, "--reason", "x", "--force", "dgx"), f"--force '{RACK}'"),
        (("revoke", RACK, "--reason", "x", "--deadline", "-1"), "is no number of seconds"),
        (("door", "watch", "--site", "nowhere"), "nowhere is not one of the inventory's"),
        (("door", "watch", "--site", "SITE", "--listen", "here"), "is no address to listen on"),
        (("door", "watch", "--site", "SITE", "--listen", "127.0.0.1:1"), "cannot listen"),
        (("door", "install", "--site", "SITE", "--kubeconfig", "ADMIN"), "has no ValidatingAdmissionPolicy"),
        (("door", "install", "--site", "SITE", "--kubeconfig", "ADMIN", "--no-webhook", "--exempt", "A b"),
         "is no node name"),
        (("door", "install", "--site", "SITE", "--kubeconfig", "/nonexistent", "--no-webhook"), "No such file"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_says_what_can(
    operator: Operator, control_plane: ControlPlane, words: tuple[str, ...], says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Exit 2: what is wrong, and what is next."""
    monkeypatch.setenv("RACKPROOF_HOME", str(operator.settings.home))
    given = {"SITE": operator.rack.site, "ADMIN": str(control_plane.admin)}
    with pytest.raises(UsageError) as caught:
        rackproof([given.get(word, word) for word in words], standalone_mode=False)
    assert says in str(caught.value)
    assert caught.value.hint


def test_a_dry_run_prints_what_kubectl_takes_and_changes_nothing(
    operator: Operator, api: ApiServer, control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """For clusters that are changed by other hands than ours."""
    monkeypatch.setenv("RACKPROOF_HOME", str(operator.settings.home))
    words = ["door", "install", "--site", operator.rack.site, "--kubeconfig", str(control_plane.admin), "--no-webhook"]
    rackproof([*words, "--dry-run", "--json"], standalone_mode=False)
    kinds = [o["kind"] for o in json.loads(capsys.readouterr().out)]
    assert kinds[:2] == ["Namespace", "ServiceAccount"]
    assert not any("Webhook" in k for k in kinds)
    assert not operator.settings.secrets(operator.rack.site).exists()
