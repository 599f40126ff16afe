"""The ufm role against UFM's REST interface over real TLS; no node is needed, for all calls are the controller's.

A process of Ansible costs seconds: what is refused is refused in one, each time by a UFM of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.playbooks.local_plays import COMPILED_ONCE
from toolkit.virtual.tls import Authority
from toolkit.virtual.ufm import Fabric, Ufm

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
GUIDS = ["0x0200de0000000100", "0x0200de0000000101", "0x0200DE0000000200"]
PLAIN = {guid.lower().removeprefix("0x"): "full" for guid in GUIDS}
PASSWORD = "canary-4711-of-the-site"  # made up, and looked for afterwards


@dataclass
class Site:
    """UFMs that answer, and how to play the role on them."""

    folder: Path
    stack: ExitStack

    def ufm(self, password: str = PASSWORD) -> tuple[Fabric, dict[str, object]]:
        """One whose administrator has that password, and what the role is told of it."""
        fabric = Fabric(logins={"admin": password})
        ufm = self.stack.enter_context(Ufm(fabric, "127.0.0.1", self.folder / "server.pem"))
        told = {
            "ufm_url": ufm.url,
            "ufm_ca_file": str(self.folder / "ca.pem"),
            "ufm_credentials_file": str(self.folder / "ufm.yml"),
            "rackproof_port_guids": GUIDS,
        }
        return fabric, told

    def play(self, told: dict[str, object], *, check: bool = False, undo: bool = False) -> tuple[int, str]:
        """Number of changes and what was said; -1 where the play failed."""
        return self.run([_role(told, **({"tasks_from": "remove"} if undo else {}))], check=check)

    def refusals(self, cases: dict[str, dict[str, object]]) -> tuple[int, dict[str, str], str]:
        """Number of changes, what the role refused to go on for by case, and what was said.

        A case that it did not refuse is absent.
        """
        tasks = [
            {
                "name": name,
                "block": [_role(told)],
                "rescue": [
                    {
                        "name": "Keep what it said",
                        "ansible.builtin.copy": {
                            "content": "{{ ansible_failed_result | to_json }}",
                            "dest": str(self.folder / f"{name}.refused"),
                        },
                        "delegate_to": "localhost",
                        "changed_when": False,
                    }
                ],
            }
            for name, told in cases.items()
        ]
        changes, said = self.run(tasks)
        assert changes != -1, said
        files = self.folder.glob("*.refused")
        return changes, {file.stem: json.loads(file.read_text())["msg"] for file in files}, said

    def run(self, tasks: list[dict[str, object]], *, check: bool = False) -> tuple[int, str]:
        """Plays tasks on two nodes that do not exist."""
        (self.folder / "book.yml").write_text(json.dumps([{"hosts": "nodes", "gather_facts": False, "tasks": tasks}]))
        (self.folder / "hosts.json").write_text(json.dumps({"nodes": {"hosts": {"node1": None, "node2": None}}}))
        argv = [sys.executable, "-P", "-m", "ansible", "playbook", "-v", "-i", self.folder / "hosts.json"]
        argv += [*(["--check"] if check else []), self.folder / "book.yml"]
        environment = os.environ | {"ANSIBLE_ROLES_PATH": str(PLAYBOOKS / "roles"), "ANSIBLE_NOCOLOR": "1"}
        environment |= {"PYTHONPATH": str(COMPILED_ONCE)}
        done = subprocess.run(argv, cwd=PLAYBOOKS, env=environment, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        if done.returncode:
            return -1, said
        recap = said[said.index("PLAY RECAP") :]
        return sum(int(word.removeprefix("changed=")) for word in recap.split() if word.startswith("changed=")), said


def _role(told: dict[str, object], **more: str) -> dict[str, object]:
    return {"name": "Role", "ansible.builtin.include_role": {"name": "ufm", **more}, "vars": told}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site's authority, and the file of the login that the site gave its UFM."""
    authority = Authority.at(tmp_path / "ca.pem", tmp_path / "ca.key")
    (tmp_path / "server.pem").write_bytes(authority.issue("ufm", "127.0.0.1"))
    (tmp_path / "ufm.yml").write_text(f"username: admin\npassword: {PASSWORD}\n")
    with ExitStack() as stack:
        yield Site(tmp_path, stack)


