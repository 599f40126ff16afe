"""Over a real Slurm: who has a use for a node, while its door is open and while it is shut."""

from __future__ import annotations

import pytest
from slurm_cluster import Cluster

from tests.pool.test_slurm import admitted, cluster, job, node, pool, site
from toolkit.pool.model import Pool

__all__ = ["cluster", "node", "pool", "site"]
pytestmark = pytest.mark.root


def test_a_job_that_runs_or_waits_for_a_shut_node_wants_it(pool: Pool, cluster: Cluster, node: str) -> None:
    """Idle, nobody does; a job that is held wants nothing; one that waits for it does."""
    admitted(pool, node)
    assert pool.wanted(node) is None
    number = job(cluster, node)
    assert f"job {number} train" in str(pool.wanted(node))
    cluster.ask("scancel", number)
    cluster.until(lambda: pool.wanted(node) is None, "an idle node")
    pool.register(node, "measured again")
    waits = cluster.ask(
        "sbatch", "--parsable", "--chdir=/", "--output=/dev/null", "--job-name=train", f"--nodelist={node}",
        "--time=30", "--hold", "--wrap=sleep 600",
    ).strip()  # fmt: skip
    assert pool.wanted(node) is None
    cluster.ask("scontrol", "release", waits)
    cluster.until(lambda: f"job {waits} train" in str(pool.wanted(node)), "a job that waits for the node")
    cluster.ask("scancel", waits)
