"""Versions stand in one place, each with where and when it was looked up, and go together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm_program import WHEEL

INVENTORY = Path(__file__).resolve().parents[2] / "inventory"
PINS_FILE = INVENTORY / "group_vars" / "cluster.yml"
PROFILES = sorted((INVENTORY / "profiles").glob("*.yml"))
ROLES = INVENTORY.parent / "playbooks" / "roles"


def load(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


PINS: dict[str, str] = {name: str(version) for name, version in load(PINS_FILE)["rackproof_pins"].items()}


@pytest.mark.parametrize("pin", sorted(PINS))
def test_a_pin_says_where_it_is_from_and_when(pin: str) -> None:
    """In the comment above it, with a date of the year it was chosen in; never `latest`."""
    lines = PINS_FILE.read_text().splitlines()
    above = next(n for n, line in enumerate(lines) if line.strip().startswith(f"{pin}:"))
    # Two images of one list share its source.
    while not lines[above - 1].strip().startswith("#"):
        above -= 1
    comment = []
    while lines[above - 1].strip().startswith("#"):
        above -= 1
        comment.append(lines[above])
    assert re.search(r"2026-\d\d", " ".join(comment)), pin
    assert re.fullmatch(r"v?\d+\.\d+(\.\d+)?(-\d+)?", PINS[pin])


@pytest.mark.parametrize("profile", PROFILES, ids=lambda p: p.stem)
def test_a_profile_locks_what_the_cluster_is_made_of(profile: Path) -> None:
    """kubelet, kubeadm and containerd: the certificate binds the rack's lock, the cluster is pinned here."""
    versions = load(profile)["versions"]
    assert str(versions["kubelet"]) == str(versions["kubeadm"]) == PINS["kubernetes"]
    assert str(versions["containerd.io"]) == PINS["containerd"]


def test_the_control_planes_lock_is_the_pins_own() -> None:
    """No version is written a second time."""
    assert all(
        "rackproof_pins." in str(v)
        for v in load(INVENTORY / "group_vars/control_plane.yml")["rackproof_versions"].values()
    )


def test_no_role_has_a_version_of_its_own() -> None:
    """Defaults and templates take the pins; API versions of documents are no pins."""
    for file in [*ROLES.glob("*/defaults/main.yml"), *ROLES.glob("*/vars/main.yml")]:
        if not file.parent.parent.name.startswith(
            ("kubeadm", "containerd", "cni", "gpu_operator", "network_operator", "helm")
        ):
            continue
        for line in file.read_text().splitlines():
            code = re.sub(r"\d+(\.\d+){3}/\d+", "a network", line.partition("#")[0])
            assert not re.search(r"\bv?\d+\.\d+\.\d+\b", code), (file, line)


def test_the_helm_of_the_tests_is_the_pinned_one() -> None:
    """The wheel's second number says nothing of Helm: the pin's comment names the wheel."""
    name, _, version = WHEEL.partition("==")
    assert f"{name} {version}" in PINS_FILE.read_text()


def test_the_example_inventory_is_a_control_plane() -> None:
    """Odd, with an endpoint that is none of its hosts."""
    plane = load(INVENTORY / "examples/control_plane.yml")["cluster"]["children"]["control_plane"]
    assert len(plane["hosts"]) % 2 == 1
    endpoint = plane["vars"]["kubeadm_control_plane_endpoint"].rpartition(":")[0]
    assert endpoint not in {h["ansible_host"] for h in plane["hosts"].values()}
