"""`BmcClient` over sushy: identity, power, boot override, standby power."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from toolkit.errors import UndecidedError, UnreachableError
from toolkit.rack.model import Bmc
from toolkit.redfish.credentials import Credentials
from toolkit.redfish.failures import no_answer, refused
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
from toolkit.redfish.text import printable
from toolkit.redfish.transport import ANSWER_S, CONNECT_S, PAUSE_S, secure, trust_of, url_of
from toolkit.redfish.wire import is_board, is_path, links

T = TypeVar("T")

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MAX_NICS = 64
_MAX_CHASSIS = 64
# What cuts standby power too, by action and value: NVIDIA's own on a chassis (DGX GB200 user guide, "Virtual A/C
# Cycle"), the standard's on the system (DSP8010, ResetType), and how NVIDIA's infrastructure controller spells that.
_AUX_RESET, _AUX_CYCLES = "#NvidiaChassis.AuxPowerReset", ("AuxPowerCycleForce", "AuxPowerCycle")
_SYSTEM_RESET, _FULL_CYCLES = "#ComputerSystem.Reset", ("FullPowerCycle", "ACPowercycle")


def connect(bmc: Bmc, credentials: Credentials, ca: Path) -> BmcClient:
    """A client of the BMC, whose certificate is signed by `ca` (PEM file) or is the one that `bmc` pins.

    Nothing is sent before the first call. Raises UsageError where there is neither CA file nor pin.
    """
    return SushyBmc(bmc, credentials, ca)


class SushyBmc:
    """`BmcClient` over sushy."""

    def __init__(self, bmc: Bmc, credentials: Credentials, ca: Path) -> None:
        self._url = url_of(bmc)
        self._credentials = credentials
        self._trust = trust_of(bmc, ca)
        self._found: Any = None
        self._accepted = False  # our login, when it was used last

    def identity(self) -> SystemIdentity:
        """Serial, model and firmware of the machine; UndecidedError if the BMC names no serial."""
        found = self._repeatable("reading its identity", self._identity)
        if not found.serial:
            raise UndecidedError(
                f"BMC {self._url}: reading its identity: it gives no serial number", "look at /redfish/v1/Systems"
            )
        return found

    def power(self) -> Power:
        """Power state now; UNKNOWN for words we don't have."""
        return self._repeatable("reading the power state", self._power)

    def boot_once_from_network(self) -> None:
        """Sets the override and reads it back: a BMC that takes it and drops it would boot the old disk.

        Raises OverrideStaysError where the BMC shows Continuous, after it was cleared: every boot would be from the
        network, imaging the machine again and again. See `boot_from_network` for who goes on and clears it later.
        """
        shown = self.boot_from_network()
        if shown == BootOverride(BootTarget.PXE, BootEnabled.ONCE):
            return
        if shown.target is BootTarget.PXE and shown.enabled is BootEnabled.CONTINUOUS:
            self.clear_boot_override()  # nobody goes on with it here: whoever restarts the machine gets its disk
            raise OverrideStaysError(
                f"BMC {self._url}: asked for one network boot, it shows Continuous: every boot would be one",
                "boot by a one-time token, and clear the override when the machine has come that far",
            )
        raise OverrideIgnoredError(
            f"BMC {self._url}: it accepted network boot for the next start and does not show it",
            "look at the system's Boot property; a BMC reset often helps",
        )

    def boot_from_network(self, target: BootTarget = BootTarget.PXE) -> BootOverride:
        """Asks for one boot from there and answers what the BMC then shows, which may be something else.

        A caller that goes on with Continuous has an end to it: a boot script that is served once, and
        `clear_boot_override` after that boot.
        """
        return self.boot_from(target, "setting network boot")

    def boot_from(self, target: BootTarget, doing: str = "setting the boot override") -> BootOverride:
        """As `boot_from_network`, from anywhere: a CD that virtual media shows."""
        return self._repeatable(doing, lambda: self._override(target, BootEnabled.ONCE))

    def boot_override(self) -> BootOverride:
        """The override as the BMC shows it now."""
        return self._repeatable("reading the boot override", self._shown_override)

    def clear_boot_override(self) -> BootOverride:
        """No boot from the network any more; answers what stands since. Safe to say twice.

        Where a BMC knows no Disabled (sushy-tools' emulator shows Continuous whatever it is asked), the disk is
        named instead. UndecidedError where it goes on showing another place than the disk.
        """
        shown = self._repeatable("clearing the boot override", self._cleared)
        if shown.active and shown.target is not BootTarget.HDD:
            raise UndecidedError(
                f"BMC {self._url}: it accepted that the boot override is cleared, and shows {shown}",
                "look at the system's Boot property; a BMC reset often helps",
            )
        return shown

    def reset(self, kind: Reset) -> None:
        """Asked once, never again by itself: two restarts are not one."""
        import sushy

        self._asked(f"asking for {kind.value}", lambda: self._system().reset_system(sushy.ResetType(kind.value)))

    def ac_cycle(self) -> AcCycle | None:
        """The first action the BMC lists that cuts standby power; None where it lists none."""
        return self._repeatable("looking for an AC cycle", self._ac_cycle)

    def cut_ac(self, how: AcCycle) -> None:
        """Asked once, never again by itself: two cycles are not one."""
        body = {"ResetType": how.value}
        self._asked(f"asking for {how.value}", lambda: self._system()._conn.post(how.target, data=body))

    def _ac_cycle(self) -> AcCycle | None:
        system = self._system()
        found = _offered(system.json.get("Actions"), _SYSTEM_RESET, _FULL_CYCLES)
        if found is not None:
            return found
        root = self._root()
        for path in root.get_chassis_collection().members_identities[:_MAX_CHASSIS]:
            actions = root.get_chassis(path).json.get("Actions") or {}
            found = _offered(actions.get("Oem"), _AUX_RESET, _AUX_CYCLES)
            if found is not None:
                return found
        return None

    def _override(self, target: BootTarget, enabled: BootEnabled) -> BootOverride:
        import sushy

        source = None if target is BootTarget.NONE else sushy.BootSource(target.value)
        self._system().set_system_boot_options(source, enabled=sushy.BootSourceOverrideEnabled(enabled.value))
        return self._shown_override()

    def _cleared(self) -> BootOverride:
        from sushy.exceptions import BadRequestError, InvalidParameterValueError

        try:
            shown = self._override(BootTarget.NONE, BootEnabled.DISABLED)
        except (BadRequestError, InvalidParameterValueError):
            shown = self._shown_override()
        if shown.active and shown.target is not BootTarget.HDD:
            shown = self._override(BootTarget.HDD, BootEnabled.CONTINUOUS)
        return shown

    def _shown_override(self) -> BootOverride:
        """UNKNOWN for words we don't have, and for what is not there."""
        system = self._system()
        system.refresh(force=True)
        boot = system.json.get("Boot")
        said = boot if isinstance(boot, dict) else {}
        target, enabled = said.get("BootSourceOverrideTarget"), said.get("BootSourceOverrideEnabled")
        return BootOverride(
            BootTarget(target) if target in list(BootTarget) else BootTarget.UNKNOWN,
            BootEnabled(enabled) if enabled in list(BootEnabled) else BootEnabled.UNKNOWN,
        )

    def _identity(self) -> SystemIdentity:
        import sushy

        system = self._system()
        system.refresh(force=True)
        managers = [m for m in system.managers if not is_board(m.path)]
        try:
            nics = system.ethernet_interfaces.get_members()[:_MAX_NICS]
        except sushy.exceptions.MissingAttributeError:
            nics = []
        macs = {mac_of(nic.json) for nic in nics}
        return SystemIdentity(
            serial=printable(system.serial_number) or self._chassis_serial(system),
            model=printable(system.model),
            bios_version=printable(system.bios_version),
            bmc_version=printable(managers[0].firmware_version) if managers else "",
            macs=tuple(sorted(mac for mac in macs if mac)),
        )

    def _chassis_serial(self, system: Any) -> str:
        """Of the one chassis that holds the system: some BMCs leave the system's own blank. Empty where unsure."""
        listed = links((system.json.get("Links") or {}).get("Chassis"))
        return printable(self._root().get_chassis(listed[0]).serial_number) if len(listed) == 1 else ""

    def _power(self) -> Power:
        system = self._system()
        system.refresh(force=True)
        try:
            return Power(system.power_state.value)
        except (AttributeError, ValueError):
            return Power.UNKNOWN

    def _system(self) -> Any:
        """The host's ComputerSystem. An HGX machine also lists its GPU baseboard as one."""
        if self._found is None:
            root = self._root()
            paths = [path for path in root.get_system_collection().members_identities if not is_board(path)]
            if len(paths) != 1:
                raise UndecidedError(
                    f"BMC {self._url}: it lists {len(paths)} host systems, one was expected",
                    "check the unit's BMC address: this may be a chassis manager",
                )
            self._found = root.get_system(paths[0])
        return self._found

    def _root(self) -> Any:
        import sushy
        from sushy.auth import BasicAuth
        from sushy.connector import Connector

        logging.getLogger("sushy").setLevel(logging.CRITICAL)  # we report its errors ourselves
        # One attempt: we decide what may be repeated. 1 is "no retry", 0 means sushy's default of 3.
        connector = Connector(
            self._url, verify=str(self._trust.ca), server_side_retries=1, server_side_retries_delay=PAUSE_S,
            default_request_timeout=ANSWER_S, connect_timeout=CONNECT_S,
        )  # fmt: skip
        secure(connector._session, self._trust)
        # Basic: these are single questions, and a session would have to be closed after each. `sessions` has those.
        auth = BasicAuth(self._credentials.username, self._credentials.password)
        return sushy.Sushy(self._url, auth=auth, connector=connector)

    def _repeatable(self, doing: str, read: Callable[[], T]) -> T:
        """What may be done twice is tried once more when the BMC did not answer: they drop connections.

        One that took long to say nothing is not asked again: a dead BMC is known as dead in about 10 s.
        """
        began = time.monotonic()
        try:
            return self._asked(doing, read)
        except UnreachableError:
            if time.monotonic() - began > 2 * CONNECT_S:
                raise
        time.sleep(PAUSE_S)
        return self._asked(doing, read)

    def _asked(self, doing: str, ask: Callable[[], T]) -> T:
        """Once; and once more where a login that was good a moment ago is refused.

        A BMC's password check may not answer while its web server starts. A request that is refused with 401 was not
        carried out, so that asking again does nothing twice; a third time could lock the account.
        """
        try:
            with self._translated(doing):
                answer = ask()
        except BmcRefusedError:
            if not self._accepted:
                raise
            self._accepted = False
            time.sleep(PAUSE_S)
            answer = self._asked_again(doing, ask)
        self._accepted = True
        return answer

    def _asked_again(self, doing: str, ask: Callable[[], T]) -> T:
        try:
            with self._translated(doing):
                return ask()
        except BmcRefusedError as refusal:
            hint = f"somebody changed its password or locked the account, or its certificate: {refusal.hint}"
            raise BmcRefusedError(f"{refusal.message}; it took both a moment ago", hint) from refusal

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        """Turns everything sushy and requests raise into our words."""
        from requests.exceptions import RequestException
        from sushy.exceptions import AccessError, ConnectionError, HTTPError, SushyError

        at = f"BMC {self._url}: {doing}"
        try:
            yield
        except AccessError as error:
            raise self._forget(refused(at, self._credentials, error.status_code)) from error
        except (ConnectionError, RequestException) as error:
            raise self._forget(no_answer(at, self._trust, error)) from error
        except HTTPError as error:
            text = f"{at}: HTTP {error.status_code}: {printable(error.detail)}"
            raise self._forget(UndecidedError(text, "look at the BMC's log")) from error
        except SushyError as error:
            hint = "look at what the BMC offers under /redfish/v1"
            raise self._forget(UndecidedError(f"{at}: {printable(error)}", hint)) from error
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            # sushy does not check the shape of documents: a list where an object belongs ends in one of these
            text = f"{at}: its answer is not Redfish ({type(error).__name__})"
            raise self._forget(UndecidedError(text, "check the address: is a BMC there?")) from error

    def _forget(self, error: UndecidedError) -> UndecidedError:
        """What was half known of the system is asked again next time."""
        self._found = None
        return error


def mac_of(nic: Any) -> str:
    """The MAC of an EthernetInterface; empty for a disabled NIC that makes one up, and for what is none.

    NVIDIA's infrastructure controller meets both spellings, and disabled NICs with an invalid address
    (infra-controller, endpoints_reference.md).
    """
    said = nic if isinstance(nic, dict) else {}
    mac = str(said.get("MACAddress") or said.get("MacAddress") or "").strip().lower()
    return mac if _MAC.fullmatch(mac) and mac != "00:00:00:00:00:00" else ""


def _offered(actions: Any, name: str, wanted: tuple[str, ...]) -> AcCycle | None:
    """The first wanted value that an action lists as allowed, and where it is asked for: a path of that very BMC."""
    action = actions.get(name) if isinstance(actions, dict) else None
    if not isinstance(action, dict):
        return None
    target, allowed = action.get("target"), action.get("ResetType@Redfish.AllowableValues")
    if not isinstance(target, str) or not is_path(target) or not isinstance(allowed, list):
        return None
    return next((AcCycle(target, value) for value in wanted if value in allowed), None)
