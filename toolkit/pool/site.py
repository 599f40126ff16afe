"""From a site's policy to its pool."""

from __future__ import annotations

from toolkit.ledger import Artifacts
from toolkit.pool.model import Pool
from toolkit.pool.policy import PoolKind, PoolPolicy
from toolkit.pool.policy_file import load_policy
from toolkit.settings import Settings


def open_pool(settings: Settings, site: str, policy: PoolPolicy | None = None) -> Pool:
    """The pool the site admits to. `policy`: as already loaded; else its file is read.

    Raises InputError for a pool file that is wrong, UsageError where what it names is not there (a kubeconfig).
    """
    policy = policy or load_policy(settings, site)
    if policy.kind is PoolKind.KUBERNETES:
        from toolkit.pool.kubernetes import KubernetesPool

        return KubernetesPool.open(policy, settings.secrets(site), Artifacts(settings.artifacts).put)
    if policy.kind is PoolKind.SLURM:
        from toolkit.pool.slurm import SlurmPool

        return SlurmPool.open(policy, settings, site)
    from toolkit.pool.file import FilePool

    return FilePool(settings.pool(site))
