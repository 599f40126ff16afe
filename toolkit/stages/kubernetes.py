"""kubernetes: container runtime and a kubelet that registers tainted; the node becomes a member that takes no jobs."""

from __future__ import annotations

from toolkit.facts import probe
from toolkit.rack.lifecycle import Outcome, Stage
from toolkit.stages.context import Context, Result, Work
from toolkit.stages.readback import Configuration, play_and_judge

CONFIGURATION = Configuration(Stage.KUBERNETES, "kubernetes.yml", (probe.STATES, probe.KUBELET))


def run(context: Context, work: Work) -> None:
    """Plays kubernetes.yml, reads the taint back, and registers with the pool those that have it."""

    def finish(node: str, result: Result) -> None:
        if result.outcome is Outcome.PASSED:
            context.hands.pool.register(node, "joined; not certified yet")
        work.finish(node, result)

    play_and_judge(context, work, CONFIGURATION, finish)
