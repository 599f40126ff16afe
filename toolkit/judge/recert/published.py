"""Published shares of interruptions as priors. Rates have a source; the rest are assumptions, and named so."""

from __future__ import annotations

from collections.abc import Mapping

from toolkit.judge.recert.hazard import Cause, Prior

SOURCE = (
    "The Llama 3 Herd of Models (arXiv:2407.21783), table 5: 419 unexpected interruptions in 54 days on 16,384 GPUs"
)
GPU_HOURS = 16_384 * 54 * 24
# Table 5's own counts. What no test of a node finds beforehand is not among them: software 54, host maintenance 32,
# NCCL watchdog 7, external dependency 2.
INTERRUPTIONS: Mapping[Cause, int] = {
    Cause.GPU: 148,
    Cause.HBM: 72,
    Cause.SRAM: 19,
    Cause.GPU_PROCESSOR: 17,
    Cause.NETWORK: 35 + 7,  # switch or cable, and NIC
    Cause.DATA_CORRUPTION: 6,
    Cause.THERMAL: 6,  # GPU thermal interface and sensor
    Cause.HOST: 3 + 3 + 2 + 2 + 2 + 2,  # SSD, power supply, chassis, I/O board, CPU, memory
}
UNREACHED = 419 - sum(INTERRUPTIONS.values())


def priors(gray: float, gray_hours: float, shape: float) -> tuple[Prior, ...]:
    """One for each cause, with the same three assumptions for all of them."""
    return tuple(
        Prior(cause, count / GPU_HOURS, gray, gray_hours, shape, SOURCE) for cause, count in INTERRUPTIONS.items()
    )
