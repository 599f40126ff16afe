"""The real hands: Ansible, SSH, Redfish, the provisioning folder and the site's pool."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from toolkit.errors import UsageError
from toolkit.image.site import image_trust
from toolkit.netboot.probe import DhcpServer, find_servers, interface_to, rogues
from toolkit.nvue.client import NvueClient
from toolkit.nvue.client import connect as nvue_connect
from toolkit.pool.join import Joins
from toolkit.pool.model import Pool
from toolkit.pool.policy import PoolKind, PoolPolicy
from toolkit.pool.policy_file import load_policy
from toolkit.pool.site import open_pool
from toolkit.rack.model import Rack, Unit
from toolkit.redfish import BmcClient, connect, load_credentials
from toolkit.runners.ansible import AnsibleRunner
from toolkit.runners.carrier import Carrier
from toolkit.runners.inventory import LOGIN_KEY, SSH_CA_KEY
from toolkit.runners.play import PlaybookRunner
from toolkit.runners.shell import Shell
from toolkit.runners.ssh import SshShell
from toolkit.settings import Settings
from toolkit.stages.carriers import Carriers
from toolkit.stages.provisioning import ImageSite, ProvisionSite, host_of


class SiteHands:
    """What a rack of real or virtual machines is reached with."""

    def __init__(self, settings: Settings, rack: Rack, shell: Shell) -> None:
        self._settings = settings
        self._rack = rack
        self._shell = shell
        self._policy: PoolPolicy | None = None
        self._pool: Pool | None = None
        self._carriers = Carriers(settings, rack, shell, lambda: self.policy)

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
        keys = self._settings.keys
        return ProvisionSite(
            self._settings.provision, self._rack.provision_url, lambda: image_trust(keys, datetime.now(UTC))
        )

    @property
    def pool(self) -> Pool:
        """The site's pool: opened at its first use, so that a rack can be looked at while its pool is away."""
        self._pool = self._pool or open_pool(self._settings, self._rack.site, self.policy)
        return self._pool

    @property
    def policy(self) -> PoolPolicy:
        """How the site admits, by its pool file."""
        self._policy = self._policy or load_policy(self._settings, self._rack.site)
        return self._policy

    @property
    def joins(self) -> Joins | None:
        """Of a Kubernetes cluster: with the pool's login, or one of its own beside it."""
        if self.policy.kind is not PoolKind.KUBERNETES:
            return None
        from toolkit.pool.join import KubernetesJoins

        return KubernetesJoins.open(self.policy.kubernetes, self._settings.secrets(self._rack.site))

    def carrier(self, node: Unit) -> Carrier:
        """systemd over SSH, or what the site's pool has: see `carriers`."""
        return self._carriers.of(node)

    def bmc(self, node: Unit) -> BmcClient:
        """Redfish over verified TLS, with the site's credentials."""
        if node.bmc is None:
            raise UsageError(f"{node.name} has no BMC: it is rented, or the rack file forgot it", "it enters at IMAGED")
        secrets = self._settings.secrets(self._rack.site)
        login = load_credentials(secrets / "bmc.yml", node.bmc.credentials, at=node.bmc.address)
        return connect(node.bmc, login, secrets / "bmc-ca.pem")

    def strangers(self, node: Unit) -> tuple[DhcpServer, ...]:
        """Whoever answers a DHCPDISCOVER in the node's name, but for this machine and the provisioning server."""
        host = host_of(node)
        ours = urlsplit(self._rack.provision_url).hostname or ""
        return rogues(find_servers(interface_to(host.address), host.mac), (ours,))

    def nvue(self, tray: Unit) -> NvueClient:
        """NVUE over verified TLS, with the site's credentials."""
        if tray.nvos is None:
            raise UsageError(f"{tray.name} has no nvos", "give it `nvos: {address, credentials}` in the rack file")
        secrets = self._settings.secrets(self._rack.site)
        login = load_credentials(secrets / "nvos.yml", tray.nvos.credentials, "switch")
        return nvue_connect(tray.name, tray.nvos, login, secrets / "nvos-ca.pem")


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
