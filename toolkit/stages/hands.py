"""The real hands: Ansible, SSH, Redfish, the provisioning folder and the site's pool."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolkit.errors import UsageError
from toolkit.pool.file import FilePool
from toolkit.pool.model import Pool
from toolkit.rack.model import Rack, Unit
from toolkit.redfish import BmcClient, connect, load_credentials
from toolkit.runners.ansible import AnsibleRunner
from toolkit.runners.inventory import LOGIN_KEY, SSH_CA_KEY
from toolkit.runners.play import PlaybookRunner
from toolkit.runners.shell import Shell
from toolkit.runners.ssh import SshShell
from toolkit.settings import Settings
from toolkit.stages.provisioning import ImageSite, ProvisionSite


class SiteHands:
    """What a rack of real or virtual machines is reached with."""

    def __init__(self, settings: Settings, rack: Rack, shell: Shell) -> None:
        self._settings = settings
        self._rack = rack
        self._shell = shell

    @classmethod
    @contextmanager
    def over(cls, settings: Settings, rack: Rack) -> Iterator[SiteHands]:
        """Hands whose SSH connections are closed at the end. Makes this installation's keys on first use."""
        make_keys(settings)
        with SshShell(settings, rack.name) as shell:
            yield cls(settings, rack, shell)

    @property
    def playbooks(self) -> PlaybookRunner:
        """Ansible, with the site's own variables if it has any."""
        site = self._settings.site_variables(self._rack.site)
        return AnsibleRunner(self._settings, arguments=("-e", f"@{site}") if site.exists() else ())

    @property
    def shell(self) -> Shell:
        """SSH with pinned host keys."""
        return self._shell

    @property
    def site(self) -> ImageSite:
        """The provisioning server."""
        return ProvisionSite(self._settings.provision, self._rack.provision_url)

    @property
    def pool(self) -> Pool:
        """The site's pool. First depth: a file."""
        return FilePool(self._settings.pool(self._rack.site))

    def bmc(self, node: Unit) -> BmcClient:
        """Redfish over verified TLS, with the site's credentials."""
        if node.bmc is None:
            raise UsageError(f"{node.name} has no BMC: it is rented, or the rack file forgot it", "it enters at IMAGED")
        secrets = self._settings.secrets(self._rack.site)
        return connect(node.bmc, load_credentials(secrets / "bmc.yml", node.bmc.credentials), secrets / "bmc-ca.pem")


def make_keys(settings: Settings) -> None:
    """The login key of the nodes and the CA of their host keys: ed25519, mode 0600, made once."""
    settings.keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in (LOGIN_KEY, SSH_CA_KEY):
        if not (settings.keys / name).exists():
            _make_key(settings.keys / name, f"rackproof {name}")


def _make_key(path: Path, comment: str) -> None:
    done = subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode != 0:
        raise UsageError(f"ssh-keygen could not make {path}: {done.stderr.strip()}", "install openssh-client")
