"""kubeadm_control_plane on three hosts that share this machine, each with an /etc of its own; kubeadm is recorded."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.playbooks.local_plays import GROUP_VARS, Book, play_book
from tests.playbooks.own_etc import own_hosts, seen_as

pytestmark = [pytest.mark.root]
RECORDER = Path(__file__).with_name("kubeadm_recorder.py")
NAMES = ("control1", "control2", "control3")
SITE = {"kubeadm_control_plane_endpoint": "10.0.0.10:6443", "kubeadm_control_plane_packages": []}
PINS = yaml.safe_load((GROUP_VARS / "cluster.yml").read_text())["rackproof_pins"]


def on(*names: str, **keywords: object) -> dict[str, object]:
    """The role on these hosts, one after the other as control_plane.yml has it."""
    role = {"strategy": "linear", "roles": [{"role": "kubeadm_control_plane"}]}
    return {
        "name": "control plane",
        "hosts": ":".join(names),
        "serial": 1,
        "max_fail_percentage": 0,
        **role,
        **keywords,
    }


def words(book: Book) -> str:
    """What Ansible said, on one line."""
    return " ".join(book.text.split())


@dataclass(frozen=True)
class Hosts:
    """Three hosts: `folder`/NAME holds what each has in its /etc; `folder`/calls.jsonl what kubeadm was asked."""

    folder: Path

    def play(
        self, *plays: Mapping[str, object], check: bool = False, words: int = 0, **by_host: Mapping[str, object]
    ) -> Book:
        """Plays in one process; all hosts are in the group. `by_host`: variables of single hosts."""
        told: dict[str, dict[str, object]] = {
            name: seen_as(self.folder, name, ansible_host=f"10.0.0.1{n}", **by_host.get(name, {}))
            for n, name in enumerate(NAMES, 1)
        }
        return play_book(self.folder / "book", plays, {"control_plane": told}, SITE, check, words)

    def file(self, name: str, path: str) -> Path:
        """A file of the host's /etc."""
        return self.folder / name / "etc" / path

    def calls(self) -> list[dict[str, Any]]:
        """What kubeadm was asked, in turn."""
        record = self.folder / "calls.jsonl"
        return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Three hosts with nothing on them but a kubeadm that is recorded."""
    with own_hosts(tmp_path_factory.mktemp("hosts"), NAMES) as folder:
        for name in NAMES:
            kubeadm = folder / name / "bin/kubeadm"
            kubeadm.write_text(f'#!/bin/sh\nexec {sys.executable} -P {RECORDER} {folder} "$@"\n')
            kubeadm.chmod(0o755)
        yield Hosts(folder)


@pytest.fixture(scope="module")
def made(hosts: Hosts) -> Book:
    """A cluster by its first host and a second one, told at great length."""
    book = hosts.play(on("control1", "control2"), words=3)
    assert book.code == 0, book.text[-4000:]
    return book


def test_only_the_first_host_makes_a_cluster(hosts: Hosts) -> None:
    """Another one is refused while nobody is a member; check mode calls nothing. Before the others."""
    said = words(hosts.play(on("control1", "control2"), check=True))
    assert "control1 would make a cluster at 10.0.0.10:6443" in said
    assert "no host is a member yet, and control1 makes the cluster" in said
    assert hosts.calls() == []


@pytest.mark.usefixtures("made")
def test_the_cluster_is_made_once_and_the_others_join(hosts: Hosts) -> None:
    """Validated, then made; then one host after the other is invited and joins. No file with a secret is left."""
    calls = [" ".join(call["argv"][:3]) for call in hosts.calls()]
    assert [c.split(" --")[0] for c in calls] == [
        "config validate", "init", "init phase upload-certs", "token create", "join",
    ]  # fmt: skip
    for name in ("control1", "control2"):
        assert sorted(p.name for p in hosts.file(name, "kubernetes/rackproof").iterdir()) == []
        vip = yaml.safe_load(hosts.file(name, "kubernetes/manifests/kube-vip.yaml").read_text())
        assert vip["spec"]["volumes"][0]["hostPath"]["path"] == "/etc/kubernetes/admin.conf"


@pytest.mark.usefixtures("made")
def test_both_encrypt_with_one_key_of_32_bytes(hosts: Hosts) -> None:
    """A member with another key could not read what the first wrote. Only root reads the file."""
    files = [hosts.file(name, "kubernetes/api-server/encryption.yaml") for name in ("control1", "control2")]
    assert files[0].read_text() == files[1].read_text()
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    told = yaml.safe_load(files[0].read_text())
    (resource,) = told["resources"]
    assert resource["resources"] == ["secrets"]
    assert [next(iter(p)) for p in resource["providers"]] == ["secretbox", "identity"]
    assert re.fullmatch(r"[A-Za-z0-9+/]{43}=", secret(files[0]))


def secret(file: Path) -> str:
    """The key in an encryption configuration."""
    (resource,) = yaml.safe_load(file.read_text())["resources"]
    key: str = resource["providers"][0]["secretbox"]["keys"][0]["secret"]
    return key


def test_no_secret_is_said_or_an_argument(hosts: Hosts, made: Book) -> None:
    """Key of the encryption, key of the certificates, tokens: in no word of Ansible's at -vvv --diff, in no argv."""
    key = secret(hosts.file("control1", "kubernetes/api-server/encryption.yaml"))
    told = [d for call in hosts.calls() for d in call["told"].values()]
    secrets = {key} | {d["certificateKey"] for d in told if "certificateKey" in d}
    secrets |= {t["token"] for d in told for t in d.get("bootstrapTokens", ())}
    assert len(secrets) == 4  # the encryption's, the certificates', of init, of the join
    spoken = made.text + json.dumps([call["argv"] for call in hosts.calls()])
    for one in secrets:
        assert one not in spoken
        assert one.rpartition(".")[2] not in spoken


def test_a_second_run_changes_nothing_and_a_member_is_left_alone(hosts: Hosts, made: Book) -> None:
    """kubeadm is not even asked; nor where another version is pinned and not allowed, nor by an even number."""
    assert made.plays["control plane"].changed
    before = len(hosts.calls())
    refused = on("control1", "control2", name="refused", serial=2, max_fail_percentage=100)
    again = on("control1", "control2")
    book = hosts.play(again)
    assert (book.code, book.plays["control plane"].changed) == (0, ())
    newer = {"rackproof_pins": PINS | {"kubernetes": "1.37.1"}}
    even = {"kubeadm_control_plane_hosts": ["control1", "control2"]}
    said = words(hosts.play(refused, control1=newer, control2=even))
    assert "control1 runs 1.36.4 and 1.37.1 is pinned" in said
    assert "a control plane has an odd number of hosts" in said
    assert len(hosts.calls()) == before


@pytest.mark.usefixtures("made")
def test_a_join_that_fails_says_why_without_its_token_and_is_not_taken_for_a_member(hosts: Hosts) -> None:
    """kubeadm leaves admin.conf behind: the next run must not call that a member. Last, because it spoils a host."""
    (hosts.folder / "fail-join").touch()
    failed = words(hosts.play(on("control3")))
    assert "kubeadm join ended with 1: error: token (secret) timed out" in failed
    assert "the last try to make control3 a member failed halfway" in words(hosts.play(on("control3")))
