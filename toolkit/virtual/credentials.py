"""The secrets of a virtual rack's BMCs, in the place where a real site keeps them: bmc.yml and bmc-ca.pem."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import UsageError
from toolkit.rack.model import Rack
from toolkit.redfish.credentials import entry_of
from toolkit.virtual import network
from toolkit.virtual.layout import Layout
from toolkit.virtual.tls import Authority, write_private

USER = "admin"
_PASSWORD_BYTES = 18


@dataclass(frozen=True, slots=True)
class Login:
    """A BMC account. Its text form does not show the password."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Login({self.username})"


def prepare(layout: Layout, rack: Rack, secrets_folder: Path) -> None:
    """Writes bmc.yml, bmc-ca.pem and one certificate per BMC; logins that are there already are kept."""
    secrets_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    secrets_folder.chmod(0o700)
    logins = read_logins(secrets_folder / "bmc.yml", "BMC")
    for unit in network.bmc_units(rack):
        if unit.bmc and unit.bmc.credentials not in logins:
            logins[unit.bmc.credentials] = Login(USER, secrets.token_urlsafe(_PASSWORD_BYTES))
    write_logins(secrets_folder / "bmc.yml", logins)
    authority = Authority.at(secrets_folder / "bmc-ca.pem", secrets_folder / "bmc-ca.key")
    layout.certificates.mkdir(parents=True, exist_ok=True)
    for unit in network.bmc_units(rack):
        if unit.bmc:
            pem = authority.issue(f"{unit.name}-bmc", unit.bmc.address)
            write_private(layout.certificates / f"{unit.name}.pem", pem)


def logins_of(rack: Rack, secrets_folder: Path) -> dict[str, Login]:
    """The login of each unit that has a BMC, by unit name."""
    logins = read_logins(secrets_folder / "bmc.yml", "BMC")
    return {
        unit.name: logins.get(entry_of(unit.bmc.credentials, unit.bmc.address), logins[unit.bmc.credentials])
        for unit in network.bmc_units(rack)
        if unit.bmc
    }


def read_logins(path: Path, controller: str) -> dict[str, Login]:
    """Logins by name of a file that `write_logins` wrote; none where there is no file. UsageError for another's.

    `controller` is what they are logins of, for the message: "BMC", "NVOS".
    """
    import yaml

    if not path.exists():
        return {}
    try:
        entries = yaml.safe_load(path.read_text()) or {}
        return {name: Login(entry["username"], entry["password"]) for name, entry in entries.items()}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} does not hold {controller} logins in clear (`NAME: {{username: ..., password: ...}}`)",
            "a virtual rack needs a site of its own: set `site:` in the rack file, or move this file away",
        ) from error


def write_logins(path: Path, logins: dict[str, Login]) -> None:
    """Writes them, for their owner alone to read."""
    import yaml

    entries = {name: {"username": login.username, "password": login.password} for name, login in logins.items()}
    write_private(path, yaml.safe_dump(entries).encode())
