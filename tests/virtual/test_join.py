"""The kubernetes stage into a real cluster: a ticket that stays private, and only the very machine becomes a member."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.plane import free_ports
from tests.rehearsal import in_process, open_ledger
from toolkit.errors import UndecidedError
from toolkit.kubernetes.client import ApiServer
from toolkit.ledger import Ledger
from toolkit.pool.join import KubernetesJoins
from toolkit.pool.kubernetes import KubernetesPool
from toolkit.pool.policy import KubernetesSite
from toolkit.rack.lifecycle import Outcome, Stage
from toolkit.rack.model import Unit
from toolkit.runners.play import PlayEvent, PlayRequest, PlayResult
from toolkit.stages import kubernetes
from toolkit.stages.context import Context, Result, Work
from toolkit.virtual import cluster
from toolkit.virtual.control_plane.plane import ControlPlane
from toolkit.virtual.in_process import InProcessRack
from toolkit.virtual.node_agent import AgentOptions, NodeAgent

pytestmark = pytest.mark.root


@dataclass(slots=True)
class JoiningRack(InProcessRack):
    """A rack of files at whose play node agents come up, as kubeadm would have them; what the play was told is kept."""

    arrivals: Callable[[], None] = lambda: None
    api: ApiServer | None = None
    told: list[tuple[PlayRequest, str, int]] = field(default_factory=list)

    @property
    def pool(self) -> Any:
        """The cluster's."""
        assert self.api is not None
        return KubernetesPool(self.api, KubernetesSite())

    def play(self, request: PlayRequest, on_event: Callable[[PlayEvent], None]) -> PlayResult:
        """See the class."""
        ticket = Path(str(request.variables["kubeadm_node_join_file"]))
        self.told.append((request, ticket.read_text(), ticket.stat().st_mode & 0o777))
        self.arrivals()
        return InProcessRack.play(self, request, on_event)


@dataclass
class Bench:
    """One stage over one node. `clock` moves by a minute whenever the stage waits."""

    rack: JoiningRack
    ledger: Ledger
    plane: ControlPlane
    folder: Path
    stack: ExitStack
    skipped: timedelta = timedelta()

    def run(self, **agent: Any) -> Result:
        """The stage's result for node1; with options, its agent comes up at the play."""
        (node,) = (unit for unit in self.rack.rack.nodes if unit.name == "node1")
        if agent:
            self.rack.arrivals = lambda: self._power_on(node, agent)
        ended: dict[str, Result] = {}
        run = self.ledger.start_run(self.rack.rack.name, node.name, Stage.KUBERNETES)
        context = Context(self.rack.rack, self.rack.settings, self.ledger, self.rack, self._now, self._wait, _silent)

        def each(nodes: Any, do: Callable[[Unit], Result | None]) -> None:
            for unit in nodes:
                result = do(unit)
                if result is not None:
                    ended[unit.name] = result

        kubernetes.run(context, Work((node,), {node.name: run}, ended.__setitem__, each))
        return ended["node1"]

    def _power_on(self, node: Unit, options: dict[str, Any]) -> None:
        (port,) = free_ports("127.0.0.1", 1)
        chosen = AgentOptions(**{"serial": node.serial, "port": port, **options})
        self.stack.enter_context(NodeAgent(self.plane, node.name, self.folder / "agent", chosen))

    def _now(self) -> datetime:
        return datetime.now(UTC) + self.skipped

    def _wait(self, _: float) -> None:
        self.skipped += timedelta(minutes=1)


@pytest.fixture(name="bench")
def _bench(api: ApiServer, control_plane: ControlPlane, tmp_path: Path) -> Iterator[Bench]:
    cluster.configure(api, control_plane.server.removeprefix("https://"))
    made = in_process(tmp_path, "demo-small")
    rack = JoiningRack(made.rack, made.settings, made.folder, joins=KubernetesJoins(api), api=api)
    with rack.changing("node1") as machine:
        machine.power, machine.image = "On", "debian-12-node"
    with open_ledger(rack.settings) as ledger, ExitStack() as stack:
        yield Bench(rack, ledger, control_plane, tmp_path, stack)
    api.delete("v1", "Node", "node1")


def test_a_node_that_joins_is_registered_and_its_ticket_is_nowhere(api: ApiServer, bench: Bench) -> None:
    """Topology labels from the rack, the taint; the token is in no argument, log, artifact or ledger, and is gone."""
    result = bench.run(gpus=2)
    assert result.outcome is Outcome.PASSED, result
    node = api.get("v1", "Node", "node1")
    assert node is not None
    labels = node["metadata"]["labels"]
    assert (labels["rackproof.dev/rack"], labels["rackproof.dev/slot"]) == ("demo-small", "1")
    assert any(taint["key"] == "rackproof.dev/uncertified" for taint in node["spec"]["taints"])
    ((request, ticket, mode),) = bench.rack.told
    token = ticket.partition('"token": "')[2].partition('"')[0]
    assert mode == 0o600
    assert len(token) == 23
    assert token not in repr(request)
    assert not Path(str(request.variables["kubeadm_node_join_file"])).exists()
    secret = token.partition(".")[2].encode()
    read = [path for path in bench.rack.settings.home.rglob("*") if path.is_file()]
    assert [path for path in read if secret in path.read_bytes()] == []
    assert len(read) > 3
    assert api.get("v1", "Secret", f"bootstrap-token-{token.partition('.')[0]}", "kube-system") is None


def test_a_node_that_does_not_appear_has_not_joined(bench: Bench) -> None:
    """ERROR with a code of its own, after the time for it; nothing is registered."""
    result = bench.run()
    assert (result.outcome, result.code) == (Outcome.ERROR, "NODE_NOT_JOINED")
    assert "its kubelet says" in result.message


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"serial": "VR99999999"}, "NODE_OF_ANOTHER_MACHINE"),
        ({"taints": ()}, "NODE_JOINED_UNTAINTED"),
    ],
)
def test_only_the_very_machine_with_its_taint_is_a_member(bench: Bench, options: dict[str, Any], code: str) -> None:
    """Another machine under this name, and one that came without the taint, are not registered."""
    result = bench.run(gpus=0, **options)
    assert (result.outcome, result.code) == (Outcome.ERROR, code)


def test_a_cluster_that_is_away_gives_no_ticket(bench: Bench, control_plane: ControlPlane) -> None:
    """Nothing is played: could not tell, and the file of the ticket is not there."""
    (port,) = free_ports("127.0.0.1", 1)
    config = control_plane.admin.read_text().replace(control_plane.server, f"https://127.0.0.1:{port}")
    (bench.folder / "away").touch(mode=0o600)
    (bench.folder / "away").write_text(config)
    bench.rack.joins = KubernetesJoins(ApiServer.connect(bench.folder / "away", timeout_s=1.0))
    with pytest.raises(UndecidedError):
        bench.run()
    assert bench.rack.told == []


def _silent(_: object) -> None:
    """Nobody watches."""
