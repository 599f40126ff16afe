"""Which carrier takes a burn-in to a node: by the site's pool policy, and by whether SSH reaches the node."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from enum import StrEnum

from toolkit.pool.policy import BurninBy, PoolKind, PoolPolicy
from toolkit.rack.model import Mode, Rack, Unit
from toolkit.runners.carrier import Carrier
from toolkit.runners.shell import Shell
from toolkit.runners.systemd import SystemdCarrier
from toolkit.settings import Settings


class CarriedBy(StrEnum):
    """What takes a burn-in to a node, in the operator's words."""

    SSH = "SSH"
    JOBS = "Kubernetes Jobs"
    SLURM = "Slurm"


def carried_by(policy: PoolPolicy, node: Unit) -> CarriedBy:
    """Kubernetes: where the site has an image for it, and asks for it or SSH does not reach the node. Slurm: where the
    site has shared storage for it. SSH otherwise.
    """
    told = policy.kubernetes
    if policy.kind is PoolKind.KUBERNETES and told.image and (node.host is None or told.burnin is BurninBy.JOBS):
        return CarriedBy.JOBS
    return CarriedBy.SLURM if policy.kind is PoolKind.SLURM and policy.slurm.shared else CarriedBy.SSH


def in_words(policy: PoolPolicy, nodes: Iterable[Unit]) -> tuple[str, ...]:
    """For a plan: each carrier with where it goes, and its nodes where there are several carriers."""
    found: dict[CarriedBy, list[str]] = {}
    for node in nodes:
        found.setdefault(carried_by(policy, node), []).append(node.name)
    places = {
        CarriedBy.SSH: "",
        CarriedBy.JOBS: f" in namespace {policy.kubernetes.namespace}, image {policy.kubernetes.image}",
        CarriedBy.SLURM: f" over {policy.slurm.shared}",
    }
    if len(found) < 2:
        return tuple(f"{by}{places[by]}" for by in found)
    return tuple(f"{by}{places[by]}: {', '.join(names)}" for by, names in found.items())


class Carriers:
    """A rack's carriers, each opened at its first use. Thread-safe."""

    def __init__(self, settings: Settings, rack: Rack, shell: Shell, policy: Callable[[], PoolPolicy]) -> None:
        self._settings = settings
        self._rack = rack
        self._policy = policy
        self._lock = threading.Lock()
        self._open: dict[CarriedBy, Carrier] = {CarriedBy.SSH: SystemdCarrier(shell)}

    def of(self, node: Unit) -> Carrier:
        """The node's. UsageError or InputError for a cluster that is not set up."""
        with self._lock:
            policy = self._policy()
            by = carried_by(policy, node)
            if by not in self._open:
                self._open[by] = self._jobs(policy) if by is CarriedBy.JOBS else self._slurm(policy)
            return self._open[by]

    def _jobs(self, policy: PoolPolicy) -> Carrier:
        from toolkit.kubernetes.client import ApiServer
        from toolkit.runners.job_manifest import JobSite
        from toolkit.runners.jobs import JobCarrier

        told = policy.kubernetes
        kubeconfig = self._settings.secrets(self._rack.site) / told.kubeconfig
        site = JobSite(told.namespace, told.image, told.runtime_class, told.kernel_log, told.burnin_wait_s)
        claims = self._rack.profile.mode is Mode.MNNVL_DRA
        return JobCarrier(ApiServer.connect(kubeconfig, told.context), site, by_claim=claims)

    def _slurm(self, policy: PoolPolicy) -> Carrier:
        from toolkit.pool.slurm import SlurmPool
        from toolkit.stages.slurm_carrier import SbatchCarrier

        return SbatchCarrier(SlurmPool.open(policy, self._settings, self._rack.site), self._rack.name)
