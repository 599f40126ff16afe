"""The bandwidth that a boot service may take of its interface in all: tc's HTB, for its HTTP port alone.

Other traffic of the interface goes past it unshaped (tc-htb(8): class 0 is "direct"). It takes the place of the
interface's root qdisc; taking it away brings back the kernel's default.
"""

from __future__ import annotations

from toolkit.errors import UsageError
from toolkit.netboot.site import BootSite

_LEAST_BYTES_PER_S = 64 * 1024
_MOST_BYTES_PER_S = 100 * 10**9


def cap(site: BootSite, bytes_per_s: int) -> tuple[tuple[str, ...], ...]:
    """Commands that hold what the service sends to `bytes_per_s`; each is safe to repeat after `uncap`."""
    if not _LEAST_BYTES_PER_S <= bytes_per_s <= _MOST_BYTES_PER_S:
        raise UsageError(
            f"a cap of {bytes_per_s} B/s is not between {_LEAST_BYTES_PER_S} and {_MOST_BYTES_PER_S}", "give bytes/s"
        )
    rate = f"{8 * bytes_per_s}bit"
    # A bucket of 10 ms at the rate, and never less than a segment that the NIC cuts up itself (64 KiB).
    burst = str(max(65536, bytes_per_s // 100))
    device = ("dev", site.interface)
    ports = (site.port, *((site.tls.port,) if site.tls else ()))
    limit = ("htb", "rate", rate, "ceil", rate, "burst", burst, "cburst", burst, "quantum", "65536")
    match = [
        ("match", "ip", "src", f"{site.address}/32", "match", "ip", "sport", str(port), "0xffff") for port in ports
    ]
    return (
        ("tc", "qdisc", "replace", *device, "root", "handle", "1:", "htb"),
        ("tc", "class", "replace", *device, "parent", "1:", "classid", "1:10", *limit),
        *(
            ("tc", "filter", "add", *device, "parent", "1:", "protocol", "ip", "u32", *m, "flowid", "1:10")
            for m in match
        ),
    )


def uncap(site: BootSite) -> tuple[str, ...]:
    """The command that takes the cap away."""
    return ("tc", "qdisc", "del", "dev", site.interface, "root")
