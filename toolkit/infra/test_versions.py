"""Versions: every node has what the rack's one version lock has, and what it has goes together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from toolkit.infra import words
from toolkit.infra.questions import GOOD, Answered, Plan, Question, asks, of_nodes
from toolkit.infra.readings import Readings
from toolkit.infra.targets import Target
from toolkit.judge.skew import judge_installed
from toolkit.judge.verdict import Answer
from toolkit.judge.version_drift import drift, optional_pins
from toolkit.rack.model import Rack

# The stage whose playbook installs a pin; what is in none of these comes with stage base.
_STAGES = {
    "nvlink": ("nvidia-fabricmanager", "nvidia-imex", "libnvidia-nscq", "libnvsdm", "nvlsm"),
    "infiniband": ("doca-ofed", "infiniband-diags", "opensm"),
    "kubernetes": ("kubelet", "kubeadm", "containerd.io"),
    "burnin": ("nccl-tests", "datacenter-gpu-manager-4-cuda13"),
}


def pins(_: Plan, rack: Rack, target: Target) -> Iterator[Question]:
    """A question for each pin of the lock: packages, and firmware by type of adapter."""
    lock = (*rack.profile.versions, *rack.profile.firmware)
    if not lock:
        why = f"profile {rack.profile.name} locks no version"
        yield Question(target, "none", lambda _: GOOD, why)
    for pin, _version in lock:
        yield Question(target, pin, _pin(rack, target, pin).ask)


def _pin(rack: Rack, target: Target, pin: str) -> Question:
    profile = rack.profile
    alone = replace(
        profile,
        versions=tuple(lock for lock in profile.versions if lock[0] == pin),
        firmware=tuple(lock for lock in profile.firmware if lock[0] == pin),
    )
    stage = next((name for name, of in _STAGES.items() if pin in of), "base")

    def ask(readings: Readings) -> Answered:
        report = drift(alone, {target.name: readings.installed(target)}, optional_pins(profile.mode))
        if report.answer is Answer.PASS:
            return GOOD
        found = "; ".join(
            f"{d.pin} is {version}, locked at {d.locked}" for d in report.drifts for version, _ in d.found
        )
        told = words.failed if report.answer is Answer.FAIL else words.inconclusive
        limit = f"limit:  the version lock of profile {profile.name}"
        return told("VERSION_DRIFT", f"{target.name}: {found}", words.play(target.asked_as, stage), limit)

    return Question(target, pin, ask)


def together(_: Plan, rack: Rack, target: Target) -> Iterator[Question]:
    """The rules that the stages ask before they build on what is installed."""

    def ask(readings: Readings) -> Answered:
        found = judge_installed(readings.installed(target), rack.profile)
        if found.answer is Answer.PASS:
            return GOOD
        told = words.failed if found.answer is Answer.FAIL else words.inconclusive
        return told("VERSION_SKEW", f"{target.name}: {found}", f"rackproof drift {rack.name}")

    yield Question(target, "", ask)


@asks(of_nodes(pins))
def test_pin(answer: Answered) -> None:
    """A package or an adapter's firmware is as locked."""
    answer.holds()


@asks(of_nodes(together))
def test_versions_go_together(answer: Answered) -> None:
    """Driver, fabric manager, IMEX and NVLSM fit each other and the driver that is loaded."""
    answer.holds()
