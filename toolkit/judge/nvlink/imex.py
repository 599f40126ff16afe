"""The IMEX domain as every tray sees it: UP with one version, the driver's, on all planned trays, or why not.

`nvidia-imex-ctl -q` says only that the tray's own daemon is ready; the domain is in `-N`. A peer that is UNAVAILABLE
with an empty version while its own daemon runs has its command port shut (50005); peers that are READY and never
connected have the peer port shut (50000).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from toolkit.judge.nvlink.finding import Blame, NvlinkFinding, Standing, shortened
from toolkit.judge.nvlink.gpu import planned_partitions
from toolkit.judge.nvlink.seen import ImexPeer, ImexSeen, TraySeen
from toolkit.judge.nvlink.services import IMEX
from toolkit.rack.model import Partition, Rack

MAX_NODES = 18  # of a domain: NVIDIA IMEX service guide
PEER_PORT, COMMAND_PORT = 50000, 50005
READY, UNAVAILABLE = "READY", "UNAVAILABLE"
# States that a daemon passes through on its way (nvidia-imex-ctl, and DCGM's field 1503).
_ON_THE_WAY = ("INITIALIZING", "STARTING_AUTH_SERVER", "WAITING_FOR_PEERS", "WAITING_FOR_RECOVERY", "INIT_GPU")


def judge_imex(rack: Rack, trays: Sequence[TraySeen]) -> Iterator[NvlinkFinding]:
    """Findings about the domains, one for each planned partition."""
    by_name = {tray.node: tray for tray in trays}
    for partition in planned_partitions(rack):
        members = [by_name[name] for name in partition.nodes if name in by_name]
        yield from _files(members)
        hosts = _hosts(rack, partition)
        for tray in members:
            yield from _domain(tray, hosts, by_name)


def _hosts(rack: Rack, partition: Partition) -> dict[str, str]:
    """Tray by every name it may have in nodes_config.cfg: its in-band address and its own name."""
    found = {}
    for name in partition.nodes:
        host = rack.unit(name).host
        found[name] = name
        if host is not None:
            found[host.address] = name
    return found


def _files(members: Sequence[TraySeen]) -> Iterator[NvlinkFinding]:
    """nodes_config.cfg has the same bytes on every tray: the daemons compare it by position."""
    unread = [tray.node for tray in members if tray.nodes_sha256 is None]
    if unread:
        yield NvlinkFinding(
            "IMEX_NODES_UNREAD", Standing.UNKNOWN, Blame.EVIDENCE,
            f"nodes_config.cfg of {shortened(unread)} was not read, or is not there", tuple(unread),
            settled_by="/etc/nvidia-imex/nodes_config.cfg comes from the plan: play nvlink.yml again",
        )  # fmt: skip
    digests = Counter(tray.nodes_sha256 for tray in members if tray.nodes_sha256)
    if len(digests) > 1:
        common = digests.most_common(1)[0][0]
        odd = [tray.node for tray in members if tray.nodes_sha256 not in (None, common)]
        yield NvlinkFinding(
            "IMEX_NODES_DIFFER", Standing.FAIL, Blame.SOFTWARE,
            f"nodes_config.cfg of {shortened(odd)} is not that of the other trays", (),
            evidence=tuple(f"{tray.node}: sha256 {(tray.nodes_sha256 or '')[:12]}" for tray in members[:MAX_NODES]),
            settled_by="same lines in the same order on all trays, then restart nvidia-imex: it is read at start only",
        )  # fmt: skip


def _domain(tray: TraySeen, hosts: Mapping[str, str], trays: Mapping[str, TraySeen]) -> Iterator[NvlinkFinding]:
    """One tray's view of its domain."""
    service = tray.service(IMEX)
    if service is not None and not service.running:
        return  # IMEX_DOWN says it
    seen = tray.imex
    if seen is None:
        yield _finding(
            tray, "IMEX_UNREAD", Standing.UNKNOWN, Blame.EVIDENCE, "the IMEX domain was not read",
            "nvidia-imex-ctl -N -j on the node", tray.problems[:4],
        )  # fmt: skip
        return
    planned = set(hosts.values())
    listed = {hosts.get(peer.host, peer.host) for peer in seen.peers}
    if listed != planned:
        yield _membership(tray, listed, planned)
        return
    troubles = tuple(_peers(tray, seen, hosts, trays))
    yield from troubles
    yield from _versions(tray, seen)
    if seen.status != "UP" and not troubles:
        on_the_way = any(peer.status in _ON_THE_WAY for peer in seen.peers)
        yield _finding(
            tray, "IMEX_DOMAIN_WAITS" if on_the_way else "IMEX_DOMAIN_NOT_UP", Standing.HOLD, Blame.SYMPTOM,
            f"sees the IMEX domain {seen.status}", "nvidia-imex-ctl -N: the matrix shows who does not reach whom",
            tuple(f"{peer.host}: {peer.status}" for peer in seen.peers if peer.status != READY)[:8],
        )  # fmt: skip


