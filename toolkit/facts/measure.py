"""Facts as measurements: one metric, one unit, one subject each. What a fact does not say gives no measurement.

gpu_count           count    node   GPUs that answer; a lost one does not count
driver_version      version  node
persistence_active  flag     node   of every GPU
ecc_enabled         flag     gpu
hbm_corrected_errors, hbm_uncorrected_errors     count  gpu   DRAM, since the driver loaded
row_remap_pending, row_remap_failure             flag   gpu
recovery_action     code     gpu    as NVML field 230: 0 none, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset
pcie_width          lanes    gpu
fabric_state, fabric_status                      word   gpu
fabric_domain                                    word   gpu    UUID.clique
fabric_bandwidth, fabric_health                  word   gpu
nvlink_active       flag     link
nvlink_gb_per_s     GB/s     link   one way, of an active link
fabric_manager_version                           version  node
fabric_manager_active, persistenced_active, imex_active, containerd_active, kubelet_active    flag  node
imex_masked, fabric_manager_masked               flag   node   nothing can start it
imex_domain                                      word   node   as this node sees it
imex_nodes_ready                                 count  node   as this node sees them
imex_nodes_sha256                                word   node
hca_state           word     hca
hca_rate_gb_per_s   GB/s     hca    one way
hca_guid            word     hca    of the port
kubelet_taint       word     node   the taint of the uncertified, or what it registers with instead
machine_serial, product, image                   word   node
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from toolkit.facts.probe import Fact
from toolkit.judge.evidence import Measurement, Subject, Value
from toolkit.rack.gate import Scope
from toolkit.rack.model import Unit
from toolkit.rack.topology import UNCERTIFIED

_BITS_PER_BYTE = 8
# the words of nvidia-smi and of Xid 154, without "GPU", "node" and "required"
_RECOVERY = {
    "none": 0,
    "reset": 1,
    "reboot": 2,
    "drain p2p": 3,
    "drain and reset": 4,
    "recover imex": 5,
    "bus reset": 6,
    "system reboot": 7,
}
_FLAG_OF_STATE = {"active": 1, "inactive": 0, "failed": 0}  # one on its way is neither
_SERVICE_METRICS = (
    ("nvidia-fabricmanager.service", "fabric_manager_active"),
    ("nvidia-persistenced.service", "persistenced_active"),
    ("nvidia-imex.service", "imex_active"),
    ("containerd.service", "containerd_active"),
    ("kubelet.service", "kubelet_active"),
)

_MASKED_METRICS = (
    ("nvidia-imex.service", "imex_masked"),
    ("nvidia-fabricmanager.service", "fabric_manager_masked"),
)

# metric, unit, value (None: not said), subject
_Said = tuple[str, str, Value | None, Subject]


def measurements_of(fact: Fact, node: Unit, run: str, origin: str) -> tuple[Measurement, ...]:
    """What the fact measures on the node. `origin` is the sha256 of its raw bytes. Empty for a fact with a problem."""
    source = _SOURCES.get(fact.name)
    if source is None or fact.problem is not None:
        return ()
    return tuple(
        Measurement(metric, unit, value, subject, fact.at, run, origin)
        for metric, unit, value, subject in source(fact.value, node)
        if value is not None
    )


def _node(node: Unit) -> Subject:
    return Subject(Scope.NODE, node.name)


def _gpus(report: dict[str, Any], node: Unit) -> Iterator[_Said]:
    answering = [g for g in report["gpus"] if not g["lost"]]
    yield "gpu_count", "count", len(answering), _node(node)
    yield "driver_version", "version", report["driver"], _node(node)
    yield "persistence_active", "flag", _all_enabled([g["persistence_mode"] for g in answering]), _node(node)
    for gpu in answering:
        yield from _gpu(gpu, Subject(Scope.GPU, node.name, gpu=gpu["index"]))


def _gpu(gpu: dict[str, Any], subject: Subject) -> Iterator[_Said]:
    remapped = gpu["remapped"] or {}
    yield "ecc_enabled", "flag", _enabled(gpu["ecc"]), subject
    yield "hbm_corrected_errors", "count", gpu["volatile"]["dram_correctable"], subject
    yield "hbm_uncorrected_errors", "count", gpu["volatile"]["dram_uncorrectable"], subject
    yield "row_remap_pending", "flag", _flag(remapped.get("pending")), subject
    yield "row_remap_failure", "flag", _flag(remapped.get("failure")), subject
    yield "recovery_action", "code", _recovery(gpu["recovery_action"]), subject
    yield "pcie_width", "lanes", gpu["pcie"]["width"], subject
    yield "fabric_state", "word", _word(gpu["fabric"]["state"]), subject
    yield "fabric_status", "word", _word(gpu["fabric"]["status"]), subject
    cluster, clique = _word(gpu["fabric"]["cluster"]), _word(gpu["fabric"]["clique"])
    yield "fabric_domain", "word", f"{cluster}.{clique}" if cluster and clique else None, subject
    yield "fabric_bandwidth", "word", _word(gpu["fabric"]["bandwidth"]), subject
    yield "fabric_health", "word", _word(gpu["fabric"]["health"]), subject


def _nvlink(report: dict[str, Any], node: Unit) -> Iterator[_Said]:
    # a GPU with no active link does not say how many it has; its siblings do, and one is enough to fail it
    links = {link for gpu in report["gpus"] for link in gpu["links"]} or {"0"}
    for gpu in report["gpus"]:
        rates = dict.fromkeys(links) if gpu["all_inactive"] else gpu["links"]
        for link, rate in sorted(rates.items(), key=lambda item: int(item[0])):
            subject = Subject(Scope.LINK, node.name, gpu=gpu["gpu"], link=int(link))
            yield "nvlink_active", "flag", 0 if rate is None else 1, subject
            yield "nvlink_gb_per_s", "GB/s", rate, subject


def _services(states: dict[str, dict[str, str]], node: Unit) -> Iterator[_Said]:
    for service, metric in _SERVICE_METRICS:
        state = states.get(service, {}).get("ActiveState", "")
        yield metric, "flag", _FLAG_OF_STATE.get(state), _node(node)
    for service, metric in _MASKED_METRICS:
        if service in states:
            load, file = states[service].get("LoadState", ""), states[service].get("UnitFileState", "")
            blocked = load in ("not-found", "masked") or file in ("masked", "masked-runtime")
            yield metric, "flag", int(blocked) if load else None, _node(node)


def _imex(report: dict[str, Any], node: Unit) -> Iterator[_Said]:
    if not report["installed"]:
        return
    yield "imex_domain", "word", report["status"], _node(node)
    yield "imex_nodes_ready", "count", sum(p["status"] == "READY" for p in report["peers"]), _node(node)


def _imex_nodes(config: dict[str, Any], node: Unit) -> Iterator[_Said]:
    yield "imex_nodes_sha256", "word", config["sha256"], _node(node)


def _adapters(report: dict[str, Any], node: Unit) -> Iterator[_Said]:
    # a node has other adapters (storage, in-band) that are not on the rack's rails
    planned = {hca.name for hca in node.hcas}
    for adapter in report["adapters"]:
        if adapter["name"] not in planned or not adapter["ports"]:
            continue
        port, subject = adapter["ports"][0], Subject(Scope.HCA, node.name, hca=adapter["name"])
        rate = port["rate_gbit_per_s"]
        yield "hca_state", "word", port["state"], subject
        yield "hca_rate_gb_per_s", "GB/s", None if rate is None else rate / _BITS_PER_BYTE, subject
        yield "hca_guid", "word", port["guid"], subject


def _kubelet(value: dict[str, Any], node: Unit) -> Iterator[_Said]:
    taints: list[str] = value["taints"]
    ours = [t for t in taints if t.split(":")[0].split("=")[0] == UNCERTIFIED]
    yield "kubelet_taint", "word", (ours or [",".join(taints) or "none"])[0], _node(node)


def _one(metric: str, unit: str) -> Callable[[Any, Unit], Iterator[_Said]]:
    def said(value: str, node: Unit) -> Iterator[_Said]:
        yield metric, unit, value, _node(node)

    return said


def _flag(value: bool | None) -> int | None:
    return None if value is None else int(value)


def _enabled(word: str | None) -> int | None:
    return {"Enabled": 1, "Disabled": 0}.get(word or "")


def _all_enabled(words: list[str | None]) -> int | None:
    flags = [_enabled(w) for w in words]
    if 0 in flags:
        return 0
    return 1 if flags and None not in flags else None


def _word(word: str | None) -> str | None:
    return None if word in (None, "", "N/A", "Unknown Error") else word


def _recovery(word: str | None) -> int | None:
    asked = " ".join(w for w in (word or "").lower().split() if w not in ("gpu", "node", "required"))
    return _RECOVERY.get(asked)


_SOURCES: Mapping[str, Callable[[Any, Unit], Iterator[_Said]]] = MappingProxyType(
    {
        "gpus": _gpus,
        "nvlink": _nvlink,
        "services": _services,
        "ibstat": _adapters,
        "kubelet": _kubelet,
        "imex": _imex,
        "imex_nodes": _imex_nodes,
        "fabric_manager": _one("fabric_manager_version", "version"),
        "identity": _one("machine_serial", "word"),
        "product": _one("product", "word"),
        "image": _one("image", "word"),
    }
)
