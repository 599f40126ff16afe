"""The SSH CA's part of `ssh_host_certificate`, with a real ssh-keygen."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "playbooks/roles/ssh_host_certificate/files/sign_host_key.py"
Sign = Callable[..., "subprocess.CompletedProcess[str]"]


def keygen(*arguments: str | Path) -> str:
    """ssh-keygen's answer."""
    return subprocess.run(["ssh-keygen", *arguments], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def host_key(tmp_path: Path) -> str:
    """A node's public key."""
    keygen("-q", "-t", "ed25519", "-N", "", "-C", "", "-f", tmp_path / "host")
    return (tmp_path / "host.pub").read_text()


@pytest.fixture
def sign(tmp_path: Path) -> Sign:
    """Runs the script as the role does."""
    keygen("-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "ca")

    def run(said: str, principals: str = "node1,10.0.0.1", days: int = 365, renew_days: int = 90, ca: str = "ca"):  # type: ignore[no-untyped-def]
        argv = [sys.executable, "-I", SCRIPT, tmp_path / ca, "demo/node1/SN1", principals, str(days), str(renew_days)]
        return subprocess.run(argv, input=said, capture_output=True, text=True, check=False)

    return run


def test_a_host_key_gets_a_host_certificate_for_our_names(sign: Sign, host_key: str, tmp_path: Path) -> None:
    """Host, not user; the names are the controller's."""
    (tmp_path / "cert").write_text(sign(host_key).stdout)
    listed = keygen("-L", "-f", tmp_path / "cert")
    assert "host certificate" in listed
    assert 'Key ID: "demo/node1/SN1"' in listed
    assert [line.strip() for line in listed.splitlines() if line.startswith(" " * 16)] == ["node1", "10.0.0.1"]


def test_a_good_certificate_is_kept(sign: Sign, host_key: str) -> None:
    """A second run changes nothing, also when the names come in another order."""
    first = sign(host_key).stdout
    assert sign(host_key + first).stdout == first
    assert sign(host_key + first, principals="10.0.0.1,node1").stdout == first


@pytest.mark.parametrize(
    "change", [{"principals": "node1,10.0.0.2"}, {"renew_days": 400}, {"ca": "other"}], ids=["names", "end", "ca"]
)
def test_a_certificate_that_no_longer_fits_is_replaced(
    sign: Sign, host_key: str, tmp_path: Path, change: dict[str, object]
) -> None:
    """Other names, an end that is near, another CA."""
    keygen("-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other")
    first = sign(host_key).stdout
    second = sign(host_key + first, **change)
    assert second.returncode == 0
    assert second.stdout != first


def test_a_certificate_for_another_key_is_replaced(sign: Sign, host_key: str, tmp_path: Path) -> None:
    """A reimaged node shows the certificate of its former key."""
    keygen("-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "former")
    former = sign((tmp_path / "former.pub").read_text()).stdout
    (tmp_path / "cert").write_text(sign(host_key + former).stdout)
    assert keygen("-l", "-f", tmp_path / "host.pub").split()[1] in keygen("-L", "-f", tmp_path / "cert")


@pytest.mark.parametrize("said", ["", "no key\n", "ssh-rsa AAAA\n", "ssh-ed25519 AAAA; rm -rf /\n", "\x1b[31m\n"])
def test_what_is_no_key_is_refused(sign: Sign, said: str) -> None:
    """A node's words are data."""
    done = sign(said)
    assert done.returncode != 0
    assert "did not show an Ed25519 host key" in done.stderr


def test_a_missing_ca_says_how_to_make_one(sign: Sign, host_key: str) -> None:
    """The next step is in the message."""
    done = sign(host_key, ca="none")
    assert done.returncode != 0
    assert "ssh-keygen -t ed25519" in done.stderr
