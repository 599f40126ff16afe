"""How the BMCs of a rack are reached, of every kind of unit, and by which login."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from toolkit.errors import UsageError
from toolkit.rack.model import Bmc, Rack, Unit
from toolkit.redfish import BmcClient, Credentials, Wire, connect, load_credentials
from toolkit.redfish.rotation import Keeper
from toolkit.settings import Settings


class Reach(Protocol):
    """A rack's BMCs."""

    def bmc(self, unit: Unit) -> BmcClient:
        """Its power; UsageError for a unit without a BMC."""
        ...

    def wire(self, unit: Unit) -> Wire:
        """All else that it serves."""
        ...

    @property
    def sessions(self) -> Path:
        """Folder of the sessions that are open at BMCs."""
        ...


@dataclass(frozen=True, slots=True)
class SiteReach:
    """With the site's credentials and CA."""

    settings: Settings
    rack: Rack

    def bmc(self, unit: Unit) -> BmcClient:
        """See Reach."""
        where = bmc_of(unit)
        return connect(where, self._login(where), self._ca)

    def wire(self, unit: Unit) -> Wire:
        """See Reach."""
        where = bmc_of(unit)
        return Wire(where, self._login(where), self._ca)

    @property
    def sessions(self) -> Path:
        """See Reach."""
        return self.settings.home / "bmc_sessions"

    def keeper(self, unit: Unit) -> Keeper:
        """Where the unit's login is kept."""
        where = bmc_of(unit)
        return Keeper(self._secrets / "bmc.yml", where.credentials, where.address)

    def wire_as(self, unit: Unit) -> Callable[[Credentials], Wire]:
        """The unit's BMC under a login that is given."""
        where = bmc_of(unit)
        return lambda login: Wire(where, login, self._ca)

    @property
    def _secrets(self) -> Path:
        return self.settings.secrets(self.rack.site)

    @property
    def _ca(self) -> Path:
        return self._secrets / "bmc-ca.pem"

    def _login(self, where: Bmc) -> Credentials:
        return load_credentials(self._secrets / "bmc.yml", where.credentials, at=where.address)


def bmc_of(unit: Unit) -> Bmc:
    """Where the unit's BMC answers. UsageError where the rack file gives none."""
    if unit.bmc is None:
        raise UsageError(f"{unit.name} has no BMC", "give it `bmc: {address, credentials}` in the rack file")
    return unit.bmc