def _membership(tray: TraySeen, listed: set[str], planned: set[str]) -> NvlinkFinding:
    absent, strange = sorted(planned - listed), sorted(listed - planned)
    words = [f"without {shortened(absent)}"] if absent else []
    words += [f"with {shortened(strange)}, of no tray in the plan"] if strange else []
    text = f"its IMEX domain has {len(listed)} nodes, {len(planned)} planned: {', '.join(words)}"
    fix = "nodes_config.cfg from the plan on every tray, then restart nvidia-imex"
    return _finding(tray, "IMEX_NODES_WRONG", Standing.FAIL, Blame.SOFTWARE, text, fix, ())


def _peers(
    tray: TraySeen, seen: ImexSeen, hosts: Mapping[str, str], trays: Mapping[str, TraySeen]
) -> Iterator[NvlinkFinding]:
    """Peers that this tray does not see READY and connected, and what stands between them."""
    silent = [peer for peer in seen.peers if peer.status == UNAVAILABLE and not peer.version]
    blocked: list[str] = []
    down: list[str] = []
    unread: list[str] = []
    for peer in silent:
        name = hosts[peer.host]
        other = trays.get(name)
        service = other.service(IMEX) if other else None
        (unread if service is None else blocked if service.running else down).append(name)
    if blocked:
        yield _finding(
            tray, "IMEX_PORT_BLOCKED", Standing.FAIL, Blame.SOFTWARE,
            f"cannot ask {shortened(blocked)}, whose IMEX runs: TCP port {COMMAND_PORT} is shut on the way",
            f"open TCP {COMMAND_PORT} (commands) beside {PEER_PORT} (peers) on every tray", _words(silent),
        )  # fmt: skip
    if down:
        yield _finding(
            tray, "IMEX_PEER_DOWN", Standing.FAIL, Blame.SOFTWARE, f"misses {shortened(down)}, whose IMEX does not run",
            "the finding of that tray says why", _words(silent),
        )  # fmt: skip
    if unread:
        yield _finding(
            tray, "IMEX_PEER_UNREAD", Standing.UNKNOWN, Blame.EVIDENCE,
            f"misses {shortened(unread)}, which could not be asked", "bring those trays to this stage", _words(silent),
        )  # fmt: skip
    apart = _unconnected(seen)
    if apart and not silent:
        yield _finding(
            tray, "IMEX_PEERS_APART", Standing.FAIL, Blame.SOFTWARE,
            f"all answer, and {len(apart)} pairs are not connected: TCP port {PEER_PORT} is shut on the way",
            f"open TCP {PEER_PORT} on every tray; `!V!` and `!M!` in `nvidia-imex-ctl -N` are versions and node lists",
            tuple(apart[:8]),
        )  # fmt: skip


def _unconnected(seen: ImexSeen) -> list[str]:
    """Pairs of ready peers without a connection, as the first of them reports it."""
    ready = {peer.host for peer in seen.peers if peer.status == READY}
    return [
        f"{peer.host} to {host}: {status}"
        for peer in seen.peers
        if peer.host in ready
        for host, status in peer.connections
        if host in ready and status not in ("CONNECTED", "RECOVERING", "AUTHENTICATING")
    ]


def _versions(tray: TraySeen, seen: ImexSeen) -> Iterator[NvlinkFinding]:
    versions = Counter(peer.version for peer in seen.peers if peer.version)
    if not versions:
        return
    if tray.driver is None:
        yield _finding(
            tray, "IMEX_UNREAD", Standing.UNKNOWN, Blame.EVIDENCE, "the driver's version was not read, which is IMEX's",
            "nvidia-smi -q -x on the node", (),
        )  # fmt: skip
        return
    want = tray.driver
    odd = [f"{peer.host} {peer.version}" for peer in seen.peers if peer.version and peer.version != want]
    if odd:
        yield _finding(
            tray, "IMEX_VERSION_WRONG", Standing.FAIL, Blame.SOFTWARE,
            f"IMEX of {len(odd)} trays is not of its driver's version {want}",
            f"pin nvidia-imex to {want} in the profile's `versions`; it aborts on another driver's", tuple(odd[:8]),
        )  # fmt: skip


def _words(peers: Sequence[ImexPeer]) -> tuple[str, ...]:
    return tuple(f"{peer.host}: {peer.status}, version {peer.version or 'empty'}" for peer in peers[:8])


def _finding(
    tray: TraySeen, code: str, standing: Standing, blame: Blame, text: str, fix: str, evidence: Sequence[str]
) -> NvlinkFinding:
    return NvlinkFinding(
        code, standing, blame, f"{tray.node}: {text}", (tray.node,), evidence=tuple(evidence), settled_by=fix
    )
