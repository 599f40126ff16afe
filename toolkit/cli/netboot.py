"""`netboot`: the network boot service. What serves, what is configured, which nodes may boot, who else answers."""

from __future__ import annotations

import functools
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit import settings as installed
from toolkit.cli.output import emit, json_option, stderr
from toolkit.cli.wiring import rack_named
from toolkit.errors import EvidenceError, UsageError

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from toolkit.netboot.probe import DhcpServer
    from toolkit.netboot.site import BootSite

_A_MAC = "52:54:00:00:00:00"  # of no machine (QEMU's range): whoever offers it an address offers anybody one

root_option = click.option(
    "--root", type=click.Path(path_type=Path, file_okay=False), help="Provisioning root; RACKPROOF_HOME/provision."
)


@click.group()
def netboot() -> None:
    """The network boot service: DHCP, boot scripts that are served once, reports of nodes."""


@netboot.command()
@root_option
@click.option("--socket", type=click.Path(path_type=Path), help="Where it listens; /run/rackproof-netboot/socket.")
@json_option
def serve(root: Path | None, socket: Path | None, as_json: bool) -> None:
    """Decide which node boots what, and keep what nodes report, behind a web server. Until SIGTERM."""
    from toolkit.netboot.service import DecisionServer, decisions_of, say
    from toolkit.netboot.site import SOCKET

    place = socket or SOCKET
    server = DecisionServer(place, decisions_of(_root(root), say))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()
    if as_json:
        emit({"root": _root(root), "socket": place}, as_json, lambda: "")
        sys.stdout.flush()
    say(f"netboot: {_root(root)} behind {place}")
    stop.wait()
    server.shutdown()
    server.server_close()
    place.unlink(missing_ok=True)


@netboot.command()
@click.argument("racks", metavar="RACK...", nargs=-1)
@click.option("--exactly", is_flag=True, help="And no other rack's: those may boot no longer.")
@click.option("--check", is_flag=True, help="Only say what would change.")
@root_option
@json_option
def plan(racks: tuple[str, ...], exactly: bool, check: bool, root: Path | None, as_json: bool) -> None:
    """Let the nodes of these racks, as their rack files have them, boot from the network. Takes effect at once."""
    from rich.text import Text

    from toolkit.netboot.hosts import forget_hosts, host_lines, hosts_file, planned, write_hosts
    from toolkit.netboot.site import HOSTS

    if not racks and not exactly:
        raise UsageError("no rack is named", "name one, or --exactly for none at all")
    folder = _root(root) / HOSTS
    changed = []
    gone = sorted({known.rack for known in planned(folder).values()} - set(racks)) if exactly else []
    for name in gone:
        changed += [name] if check or forget_hosts(folder, name) else []
    for name in racks:
        rack, file = rack_named(name), hosts_file(folder, name)
        if check:
            changed += [] if file.is_file() and file.read_text() == host_lines(rack) else [name]
        else:
            changed += [name] if write_hosts(folder, rack) else []
    nodes = len(planned(folder))
    text = f"changed: {', '.join(changed) or 'nothing'}; {nodes} nodes may boot"
    if changed and not check:
        text += "\n  next, if a node was changed or taken away: systemctl reload rackproof-boot-dhcp"
    emit({"changed": changed, "forgotten": gone, "nodes": nodes}, as_json, lambda: Text(text))


@netboot.command()
@click.argument("rack", metavar="RACK")
@root_option
@json_option
def forget(rack: str, root: Path | None, as_json: bool) -> None:
    """Nodes of RACK boot from the network no longer. dnsmasq forgets them when it is reloaded; scripts stop at once."""
    from toolkit.netboot.hosts import forget_hosts
    from toolkit.netboot.site import HOSTS

    if not forget_hosts(_root(root) / HOSTS, rack):
        raise UsageError(f"no node of rack {rack} may boot from the network", "`rackproof netboot status`")
    emit({"forgotten": rack}, as_json, lambda: f"rack {rack} is forgotten")
    stderr().print("now: systemctl reload rackproof-boot-dhcp", highlight=False)


@netboot.command()
@root_option
@json_option
def status(root: Path | None, as_json: bool) -> None:
    """Show which nodes may boot, and what is armed, taken, or booted again."""
    from toolkit.netboot.hosts import planned
    from toolkit.netboot.offers import BootOffers
    from toolkit.netboot.site import HOSTS

    place = _root(root)
    offers = BootOffers(place)
    rows: list[dict[str, Any]] = []
    for mac, known in planned(place / HOSTS).items():
        offer = offers.look(mac)
        told = (
            {k: v for k, v in asdict(offer).items() if k not in ("script", "address")} if offer else {"state": "none"}
        )
        rows.append({"rack": known.rack, "mac": mac, "address": known.address, **told})
    emit({"nodes": rows}, as_json, lambda: _table(rows))


