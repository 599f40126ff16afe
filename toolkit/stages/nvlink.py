"""nvlink: the service that manages NVLink in the profile's mode, then every link and every GPU's fabric state."""

from __future__ import annotations

from toolkit.facts import probe
from toolkit.rack.lifecycle import Stage
from toolkit.stages.context import Context, Work
from toolkit.stages.readback import Configuration, play_and_judge

CONFIGURATION = Configuration(
    Stage.NVLINK, "nvlink.yml", (probe.GPUS, probe.NVLINK, probe.FABRIC_MANAGER, probe.STATES)
)


def run(context: Context, work: Work) -> None:
    """Plays nvlink.yml, then reads links and fabric state. What spans nodes is not judged here yet."""
    play_and_judge(context, work, CONFIGURATION)
