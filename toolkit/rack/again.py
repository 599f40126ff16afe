"""What a suspect is measured by once more: the cheapest workload that yields the metric, in a suite of its own.

The suites run on the node and are no import of ours: a test holds `Again` equal to burnin/suites.py.
"""

from __future__ import annotations

from enum import StrEnum

from toolkit.rack.metric import COLLECTIVES, METRICS, Unit, collective_metric


class Again(StrEnum):
    """Suites of one workload, by the names the node's program knows them under."""

    HBM = "again_hbm"
    GEMM = "again_gemm"
    PCIE = "again_pcie"
    ALL_REDUCE = "again_nccl_all_reduce"
    ALL_GATHER = "again_nccl_all_gather"
    REDUCE_SCATTER = "again_nccl_reduce_scatter"
    ALLTOALL = "again_nccl_alltoall"
    SENDRECV = "again_nccl_sendrecv"


AGAIN_SECONDS = 360.0  # after which we stop waiting: the longest takes 150 s by its deadline

AGAIN = {
    "hbm_sweep_gb_per_s_median": Again.HBM,
    "hbm_verify_gb_per_s_median": Again.HBM,
    "hbm_copy_gb_per_s": Again.HBM,
    **{name: Again.GEMM for name, metric in METRICS.items() if metric.unit is Unit.TFLOP_PER_S},
    "h2d_gb_per_s": Again.PCIE,
    "d2h_gb_per_s": Again.PCIE,
    **{
        collective_metric(name, what): Again(f"again_nccl_{name}")
        for name in COLLECTIVES
        for what in ("busbw_gb_per_s", "busbw_p50_gb_per_s")
    },
}
"""Which suite yields a metric again. All of them are rates, of which less is worse."""
