"""A unit's BMC over Redfish. `BmcClient` is the seam to what every stage asks; `Wire` is for what goes deeper.

A BMC is not trusted: its certificate is verified, its answers are bounded in size and time, and whatever it says that
is not Redfish ends as an UndecidedError, never as a traceback. What lives here asks and tells; it does not judge.
"""

from toolkit.redfish.credentials import Credentials, load_credentials
from toolkit.redfish.failures import BmcAnswerError
from toolkit.redfish.model import (
    AcCycle,
    BmcClient,
    BmcRefusedError,
    BootEnabled,
    BootOverride,
    BootTarget,
    OverrideIgnoredError,
    OverrideStaysError,
    Power,
    Reset,
    SystemIdentity,
)
from toolkit.redfish.sushy_bmc import SushyBmc, connect
from toolkit.redfish.text import printable, root_cause
from toolkit.redfish.wire import Wire

__all__ = [
    "AcCycle",
    "BmcAnswerError",
    "BmcClient",
    "BmcRefusedError",
    "BootEnabled",
    "BootOverride",
    "BootTarget",
    "Credentials",
    "OverrideIgnoredError",
    "OverrideStaysError",
    "Power",
    "Reset",
    "SushyBmc",
    "SystemIdentity",
    "Wire",
    "connect",
    "load_credentials",
    "printable",
    "root_cause",
]
