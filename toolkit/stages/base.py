"""base: package sources and pins, kernel settings, GPU driver, persistence, SSH host certificate."""

from __future__ import annotations

from toolkit.facts import probe
from toolkit.rack.lifecycle import Stage
from toolkit.stages.context import Context, Work
from toolkit.stages.readback import Configuration, play_and_judge

CONFIGURATION = Configuration(Stage.BASE, "base.yml", (probe.IDENTITY, probe.GPUS, probe.STATES, probe.PACKAGES))


def run(context: Context, work: Work) -> None:
    """Plays base.yml, then asks the driver what it sees."""
    play_and_judge(context, work, CONFIGURATION)
