"""Where this installation keeps things. Precedence: command line, then environment, then the default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _data(name: str) -> Path:
    """Inventory and playbooks: beside the package in a checkout, inside it in a wheel."""
    checkout = _PACKAGE.parent / name
    return checkout if checkout.is_dir() else _PACKAGE / "_data" / name


@dataclass(frozen=True, slots=True)
class Settings:
    """Paths and addresses; no secrets.

    home       state of this installation: ledger, artifacts, keys, secrets, known hosts
    inventory  folder with racks/ and profiles/
    playbooks  folder with the playbooks and roles/
    ledger_url `sqlite:///ABSOLUTE/PATH` or `postgresql://...`
    cache      what can be built again: the burn-in archive, the virtual rack's image and packages
    """

    home: Path
    inventory: Path
    playbooks: Path
    ledger_url: str
    cache: Path

    @property
    def artifacts(self) -> Path:
        """Raw evidence by sha256."""
        return self.home / "artifacts"

    @property
    def keys(self) -> Path:
        """Signing key of certificates, SSH CA and login key; mode 0700."""
        return self.home / "keys"

    @property
    def provision(self) -> Path:
        """Document root of the provisioning HTTP server: images, boot scripts, seeds, reports."""
        return self.home / "provision"

    @property
    def releases(self) -> Path:
        """Signed releases of images, by name, as they were built: what is published are links to their parts."""
        return self.home / "releases"

    def secrets(self, site: str) -> Path:
        """Folder with the site's secrets: bmc.yml, bmc-ca.pem, nvos.yml, nvos-ca.pem; mode 0700."""
        return self.home / "secrets" / site

    def site_variables(self, site: str) -> Path:
        """Role variables of a site (package sources, ...) as Ansible reads them; not secret; may be absent."""
        return self.home / "sites" / f"{site}.yml"

    def pool(self, site: str) -> Path:
        """The file-backed pool of a site."""
        return self.home / "pool" / f"{site}.yml"

    def pool_policies(self, site: str) -> tuple[Path, ...]:
        """Where a site says what its pool is and how racks are let into it; the first that is there counts."""
        return tuple(folder / "pools" / f"{site}.yml" for folder in (self.home, self.inventory))

    def runs(self, rack: str) -> Path:
        """Working folders of ansible-runner for one rack."""
        return self.home / "runs" / rack

    def known_hosts(self, rack: str) -> Path:
        """Pinned SSH host keys of one rack."""
        return self.home / "known_hosts" / rack

    def certificate(self, rack: str) -> Path:
        """Newest certificate issued for the rack."""
        return self.home / "certificates" / f"{rack}.dsse.json"


def first_of(settings: Settings, file: str) -> Path:
    """A site's own copy of a file of policy, in its home; else its inventory's; else the one that ships with us."""
    places = (settings.home / file, settings.inventory / file)
    return next((path for path in places if path.exists()), _data("inventory") / file)


def load(env: Mapping[str, str] = os.environ) -> Settings:
    """Settings from RACKPROOF_HOME, RACKPROOF_INVENTORY, RACKPROOF_PLAYBOOKS, RACKPROOF_LEDGER, RACKPROOF_CACHE."""
    home = Path(env.get("RACKPROOF_HOME") or Path.home() / ".local/state/rackproof").absolute()
    return Settings(
        home=home,
        inventory=Path(env.get("RACKPROOF_INVENTORY") or _data("inventory")).absolute(),
        playbooks=Path(env.get("RACKPROOF_PLAYBOOKS") or _data("playbooks")).absolute(),
        ledger_url=env.get("RACKPROOF_LEDGER") or f"sqlite:///{home}/ledger.db",
        cache=Path(env.get("RACKPROOF_CACHE") or home / "cache").absolute(),
    )
