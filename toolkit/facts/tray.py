"""Facts of a node as one value for the NVLink verdict. What a fact does not say stays None."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from toolkit.facts import probe
from toolkit.facts.probe import Fact
from toolkit.judge.nvlink.seen import FabricBlock, GpuSeen, ImexPeer, ImexSeen, ServiceSeen, TraySeen

# What nvidia-smi prints where a field has no value.
_NO_WORD = (None, "", "N/A", "[N/A]", "Unknown Error", "GPU is lost")


def tray_seen(node: str, facts: Iterable[Fact]) -> TraySeen:
    """The node as its facts have it; a fact with a problem leaves its fields None and its problem in `problems`."""
    found = {fact.name: fact for fact in facts}
    gpus = _value(found, probe.GPUS.name)
    links = _value(found, probe.NVLINK.name)
    services = _value(found, probe.STATES.name)
    nodes = _value(found, probe.IMEX_NODES.name)
    packages = _value(found, probe.PACKAGES.name)
    modules = _value(found, probe.MODULES.name)
    log = _value(found, probe.MANAGER_LOG.name)
    return TraySeen(
        node=node,
        driver=gpus["driver"] if gpus else None,
        gpus=_gpus(gpus, links) if gpus else None,
        services=tuple((n, _service(s)) for n, s in services.items()) if services else None,
        manager=_value(found, probe.FABRIC_MANAGER.name),
        imex=_imex(_value(found, probe.IMEX.name)),
        nodes=tuple(nodes["entries"]) if nodes and nodes["sha256"] else None,
        nodes_sha256=nodes["sha256"] if nodes else None,
        modules=frozenset(modules) if modules is not None else None,
        packages=frozenset(packages) if packages is not None else None,
        manager_log=tuple((line["code"], line["line"]) for line in log["lines"]) if log else (),
        problems=tuple(f"{fact.name}: {fact.problem}" for fact in found.values() if fact.problem),
    )


def _value(found: Mapping[str, Fact], name: str) -> Any:
    fact = found.get(name)
    return None if fact is None or fact.problem is not None else fact.value


def _gpus(report: dict[str, Any], links: dict[str, Any] | None) -> tuple[GpuSeen, ...]:
    """GPUs that answer; a lost one is not there."""
    by_index = {gpu["gpu"]: gpu for gpu in links["gpus"]} if links else {}
    found = []
    for gpu in report["gpus"]:
        if gpu["lost"]:
            continue
        shown = by_index.get(gpu["index"])
        rates = None if shown is None else tuple((int(n), rate) for n, rate in shown["links"].items())
        found.append(GpuSeen(gpu["index"], _block(gpu["fabric"]), rates, bool(shown and shown["all_inactive"])))
    return tuple(found)


def _block(fabric: dict[str, str | None]) -> FabricBlock:
    words = {key: (None if word in _NO_WORD else word) for key, word in fabric.items()}
    return FabricBlock(
        state=words["state"],
        status=words["status"],
        clique=words["clique"],
        cluster=words["cluster"],
        summary=words["health"],
        bandwidth=words["bandwidth"],
        route_recovery=words["route_recovery_in_progress"],
        route_unhealthy=words["route_unhealthy"],
        access_timeout=words["access_timeout_recovery"],
        configuration=words["incorrect_configuration"],
    )


def _service(state: dict[str, str]) -> ServiceSeen:
    return ServiceSeen(state.get("LoadState", ""), state.get("ActiveState", ""), state.get("UnitFileState", ""))


def _imex(report: dict[str, Any] | None) -> ImexSeen | None:
    if report is None or not report["installed"]:
        return None
    peers = tuple(
        ImexPeer(p["host"], p["status"], p["version"], tuple((h, s) for h, s in p["connections"]))
        for p in report["peers"]
    )
    return ImexSeen(report["status"], peers)
