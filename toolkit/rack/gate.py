"""A gate: a rule with a limit, a unit and a source. Data only; `judge` answers it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What a gate is asked of, once for each."""

    GPU = "gpu"
    LINK = "link"  # an NVLink of a GPU
    HCA = "hca"
    NODE = "node"
    LEAF = "leaf"  # what crosses it, of all nodes on it
    DOMAIN = "domain"  # the NVLink domain of several nodes
    RACK = "rack"


# Asked of many nodes together: no node's own evidence answers them, and none is to blame by them alone.
WIDE = frozenset({Scope.LEAF, Scope.DOMAIN, Scope.RACK})


class Operator(StrEnum):
    """The closed set of comparisons. There is no expression language and no eval."""

    AT_LEAST = "at_least"
    AT_MOST = "at_most"
    EQUALS = "equals"
    ONE_OF = "one_of"
    SAME_ACROSS = "same_across"  # one value over all subjects of the scope in one verdict: a node's GPUs
    PEERS = "peers"  # no more than a share (the limit) below siblings of the same SKU on the same test


class WithoutPeers(StrEnum):
    """What a required gate relative to peers answers where there are too few of them."""

    INCONCLUSIVE = "inconclusive"
    NOT_ASKED = "not_asked"  # it keeps nobody back, and the certificate says that it was not asked


Limit = float | int | str | tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Gate:
    """One rule.

    code      stable upper-case name of the finding and of its runbook, e.g. NCCL_BUSBW_LOW
    metric    name of the measurement it reads
    unit      unit the limit is in; a measurement in another unit is INCONCLUSIVE, never converted
    stage     stage whose evidence it reads: nvlink, infiniband, kubernetes, burnin, ...
    limit     None means nobody has sourced one yet: the answer is INCONCLUSIVE; of `peers`, the share of the
              siblings' rate that is worth a part: 0.03 is 3 %
    part      what a technician pulls when it fails: gpu, tray, cable, hca, ...; `software` where it is ours to
              configure and nothing is pulled; `symptom` where something went wrong and does not say by whose
              fault: a finding about a part goes before it; `evidence` where too little was measured to say
    why       one sentence an operator reads
    source    document or measurement the limit comes from, with its date
    """

    code: str
    metric: str
    unit: str
    scope: Scope
    operator: Operator
    limit: Limit
    stage: str
    required: bool
    part: str
    why: str
    source: str
    date: str
    without_peers: WithoutPeers = WithoutPeers.INCONCLUSIVE
