"""What Ansible may know of a rack: names of groups and `rackproof_*` variables. Connections are `runners`' business.

Only nodes are hosts: they run an operating system one can log in to, and `hosts: all` must never try a power shelf.
The rack's other units are in the variable `rackproof_units`, with the addresses of their BMCs.
"""

from __future__ import annotations

from toolkit.rack.model import Rack, Unit, UnitKind


def group_names(rack: Rack) -> tuple[str, ...]:
    """Groups every node of the rack is in: by kind, rack, site, profile and mode. All are identifiers."""
    return (
        "nodes",
        f"rack_{_identifier(rack.name)}",
        f"site_{_identifier(rack.site)}",
        f"profile_{_identifier(rack.profile.name)}",
        f"mode_{_identifier(rack.profile.mode)}",
        *(("virtual",) if rack.profile.virtual else ()),
    )


def rack_variables(rack: Rack) -> dict[str, object]:
    """What holds for the whole rack. Every value is plain JSON and none is secret."""
    return {
        "rackproof_rack": rack.name,
        "rackproof_site": rack.site,
        "rackproof_profile": rack.profile.name,
        "rackproof_mode": rack.profile.mode.value,
        "rackproof_virtual": rack.profile.virtual,
        "rackproof_versions": dict(rack.profile.versions),
        "rackproof_units": [_other(unit) for unit in rack.units if unit.kind is not UnitKind.NODE],
    }


def node_variables(node: Unit) -> dict[str, object]:
    """What holds for one node."""
    disk = node.host.disk if node.host else None
    return {
        "rackproof_serial": node.serial,
        "rackproof_slot": node.slot,
        "rackproof_gpu_count": len(node.gpus),
        "rackproof_hcas": [{"name": hca.name, "guid": hca.guid, "rail": hca.rail} for hca in node.hcas],
        "rackproof_disk": {"device": disk.device, "serial": disk.serial} if disk else None,
        "rackproof_mac": node.host.mac if node.host else None,
        "rackproof_bmc_address": node.bmc.address if node.bmc else None,
    }


def _other(unit: Unit) -> dict[str, object]:
    return {
        "name": unit.name,
        "kind": unit.kind.value,
        "slot": unit.slot,
        "serial": unit.serial,
        "bmc_address": unit.bmc.address if unit.bmc else None,
    }


def _identifier(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
