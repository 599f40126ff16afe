"""A rack of three small nodes, its facts, its findings and a key."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from toolkit.certificate.fingerprint import NodeFacts
from toolkit.certificate.sign import SigningKey, load_or_create
from toolkit.certificate.statement import Grounds
from toolkit.certificate.unverified import Unverified, of_kind
from toolkit.judge.evidence import Subject
from toolkit.judge.subjects import planned_subjects
from toolkit.judge.verdict import Answer, Finding
from toolkit.rack.gate import Gate, Operator, Scope
from toolkit.rack.model import (
    Bmc,
    Disk,
    Gpu,
    Hca,
    Host,
    Link,
    LinkKind,
    Mode,
    Port,
    Profile,
    Rack,
    Unit,
    UnitKind,
)

NOW = datetime(2026, 11, 23, 8, 0, 0, 123456, tzinfo=UTC)


def gate(code: str, scope: Scope, *, required: bool = True) -> Gate:
    return Gate(
        code, code.lower(), "GB/s", scope, Operator.AT_LEAST, 1.0, "burnin", required, "gpu", "why", "a source", "2026"
    )


GATES = (
    gate("NCCL_BUSBW_LOW", Scope.NODE),
    gate("HBM_ERRORS", Scope.GPU),
    gate("NVLINK_DOWN", Scope.LINK),
    gate("HCA_RATE", Scope.HCA),
    gate("WARM", Scope.NODE, required=False),
)


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def rack() -> Rack:
    profile = Profile(
        name="small", sku="S", mode=Mode.NVSWITCH_GEN3, gpus_per_node=2, nvlinks_per_gpu=2, nvlink_gb_per_s=25.0,
        hcas_per_node=1, units=((UnitKind.NODE, 3),), image="os.img.zst", expected=(("driver_version", "580.95.05"),),
        versions=(("driver", "580.95.05"),), gates=GATES, certificate_lifetime=timedelta(days=30),
    )  # fmt: skip
    units = tuple(
        Unit(
            f"node{i}", UnitKind.NODE, f"SN{i}", i, Bmc(f"10.0.0.{i}", "bmc"),
            Host(f"10.1.0.{i}", f"52:54:00:00:00:0{i}", Disk("/dev/nvme0n1", f"D{i}")),
            tuple(Gpu(g) for g in range(2)), (Hca("mlx5_0", f"0x{i}", 0),),
        )
        for i in (1, 2, 3)
    )  # fmt: skip
    leaf = Unit("leaf1", UnitKind.LEAF, "LF1", 40)
    links = tuple(
        Link(Port(f"node{i}", "mlx5_0"), Port("leaf1", str(i)), LinkKind.INFINIBAND, 50.0, f"cable{i}")
        for i in (1, 2, 3)
    )
    return Rack("demo", "virtual", profile, (*units, leaf), links, "ab" * 32)


def facts_of(number: int) -> NodeFacts:
    gpus = tuple(f"165{number}{g}" for g in range(2))
    firmware = (("vbios", "96.00.A5"), ("bmc", "24.09"))
    return NodeFacts(f"node{number}", f"SN{number}", gpus, (f"0x{number}",), "580.95.05", firmware)


def origin_of(code: str, subject: Subject) -> str:
    return hashlib.sha256(f"{code} {subject}".encode()).hexdigest()


def findings_of(rack: Rack, node: str) -> tuple[Finding, ...]:
    return tuple(
        Finding(g, subject, Answer.PASS, 2.5, "as it should be", origin_of(g.code, subject))
        for g in rack.profile.gates
        for subject in planned_subjects(rack.unit(node), rack.profile)
        if subject.scope is g.scope
    )


@pytest.fixture
def grounds(rack: Rack) -> Grounds:
    """Two of three nodes passed; the third was left out."""
    return Grounds(
        rack=rack,
        nodes=(facts_of(1), facts_of(2)),
        findings=findings_of(rack, "node1") + findings_of(rack, "node2"),
        left_out=(("node3", "QUARANTINED: HBM_ERRORS GPU 1"),),
        plan_digest="cd" * 32,
        not_verified=of_kind(Unverified.LEVELS, ["no collective over more than one node was measured"]),
    )


@pytest.fixture
def whole(grounds: Grounds) -> Grounds:
    """All three passed."""
    return replace(
        grounds,
        nodes=(*grounds.nodes, facts_of(3)),
        findings=grounds.findings + findings_of(grounds.rack, "node3"),
        left_out=(),
    )


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return load_or_create(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"
