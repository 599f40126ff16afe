"""infiniband: host software and limits, then state and rate of every HCA the rack file names."""

from __future__ import annotations

from toolkit.facts import probe
from toolkit.rack.lifecycle import Stage
from toolkit.stages.context import Context, Work
from toolkit.stages.readback import Configuration, play_and_judge

CONFIGURATION = Configuration(Stage.INFINIBAND, "infiniband.yml", (probe.IBSTAT,))


def run(context: Context, work: Work) -> None:
    """Plays infiniband.yml, then reads the ports. Cabling against the design is not judged here yet."""
    play_and_judge(context, work, CONFIGURATION)
