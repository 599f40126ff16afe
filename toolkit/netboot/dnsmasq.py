"""dnsmasq's configuration for a boot service: DHCP for planned nodes alone, TFTP for firmware that knows no HTTP.

Firmware goes three ways to the node's boot script, and each ends in iPXE, which says so in its user class: legacy PXE
and UEFI PXE fetch iPXE by TFTP, UEFI HTTP Boot by HTTP. Architectures of option 93: RFC 4578 and IANA's registry
("Processor Architecture Types"); dnsmasq(8) for the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from toolkit.netboot.site import BootSite, DhcpMode

_LEASE_S = 3600
_BIOS_PROGRAM, _UEFI_PROGRAM, _ARM_PROGRAM = "undionly.kpxe", "snponly.efi", "snponly-arm64.efi"
# tag, architecture types, program, menu name of dnsmasq's pxe-service
_BY_TFTP = (
    ("bios", (0,), _BIOS_PROGRAM, "x86PC"),
    ("uefi", (7, 9), _UEFI_PROGRAM, "X86-64_EFI"),
    ("uefiarm", (11,), _ARM_PROGRAM, "ARM64_EFI"),
)
_BY_HTTP = (("http", (16,), _UEFI_PROGRAM), ("httparm", (19,), _ARM_PROGRAM))


def configuration(site: BootSite, pid_file: Path | None = None, user: str = "") -> str:
    """dnsmasq.conf. Nodes are read from the folder of planned hosts, also while it runs."""
    return "\n".join([*_common(site, pid_file, user), *_addresses(site), *_programs(site)]) + "\n"


def _common(site: BootSite, pid_file: Path | None, user: str) -> Iterator[str]:
    yield "# rackproof: network boot of planned nodes"
    yield "port=0"  # no DNS
    yield f"interface={site.interface}"
    yield "except-interface=lo"
    yield "bind-interfaces"
    yield "no-ping"
    yield "leasefile-ro"
    yield f"dhcp-hostsdir={site.hosts_folder}"
    # Not a tag of ours on the hosts: dnsmasq 2.86 to 2.90 frees such tags twice when it is reloaded, and dies of it.
    yield "dhcp-ignore=tag:!known"
    yield "log-dhcp"
    yield "dhcp-userclass=set:ipxe,iPXE"
    yield from (f"dhcp-match=set:{tag},option:client-arch,{kind}" for tag, kinds, *_ in _BY_TFTP for kind in kinds)
    yield from (f"dhcp-match=set:{tag},option:client-arch,{kind}" for tag, kinds, *_ in _BY_HTTP for kind in kinds)
    yield "enable-tftp"
    yield f"tftp-root={site.firmware}"
    yield "tftp-no-fail"
    if pid_file is not None:
        yield f"pid-file={pid_file}"
    if user:
        yield f"user={user}"


def _addresses(site: BootSite) -> Iterator[str]:
    network = site.network
    if site.mode is DhcpMode.PROXY:
        yield f"dhcp-range={network.network_address},proxy,{network.netmask}"
        return
    yield f"dhcp-range={network.network_address},static,{network.netmask},{_LEASE_S}"
    yield "dhcp-authoritative"
    # Without a router nothing outside the network can be reached; dnsmasq would name itself.
    yield f"dhcp-option=3,{site.router}" if site.router else "dhcp-option=3"


def _programs(site: BootSite) -> Iterator[str]:
    yield f"dhcp-boot=tag:ipxe,{site.script_url}"
    if site.mode is DhcpMode.PROXY:
        yield from (f'pxe-service=tag:!ipxe,{menu},"iPXE",{program}' for _, _, program, menu in _BY_TFTP)
        return
    for tag, _, program, _ in _BY_TFTP:
        yield f"dhcp-boot=tag:!ipxe,tag:{tag},{program},,{site.address}"
    for tag, _, program in _BY_HTTP:
        yield f"dhcp-boot=tag:!ipxe,tag:{tag},{site.url}/boot/ipxe/{program}"
        # UEFI 2.10, 24.7.3: an offer without this class is none of HTTP Boot's.
        yield f"dhcp-option-force=tag:!ipxe,tag:{tag},60,HTTPClient"
