"""A site's pool: of which kind it is, where it is reached, and how fast racks are let into it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from toolkit.certificate.unverified import Unverified

OUR_OWN = frozenset(Unverified) - {Unverified.RENTED}


class PoolKind(StrEnum):
    """What keeps the members."""

    FILE = "file"
    KUBERNETES = "kubernetes"
    SLURM = "slurm"


# Why a pool runs no smoke collective: the site's word, or what the pool lacks.
SMOKE_OFF = "the site's policy asks for none (regulation.smoke: false)"
NO_SMOKE: Mapping[PoolKind, str] = MappingProxyType(
    {
        PoolKind.FILE: "a pool in a file starts no jobs",
        PoolKind.KUBERNETES: "the pool's policy names no smoke_image",
        PoolKind.SLURM: "the pool file names no `smoke` program under `slurm`",
    }
)


class BurninBy(StrEnum):
    """What takes a burn-in to a node that SSH reaches."""

    SSH = "ssh"
    JOBS = "jobs"


@dataclass(frozen=True, slots=True)
class Regulation:
    """How nodes are admitted: a canary, then growing waves, each watched for a while before the next.

    canary        nodes in the first wave
    growth        each wave is at most this many times the one before; over 1
    most          nodes in a wave at most; None: no bound
    soak_s        a wave is watched this long before the next, and before it counts as admitted
    poll_s        between two looks at a wave that soaks
    patience_s    a pool that does not answer is waited for this long; then the wave is taken back out
    smoke         whether each wave runs a small collective, where the pool has one
    smoke_s       its deadline
    floor         share of the pool's admitted nodes that draining never goes under, 0..1
    drain_s       deadline of a drain
    """

    canary: int = 1
    growth: float = 2.0
    most: int | None = None
    soak_s: float = 600.0
    poll_s: float = 5.0
    patience_s: float = 180.0
    smoke: bool = True
    smoke_s: float = 300.0
    floor: float = 0.9
    drain_s: float = 1800.0


@dataclass(frozen=True, slots=True)
class KubernetesSite:
    """kubeconfig   file name in the site's secrets folder; `context`: of it, empty for its current one
    namespace    of our Lease, Jobs and service account
    image        of the burn-in's and smoke collective's pods, with Python 3.10 or newer; empty: none are run as Jobs
    burnin       whether nodes that SSH reaches are burnt in by Jobs too; others always are, where there is an image
    runtime_class  of the burn-in's pods; empty: the nodes' default gives GPUs
    kernel_log   whether its pods may read the kernel's log, for which they are privileged; without it no Xid is seen
    burnin_wait_s  how long its Job may wait for the node, for a quota, for its image
    taint_by     whose word counts besides ours when a taint is lifted: service accounts as `namespace/name`; empty:
                 nobody's
    """

    kubeconfig: str = "kubeconfig"
    context: str = ""
    namespace: str = "rackproof"
    image: str = ""
    smoke_image: str = ""
    burnin: BurninBy = BurninBy.SSH
    runtime_class: str = ""
    kernel_log: bool = True
    burnin_wait_s: float = 900.0
    taint_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SlurmSite:
    """programs     folder of scontrol, sinfo, squeue, sbatch; empty: on the path
    config       slurm.conf; empty: where Slurm looks by itself
    partition    that training jobs run in; its nodes are the members
    account, qos as jobs of ours are charged; empty: the user's default
    gres         the generic resource that GPUs are given out as (`gpu`); empty: Slurm does not give them out
    gpus         of a node
    mpi          srun's MPI plugin for a smoke collective over several nodes
    smoke        nccl-tests' all_reduce_perf on the nodes; empty: there is no smoke collective
    shared       folder on storage that the nodes and this machine share: burn-ins are Slurm jobs then, and write there;
                 empty: they go by SSH
    """

    programs: str = ""
    config: str = ""
    partition: str = ""
    account: str = ""
    qos: str = ""
    gres: str = ""
    gpus: int = 8
    mpi: str = "pmix"
    smoke: str = ""
    shared: str = ""


@dataclass(frozen=True, slots=True)
class PoolPolicy:
    """accepts    what a certificate may leave unverified and still admit; whose nodes somebody else imaged and
    could enter through a BMC is for a site to decide, so `rented` is not among them unless it is said
    """

    kind: PoolKind = PoolKind.FILE
    regulation: Regulation = field(default_factory=Regulation)
    kubernetes: KubernetesSite = field(default_factory=KubernetesSite)
    slurm: SlurmSite = field(default_factory=SlurmSite)
    accepts: frozenset[Unverified] = OUR_OWN

    @property
    def no_smoke(self) -> str:
        """Why no wave runs a smoke collective; empty where each does."""
        has = {PoolKind.KUBERNETES: bool(self.kubernetes.smoke_image), PoolKind.SLURM: bool(self.slurm.smoke)}
        if not self.regulation.smoke:
            return SMOKE_OFF
        return "" if has.get(self.kind, False) else NO_SMOKE[self.kind]
