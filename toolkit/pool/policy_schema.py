"""What a pool file may say: its fields.

Imported inside functions only: pydantic costs more start-up time than most commands run.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from toolkit.certificate.unverified import Unverified
from toolkit.pool.policy import BurninBy, KubernetesSite, PoolKind, Regulation, SlurmSite
from toolkit.rack.document import shown
from toolkit.rack.fields import File, Flag, Folder, Line, SlurmName, Written, number_from, one_of, refuse, text_like

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def _duration(low_s: float, high_s: float, such_as: str) -> Any:
    """Seconds, from a number and its unit. A bare number is refused: minutes taken for seconds are a bad surprise."""

    def check(value: object) -> float:
        found = re.fullmatch(r"(\d{1,5})([smh])", value) if isinstance(value, str) else None
        if found is None:
            wrong = "is empty" if value is None else f"{shown(value)} is not a duration"
            refuse(wrong, f"a number and s, m or h: {such_as}")
        seconds = int(found[1]) * _SECONDS[found[2]]
        if not low_s <= seconds <= high_s:
            refuse(f"{found[0]} is out of range", f"from {low_s:.0f}s to {high_s / 3600:.0f}h, such as {such_as}")
        return seconds

    return BeforeValidator(check)


_DAY = 86_400.0
_USUAL, _CLUSTER, _SLURM = Regulation(), KubernetesSite(), SlurmSite()
Soak = Annotated[float, _duration(0, _DAY, "10m")]
Poll = Annotated[float, _duration(1, _SECONDS["h"], "5s")]
Deadline = Annotated[float, _duration(1, _DAY, "30m")]
# A namespace's name is a DNS label, a service account's a DNS name: RFC 1123, 2.1.
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
Namespace = Annotated[str, text_like(_LABEL, "a name as Kubernetes has it: lower-case letters, digits and -")]
Account = Annotated[str, text_like(rf"{_LABEL}/{_DNS_NAME}", "a service account as NAMESPACE/NAME")]
Image = Annotated[str, text_like(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}", "an image with its tag or digest")]


class RegulationFile(Written):
    """How fast racks are let in."""

    canary: Annotated[int, number_from(int, 1, 1000)] = _USUAL.canary
    growth: Annotated[float, number_from(float, 1.1, 10)] = _USUAL.growth
    most: Annotated[int | None, number_from(int, 1, 100_000)] = _USUAL.most
    soak: Soak = _USUAL.soak_s
    poll: Poll = _USUAL.poll_s
    patience: Deadline = _USUAL.patience_s
    smoke: Flag = _USUAL.smoke
    smoke_deadline: Deadline = _USUAL.smoke_s
    floor: Annotated[float, number_from(float, 0, 1)] = _USUAL.floor
    drain_deadline: Deadline = _USUAL.drain_s


class KubernetesFile(Written):
    """The cluster that keeps the members."""

    kubeconfig: File = _CLUSTER.kubeconfig
    context: Line = ""
    namespace: Namespace = _CLUSTER.namespace
    image: Image = ""
    smoke_image: Image = ""
    burnin: Annotated[BurninBy, one_of(BurninBy)] = _CLUSTER.burnin
    runtime_class: Line = ""
    kernel_log: Flag = _CLUSTER.kernel_log
    burnin_wait: Deadline = _CLUSTER.burnin_wait_s
    taint_by: tuple[Account, ...] = ()


class SlurmFile(Written):
    """The Slurm cluster that keeps the members."""

    programs: Folder = ""
    config: Folder = ""
    partition: SlurmName = ""
    account: SlurmName = ""
    qos: SlurmName = ""
    gres: SlurmName = ""
    gpus: Annotated[int, number_from(int, 1, 64)] = _SLURM.gpus
    mpi: SlurmName = _SLURM.mpi
    smoke: Folder = ""
    shared: Folder = ""


class PoolFile(Written):
    """pools/<site>.yml."""

    kind: Annotated[PoolKind, one_of(PoolKind)]
    accepts: tuple[Annotated[Unverified, one_of(Unverified)], ...] | None = None
    regulation: RegulationFile = Field(default_factory=RegulationFile)
    kubernetes: KubernetesFile | None = None
    slurm: SlurmFile | None = None
