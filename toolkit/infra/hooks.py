"""The hook by which a site, or a test, gives other ways to its rack than SSH, Redfish and the site's pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from toolkit.infra.readings import Reach
    from toolkit.rack.model import Rack
    from toolkit.settings import Settings


@pytest.hookspec(firstresult=True)
def pytest_rackproof_reach(rack: Rack, settings: Settings) -> Reach | None:
    """What the rack is reached with; None: as every verb of rackproof reaches it. Asked once a process, late."""