def test_ports_of_the_plan_become_full_members(site: Site) -> None:
    """check, run, run: says it, does it, nothing; also where the answer lags, and the password is nowhere."""
    fabric, told = site.ufm()
    fabric.lag_s = 1.0
    changes, said = site.play(told, check=True)
    assert changes == 1
    assert "ports to partition 0x7fff: 0200de0000000100" in said
    assert fabric.partitions == {"0x7fff": {}}
    changes, said = site.play(told)
    assert changes == 1
    assert PASSWORD not in said
    assert fabric.partitions == {"0x7fff": PLAIN}
    assert site.play(told)[0] == 0


def test_the_undo_takes_out_what_the_role_put_in(site: Site) -> None:
    """Not from the management partition, and not the ports of others: strangers stay, in and out.

    A limited member is made a full one by the way.
    """
    fabric, told = site.ufm()
    told["ufm_partitions"] = [{"pkey": "0x0012", "members": GUIDS}, {"pkey": "0x7fff", "members": GUIDS}]
    fabric.partitions["0x12"] = {"ffffffffffffffff": "full"}
    fabric.partitions["0x7fff"] = {"0200de0000000100": "limited", "ffffffffffffffff": "limited"}
    everybody = PLAIN | {"ffffffffffffffff": "limited"}
    assert site.play(told)[0] == 1
    assert fabric.partitions == {"0x7fff": everybody, "0x12": PLAIN | {"ffffffffffffffff": "full"}}
    assert site.play(told, check=True, undo=True)[0] == 1
    assert site.play(told, undo=True)[0] == 1
    assert fabric.partitions == {"0x7fff": everybody, "0x12": {"ffffffffffffffff": "full"}}
    assert site.play(told, undo=True)[0] == 0


def test_what_cannot_be_right_is_refused_with_what_to_do(site: Site) -> None:
    """Before anything is changed, with the file and never the password; what was accepted is read back."""
    Authority.at(site.folder / "other.pem", site.folder / "other.key")
    delivered, delivered_told = site.ufm("123456")
    stranger, stranger_told = site.ufm()
    _, login_told = site.ufm("another")
    sharp, sharp_told = site.ufm()
    sharp.sharp, sharp.partitions["0x7fff"] = False, dict(PLAIN)
    forgetful, forgetful_told = site.ufm()
    forgetful.refuses = {"0x7fff"}
    unasked, unasked_told = site.ufm()
    changes, refused, said = site.refusals(
        {
            "delivered": delivered_told,
            "stranger": stranger_told | {"ufm_ca_file": str(site.folder / "other.pem")},
            "login": login_told,
            "sharp": sharp_told | {"ufm_sharp": True},
            "none": unasked_told | {"ufm_url": ""},
            "forgetful": forgetful_told,  # last: the role remembers what it added
        }
    )
    assert sorted(refused) == ["delivered", "forgetful", "login", "sharp", "stranger"]
    assert PASSWORD not in said
    assert changes == 1, "only the forgetful one took anything"

    assert "takes the login it was delivered with" in refused["delivered"]
    assert "Change the password of admin" in refused["delivered"]
    assert delivered.partitions == {"0x7fff": {}}
    # No password is sent to whoever answers.
    assert "CERTIFICATE_VERIFY_FAILED" in refused["stranger"]
    assert stranger.requests == []
    assert "answered 401" in refused["login"]
    assert "ufm.yml is not taken" in refused["login"]
    # SHARP's switch is not in the REST interface: the message has the file and the key.
    assert "sharp_enabled = true" in refused["sharp"]
    assert "accepted ports for 0x7fff and does not show them" in refused["forgetful"]
    assert unasked.requests == []