@netboot.command()
@click.option("--interface", required=True, help="The in-band interface of this machine.")
@click.option("--ours", multiple=True, metavar="ADDRESS", help="A DHCP server that belongs there. Several times.")
@click.option("--mac", default=_A_MAC, show_default=True, help="Ask as this machine, as a planned node.")
@click.option("--wait", "wait_s", type=click.FloatRange(0.2, 60), default=3.0, show_default=True, metavar="SECONDS")
@json_option
def probe(interface: str, ours: tuple[str, ...], mac: str, wait_s: float, as_json: bool) -> None:
    """Look for DHCP servers on a network beside the one on this machine. Exit 1: ROGUE_DHCP. Needs root.

    One that a node may listen to instead of ours can send it anywhere.
    """
    from toolkit.netboot.probe import find_servers, rogues

    servers = find_servers(interface, mac, wait_s)
    foreign = rogues(servers, ours)
    code = "ROGUE_DHCP" if foreign else ""
    found = {"code": code, "rogues": [asdict(s) for s in foreign], "servers": [asdict(s) for s in servers]}
    emit(found, as_json, lambda: _verdict(interface, servers, foreign))
    sys.exit(EvidenceError.exit_code if foreign else 0)


def _site_options(command: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.option("--address", required=True, metavar="CIDR", help="Its own, in-band: 10.20.0.5/16."),
        click.option("--interface", required=True, help="The interface that has it."),
        click.option("--proxy", is_flag=True, help="Another DHCP server gives addresses; ours says only what to boot."),
        click.option("--port", type=click.IntRange(1, 65535), default=80, show_default=True),
        click.option("--router", metavar="ADDRESS", help="Told to the nodes; without it they have none."),
        click.option("--socket", type=click.Path(path_type=Path), help="Of `netboot serve`."),
        click.option("--connection-bytes", type=click.IntRange(0), default=0, help="Bytes/s of one download; 0: any."),
        click.option("--connections", type=click.IntRange(0), default=0, help="Downloads at once; 0: any number."),
        click.option("--bytes", "total", type=click.IntRange(0), default=0, help="Bytes/s of all downloads (shaping)."),
        click.option("--certificate", type=click.Path(path_type=Path), help="PEM chain; HTTPS at 443 too."),
        click.option("--key", type=click.Path(path_type=Path), help="Its key."),
        root_option,
    )  # fmt: skip
    return functools.reduce(lambda made, option: option(made), reversed(options), command)


@netboot.command()
@click.argument("what", type=click.Choice(["dnsmasq", "nginx", "shaping", "unshaping"]))
@click.option("--standalone", type=click.Path(path_type=Path), help="nginx: a whole configuration that writes there.")
@_site_options
@json_option
def render(what: str, standalone: Path | None, total: int, as_json: bool, **told: Any) -> None:
    """Print a configuration for these programs: dnsmasq.conf, nginx's site, or tc's commands for a cap of bandwidth."""
    text = _configuration(what, _site(**told), standalone, total)
    if as_json:
        emit({"program": what, "text": text}, as_json, lambda: "")
    else:
        click.echo(text, nl=False)


def _configuration(what: str, site: BootSite, standalone: Path | None, total: int) -> str:
    from toolkit.netboot import dnsmasq, nginx, shaping

    match what:
        case "dnsmasq":
            return dnsmasq.configuration(site)
        case "nginx" if standalone is not None:
            return nginx.standalone(site, standalone)
        case "nginx":
            return nginx.site_configuration(site)
        case "shaping":
            return "".join(f"{shlex.join(words)}\n" for words in shaping.cap(site, total))
        case _:
            return f"{shlex.join(shaping.uncap(site))}\n"


def _site(
    address: str, interface: str, proxy: bool, port: int, router: str | None, socket: Path | None,
    connection_bytes: int, connections: int, certificate: Path | None, key: Path | None, root: Path | None,
) -> BootSite:  # fmt: skip
    from toolkit.netboot.site import SOCKET, BootSite, DhcpMode, Limits, Tls

    if (certificate is None) != (key is None):
        raise UsageError("--certificate and --key belong together", "give both, or none")
    try:
        own = IPv4Interface(address)
        gateway = IPv4Address(router) if router else None
    except ValueError as error:
        raise UsageError(f"{error}", "--address is as 10.20.0.5/16, --router as 10.20.0.1") from error
    return BootSite(
        provision=_root(root),
        address=own.ip,
        network=own.network,
        interface=interface,
        mode=DhcpMode.PROXY if proxy else DhcpMode.AUTHORITATIVE,
        port=port,
        router=gateway,
        socket=socket or SOCKET,
        limits=Limits(connection_bytes, connections),
        tls=Tls(certificate, key) if certificate and key else None,
    )


def _root(root: Path | None) -> Path:
    return (root or installed.load().provision).absolute()


def _table(rows: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table("rack", "node", "address", "boot", "since", "booted again")
    for row in rows:
        since = row.get("taken_at") or row.get("armed_at") or ""
        again = f"{row['again']} times, last {row['again_at']}" if row.get("again") else ""
        table.add_row(row["rack"], row["mac"], row["address"], str(row["state"]), since, again)
    return table


def _verdict(interface: str, servers: tuple[DhcpServer, ...], foreign: tuple[DhcpServer, ...]) -> Text:
    from rich.text import Text

    if not foreign:
        others = ", ".join(s.address for s in servers) or "none"
        return Text(f"{interface}: no DHCP server that does not belong there (others that do: {others})")
    lines = [
        f"ROGUE_DHCP: {s.address} at {s.hardware} offers {s.offered}, boot file {s.boot_file or '(none)'}"
        for s in foreign
    ]
    return Text("\n".join([*lines, "  next: find that hardware address in the switches' tables and unplug it"]))
