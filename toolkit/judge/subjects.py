"""What a verdict on a node must cover: every part the plan says it has."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.judge.evidence import Subject
from toolkit.rack.gate import Scope
from toolkit.rack.model import Profile, Unit


def planned_subjects(node: Unit, profile: Profile) -> Iterator[Subject]:
    """The node, its GPUs, their NVLinks and its HCAs, counted from the profile, not from what answered."""
    yield Subject(Scope.NODE, node.name)
    for gpu in range(profile.gpus_per_node):
        yield Subject(Scope.GPU, node.name, gpu=gpu)
        for link in range(profile.nvlinks_per_gpu):
            yield Subject(Scope.LINK, node.name, gpu=gpu, link=link)
    for hca in node.hcas:
        yield Subject(Scope.HCA, node.name, hca=hca.name)
