"""The demonstration: six virtual nodes, five faults, from bare metal to admitted, by the verbs an operator types."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.rule import Rule

from toolkit import settings as installed
from toolkit.ledger import Ledger
from toolkit.rack.lifecycle import NodeState
from toolkit.rack.loading import load_rack
from toolkit.report.standing import standings
from toolkit.settings import Settings
from toolkit.virtual import lab, rack_cluster
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.supplies import stock

RACK = "demo"
FAULTS = (
    (Fault(FaultKind.ECC_DRIP, "node2", gpu=3, value=0.02), "HBM errors that grow under load"),
    (Fault(FaultKind.BAD_IMAGE, "node3", value=1), "the image server flips a byte in the first download"),
    (Fault(FaultKind.NVLINK_LANE_DOWN, "node4", gpu=5, link=7), "an NVLink is down"),
    (Fault(FaultKind.BMC_DEAD, "node5"), "the BMC does not answer"),
    (Fault(FaultKind.SWAPPED_CABLES, "node6", hca="mlx5_1", other="mlx5_2"), "two cables are in each other's port"),
)
REVOKED = "node3"  # of the two that are admitted
_COLUMNS = (
    "custom-columns=NODE:.metadata.name,GPUS:.status.allocatable.nvidia\\.com/gpu,TAINTS:.spec.taints[*].key,"
    "CERTIFIED:.status.conditions[?(@.type=='RackCertified')].status,"
    "WHY:.metadata.annotations.rackproof\\.dev/reason"
)
# What must become of each node; the demo fails if it does not.
EXPECTED = {
    "node1": (NodeState.ADMITTED, ""),
    "node2": (NodeState.QUARANTINED, "HBM_ECC_CORRECTED"),
    "node3": (NodeState.ADMITTED, ""),
    "node4": (NodeState.QUARANTINED, "NVLINK_LINK_DOWN"),
    "node5": (NodeState.PLANNED, "BMC_UNREACHABLE"),
    "node6": (NodeState.QUARANTINED, "FABRIC_CABLES_SWAPPED"),
}


def run(keep: bool) -> int:
    """Exit status 0 if every node ended as it should, 1 if not. Needs root."""
    console = Console(highlight=False, soft_wrap=True)
    base = installed.load()
    settings = _fresh(base)
    rack = load_rack(RACK, settings.inventory)
    lab.down(settings, RACK)
    shutil.rmtree(settings.home, ignore_errors=True)
    console.print(Rule("setting up (cached for the next time)", align="left"))
    began = time.monotonic()
    stock(rack, settings, console.print)
    kubernetes = rack_cluster.programs(settings, console.print)
    lab.up(rack, settings, console.print, kubernetes=kubernetes)
    console.print(f"set up in {time.monotonic() - began:.0f} s")
    try:
        with _memory_peak() as peak:
            for fault, words in FAULTS:
                lab.set_fault(settings, RACK, fault)
                console.print(f"fault on {fault.node}: {words}")
            ran = _operate(console, settings)
            console.print(Rule("as it should be?", align="left"))
            status = _check(console, settings)
            if kubernetes is not None:
                status = max(status, _show_cluster(console, settings))
        console.print(Rule("done", align="left"))
        console.print(
            f"bring-up took {ran:.0f} s of wall time; peak memory {peak[0] / 2**30:.1f} GiB over what was in use before"
        )
        return status
    finally:
        if keep:
            console.print(
                f"kept: RACKPROOF_HOME={settings.home} rackproof virtual status {RACK}; then: rackproof virtual down"
            )
        else:
            lab.down(settings, RACK)


def _fresh(base: Settings) -> Settings:
    """A home of the demo's own, so that it never touches an operator's ledger. Caches are shared."""
    home = base.home / "demo"
    return replace(base, home=home, ledger_url=f"sqlite:///{home}/ledger.db")


def _environment(settings: Settings) -> Mapping[str, str]:
    return os.environ | {
        "RACKPROOF_HOME": str(settings.home),
        "RACKPROOF_CACHE": str(settings.cache),
        "RACKPROOF_LEDGER": settings.ledger_url,
    }


def _verb(console: Console, settings: Settings, *words: str) -> None:
    console.print(Rule(f"$ rackproof {shlex.join(words)}", align="left"))
    subprocess.run([_rackproof(), *words], env=_environment(settings), check=False)


def _operate(console: Console, settings: Settings) -> float:
    """Types the verbs. Answers the seconds that bringup took."""
    verb = partial(_verb, console, settings)
    began = time.monotonic()
    verb("bringup", RACK, "--confirm", RACK)
    took = time.monotonic() - began
    verb("status", RACK)
    verb("verify", str(settings.certificate(RACK)))
    verb("why", "node2")
    verb("fabric", RACK)
    return took


def _show_cluster(console: Console, settings: Settings) -> int:
    """What the cluster has of the rack; then a certificate is revoked under a running job, and the job moves.

    Answers 1 where the job stays on the node, or the node keeps its door open.
    """
    verb = partial(_verb, console, settings)
    kubectl = partial(verb, "virtual", "exec", RACK, "--", "kubectl")
    kubectl("get", "nodes", "-L", "rackproof.dev/rack,rackproof.dev/slot,rackproof.dev/leaf")
    kubectl("get", "nodes", "-o", _COLUMNS)
    kubectl("create", "deployment", "train", "--image=localhost/train:1", "--replicas=2")
    kubectl("rollout", "status", "deployment/train", "--timeout=20s")
    kubectl("get", "pods", "-o", "wide")
    verb("revoke", REVOKED, "--reason", "the vendor recalls its boards")
    kubectl("get", "pods", "-o", "wide")
    kubectl("get", "nodes", "-o", _COLUMNS)
    places = _asked(settings, "get", "pods", "-o", "jsonpath={.items[?(@.status.phase=='Running')].spec.nodeName}")
    taints = _asked(settings, "get", "node", REVOKED, "-o", "jsonpath={.spec.taints[*].key}")
    moved = bool(places) and REVOKED not in places and any(key.startswith("rackproof.dev/") for key in taints)
    words = f"{REVOKED} takes no jobs and runs none" if moved else f"{REVOKED}: taints {taints}, jobs run on {places}"
    console.print(words, style="bold green" if moved else "bold red")
    return 0 if moved else 1


def _asked(settings: Settings, *question: str) -> list[str]:
    """The words of kubectl's answer; none where it has none."""
    argv = [_rackproof(), "virtual", "exec", RACK, "--", "kubectl", *question]
    asked = subprocess.run(argv, env=_environment(settings), check=False, capture_output=True, text=True)
    return asked.stdout.split() if asked.returncode == 0 else []


def _rackproof() -> str:
    beside = Path(sys.executable).parent / "rackproof"
    return str(beside) if beside.exists() else "rackproof"


def _check(console: Console, settings: Settings) -> int:
    with Ledger.open(settings.ledger_url, settings.artifacts, "demo", lambda: datetime.now(UTC)) as ledger:
        found = {s.node: (s.state, s.code) for s in standings(ledger, load_rack(RACK, settings.inventory))}
    wrong = [
        f"{node}: expected {want}, found {found.get(node)}"
        for node, want in EXPECTED.items()
        if found.get(node) != want
    ]
    for line in wrong:
        console.print(f"NOT AS EXPECTED  {line}", style="bold red")
    if not wrong:
        console.print("every node ended as it should", style="bold green")
    return 1 if wrong else 0


@contextmanager
def _memory_peak() -> Iterator[list[int]]:
    """Bytes of memory in use over what was in use at the start, at the worst moment: the kernel's own estimate."""
    peak, start, stop = [0], _available(), threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            peak[0] = max(peak[0], start - _available())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    raise OSError("/proc/meminfo has no MemAvailable")
