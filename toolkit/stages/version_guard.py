"""Before a playbook builds on what is installed: whether those versions go together. What does not is not touched."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace

from toolkit.facts import probe
from toolkit.judge.skew import Installed, judge_installed
from toolkit.judge.verdict import Answer
from toolkit.rack.lifecycle import Stage
from toolkit.rack.model import Unit
from toolkit.stages.context import Context, Progress, Result, Work, error


def admitted(context: Context, work: Work, stage: Stage) -> Work:
    """The work's nodes that the stage may go on with. The others have their result: VERSION_SKEW or EVIDENCE_MISSING.

    Both are errors of configuration, and say which pin to correct or what could not be read.
    """
    kept: set[str] = set()
    guard = threading.Lock()
    again = f"rackproof bringup {context.rack.name}"

    def look(node: Unit) -> Result | None:
        context.progress(Progress(node.name, stage, "versions"))
        found = judge_installed(read_installed(context, node), context.rack.profile)
        if found.answer is Answer.FAIL:
            return error("VERSION_SKEW", f"{node.name}: {found}"[:500], again)
        if found.answer is Answer.INCONCLUSIVE:
            return error("EVIDENCE_MISSING", f"{node.name}: {found}"[:500], again)
        with guard:
            kept.add(node.name)
        return None

    work.each(work.nodes, look)
    return replace(work, nodes=tuple(n for n in work.nodes if n.name in kept))


def read_installed(context: Context, node: Unit) -> Installed:
    """What the node has installed, loaded and burnt in. Raises UnreachableError where it does not answer."""
    shell, clock = context.hands.shell, context.clock
    packages, gpus, adapters = (probe.read(shell, node, p, clock) for p in (probe.PACKAGES, probe.GPUS, probe.IBSTAT))
    driver = gpus.value.get("driver") if isinstance(gpus.value, Mapping) else None
    return Installed(
        packages.value if isinstance(packages.value, Mapping) else None,
        driver if isinstance(driver, str) else None,
        adapter_firmware(adapters.value) if isinstance(adapters.value, Mapping) else None,
    )


def adapter_firmware(ibstat: Mapping[str, object]) -> dict[str, str]:
    """Firmware by device type in lower case, of ibstat's fact. Adapters of one type that differ are named together."""
    found: dict[str, set[str]] = {}
    adapters = ibstat.get("adapters")
    for adapter in adapters if isinstance(adapters, list) else ():
        kind, version = adapter.get("type"), adapter.get("firmware")
        if isinstance(kind, str) and isinstance(version, str):
            found.setdefault(kind.lower(), set()).add(version)
    return {kind: "+".join(sorted(versions)) for kind, versions in found.items()}
