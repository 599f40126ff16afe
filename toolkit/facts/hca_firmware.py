"""Firmware and board (PSID) of HCAs: `ibv_devinfo`, `ibstat`, `mstflint|flint q`. Text in, `AdapterFirmware` out.

hca_id: mlx5_0                          ibv_devinfo; ibstat has no PSID
        fw_ver:         28.39.1002
        node_guid:      946d:ae03:00c0:0000
        board_id:       MT_0000000838
FW Version:            28.39.1002       mstflint -d BDF q
Base GUID:             946dae0300c00000        4
PSID:                  MT_0000000838
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from toolkit.facts.fabric_text import Doubts, decoded, full_guid, lines
from toolkit.judge.fabric.seen import Firmware

MAX_ADAPTERS = 1024
_BEGIN = re.compile(r"(?:hca_id:\s{0,8}(\S{1,64})|CA '([^']{1,64})'|Image type:\s{0,40}\S{1,32})\s{0,8}")
_FIELD = re.compile(r"\s{0,16}([A-Za-z][\w ]{0,31}?)\s{0,4}:\s{0,40}(\S{1,64})(?:\s.{0,200})?")
_GUID = re.compile(r"(?:0x)?([0-9a-fA-F]{16})")
_PLACE = {
    "fw_ver": "version", "Firmware version": "version", "FW Version": "version",
    "node_guid": "guid", "Node GUID": "guid", "Base GUID": "guid", "Base GUID1": "guid",
    "board_id": "psid", "PSID": "psid",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class AdapterFirmware:
    """One entry for each HCA; `name` of the device is empty for mstflint, which goes by PCI address."""

    adapters: tuple[tuple[str, Firmware], ...]
    doubts: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Empty where the tool did not say."""
        return {
            "adapters": [
                {"name": name, "guid": f.guid, "version": f.version, "psid": f.psid} for name, f in self.adapters
            ],
            "doubts": list(self.doubts),
        }


@dataclass(slots=True)
class _Open:
    name: str
    said: dict[str, str] = field(default_factory=dict)


def parse(text: bytes | str) -> AdapterFirmware:
    """Every adapter of one tool's output. Never raises; an adapter without GUID or version is a doubt."""
    doubts, found = Doubts(), list[_Open]()
    for line in lines(decoded(text, doubts), doubts):
        if begin := _BEGIN.fullmatch(line):
            if len(found) >= MAX_ADAPTERS:
                doubts.add(f"more than {MAX_ADAPTERS:,} adapters")
                break
            found.append(_Open(begin[1] or begin[2] or ""))
        elif found and (said := _FIELD.fullmatch(line)) and said[1] in _PLACE:
            found[-1].said.setdefault(_PLACE[said[1]], said[2])
    adapters = tuple(_close(adapter, doubts) for adapter in found)
    if not adapters:
        doubts.add("no adapter in it: not the output of ibv_devinfo, ibstat or mstflint, or none answered")
    return AdapterFirmware(adapters, doubts.all())


def _close(adapter: _Open, doubts: Doubts) -> tuple[str, Firmware]:
    guid = _GUID.fullmatch(adapter.said.get("guid", "").replace(":", ""))
    firmware = Firmware(
        full_guid(guid[1]) if guid else "", adapter.said.get("version", ""), adapter.said.get("psid", "")
    )
    if not (firmware.guid and firmware.version):
        doubts.add("adapters that leave out their GUID or their firmware", ascii(adapter.name))
    return adapter.name, firmware


def together(*outputs: Iterable[tuple[str, Firmware]]) -> tuple[Firmware, ...]:
    """One of each GUID: ibstat has the version where ibv_devinfo is not installed, /sys and mstflint have the PSID."""
    found: dict[str, Firmware] = {}
    for output in outputs:
        for _, firmware in output:
            kept = found.get(firmware.guid, firmware)
            found[firmware.guid] = Firmware(firmware.guid, kept.version or firmware.version, kept.psid or firmware.psid)
    return tuple(f for guid, f in found.items() if guid)
