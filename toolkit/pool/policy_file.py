"""A site's pool file: every problem at once, each with file, line, field and what would be right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.pool.policy import KubernetesSite, PoolKind, PoolPolicy, Regulation, SlurmSite
from toolkit.rack.document import Problems, read
from toolkit.settings import Settings

if TYPE_CHECKING:
    from toolkit.pool.policy_schema import KubernetesFile, PoolFile, RegulationFile

_SMOKE = {
    PoolKind.FILE: "smoke: false",
    PoolKind.KUBERNETES: "kubernetes.smoke_image: an image that runs one; or smoke: false",
    PoolKind.SLURM: "slurm.smoke: the path of all_reduce_perf on the nodes; or smoke: false",
}


def load_policy(settings: Settings, site: str) -> PoolPolicy:
    """The site's policy by the first of its files that is there; without one, a pool in a file by the defaults.

    Raises InputError with everything that is wrong in the file.
    """
    from toolkit.pool.policy_schema import PoolFile
    from toolkit.rack.fields import validate

    file = next((f for f in settings.pool_policies(site) if f.exists()), None)
    if file is None:
        return PoolPolicy()
    document = read(file)
    problems = Problems(document)
    written = validate(PoolFile, document.data)
    if isinstance(written, list):
        for loc, wrong, right, of_key in written:
            problems.add(loc, wrong, right, of_key)
        problems.raise_any()
        raise AssertionError("a file that does not fit its schema has problems")
    for kind in (PoolKind.KUBERNETES, PoolKind.SLURM):
        if getattr(written, kind) is not None and written.kind is not kind:
            problems.add((kind.value,), f"the pool is of kind {written.kind}: this is never read", "remove it", True)
    policy = _policy(written)
    asked = written.regulation.smoke and "smoke" in written.regulation.model_fields_set
    if asked and policy.no_smoke:
        wrong = f"asks for a smoke collective, and {policy.no_smoke}"
        problems.add(("regulation", "smoke"), wrong, _SMOKE[policy.kind])
    problems.raise_any()
    return policy


def _policy(written: PoolFile) -> PoolPolicy:
    default = PoolPolicy()
    return PoolPolicy(
        kind=written.kind,
        regulation=_regulation(written.regulation),
        kubernetes=_cluster(written.kubernetes) if written.kubernetes else KubernetesSite(),
        slurm=SlurmSite(**written.slurm.model_dump()) if written.slurm else SlurmSite(),
        accepts=default.accepts if written.accepts is None else frozenset(written.accepts),
    )


def _cluster(written: KubernetesFile) -> KubernetesSite:
    told = written.model_dump()
    wait_s = told.pop("burnin_wait")
    return KubernetesSite(**told, burnin_wait_s=wait_s)


def _regulation(written: RegulationFile) -> Regulation:
    return Regulation(
        canary=written.canary,
        growth=written.growth,
        most=written.most,
        soak_s=written.soak,
        poll_s=written.poll,
        patience_s=written.patience,
        smoke=written.smoke,
        smoke_s=written.smoke_deadline,
        floor=written.floor,
        drain_s=written.drain_deadline,
    )
