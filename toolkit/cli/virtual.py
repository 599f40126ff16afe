"""`virtual`: a rack of machines on this one, with BMCs, network boot, GPUs and named faults."""

from __future__ import annotations

import sys
from textwrap import fill

import click

from toolkit import settings as installed
from toolkit.cli.output import emit, json_option, stderr
from toolkit.cli.wiring import rack_named
from toolkit.errors import UsageError
from toolkit.rack.model import Rack
from toolkit.virtual.faults import MEANINGS, Fault, FaultKind


@click.group()
def virtual() -> None:
    """A virtual rack to rehearse on. Needs root: network namespaces, systemd-nspawn, loop devices."""


def _virtual_rack(name: str) -> Rack:
    rack = rack_named(name)
    if not rack.profile.virtual:
        raise UsageError(f"{name} is a rack of real machines (profile {rack.profile.name})", "virtual racks: demo")
    return rack


@virtual.command()
@click.argument("rack_name", metavar="RACK")
@click.option("--file-pool", is_flag=True, help="No Kubernetes cluster, though its programs are there.")
@json_option
def up(rack_name: str, file_pool: bool, as_json: bool) -> None:
    """Build what RACK needs, then switch on its networks, BMCs, services and its cluster. The machines stay off."""
    from toolkit.virtual import lab, rack_cluster
    from toolkit.virtual.supplies import stock

    settings = installed.load()
    rack = _virtual_rack(rack_name)
    stock(rack, settings, stderr().print)
    found = None if file_pool else rack_cluster.programs(settings, stderr().print)
    lab.up(rack, settings, stderr().print, kubernetes=found)
    emit(lab.status(settings, rack.name), as_json, lambda: f"{rack.name} is up: rackproof bringup {rack.name}")


@virtual.command()
@click.argument("rack_name", metavar="[RACK]", required=False)
@json_option
def down(rack_name: str | None, as_json: bool) -> None:
    """Switch RACK, or every virtual rack of this installation, off for good. Leaves nothing behind."""
    from toolkit.virtual import lab

    gone = lab.down(installed.load(), rack_name)
    emit({"down": gone}, as_json, lambda: "down: nothing is left")


@virtual.command()
@click.argument("rack_name", metavar="RACK")
@json_option
def status(rack_name: str, as_json: bool) -> None:
    """Show power, boot phase and faults of RACK's machines: what a person in the data hall would see."""
    from rich.table import Table

    from toolkit.virtual import lab

    found = lab.status(installed.load(), rack_name)

    def view() -> Table:
        table = Table("node", "power", "phase", "faults")
        for node in found.nodes:
            table.add_row(node.name, str(node.power), str(node.phase), ", ".join(map(str, node.faults)))
        return table

    emit(found, as_json, view)


def _described(kind: FaultKind) -> str:
    """A paragraph of its own; the backspace keeps click from filling its lines anew."""
    return "\b\n" + fill(f"{kind}: {MEANINGS[kind]}", 76, subsequent_indent="    ", break_on_hyphens=False)


@virtual.command(epilog="\n\n".join(_described(kind) for kind in FaultKind))
@click.argument("rack_name", metavar="RACK")
@click.argument("kind", type=click.Choice([k.value for k in FaultKind]), metavar="KIND")
@click.argument("node")
@click.option("--gpu", type=int, help="GPU index, for faults of a GPU.")
@click.option("--link", type=int, help="NVLink index, for faults of a link.")
@click.option("--hca", help="HCA name, for faults of a rail.")
@click.option("--other", help="The other HCA of a fault between two: mlx5_1, or node2:mlx5_0; several with commas.")
@click.option("--value", type=float, help="How much; what it means is the fault's own, below.")
@click.option(
    "--times", type=click.IntRange(min=1), help="How often, for faults that strike and are mended by a reset."
)
@click.option("--clear", is_flag=True, help="Take the fault away instead.")
@json_option
def fault(
    rack_name: str, kind: str, node: str, gpu: int | None, link: int | None, hca: str | None, other: str | None,
    value: float | None, times: int | None, clear: bool, as_json: bool,
) -> None:  # fmt: skip
    """Break NODE of RACK in a named way while it runs, or mend it again."""
    from toolkit.virtual import lab

    rack = _virtual_rack(rack_name)
    if node not in {unit.name for unit in rack.units}:
        raise UsageError(f"{rack.name} has no node {node}", f"rackproof virtual status {rack.name}")
    chosen = Fault(FaultKind(kind), node, gpu, link, hca, value, times, other)
    if clear:
        lab.clear_fault(installed.load(), rack.name, node, chosen.kind)
    else:
        lab.set_fault(installed.load(), rack.name, chosen)
    emit({"fault": chosen, "set": not clear}, as_json, lambda: f"{kind} on {node} {'cleared' if clear else 'set'}")


@virtual.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("rack_name", metavar="RACK")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(rack_name: str, argv: tuple[str, ...]) -> None:
    """Run a command where RACK's networks are: `exec demo -- kubectl get nodes`, `exec demo -- ssh ...`."""
    from toolkit.virtual import lab

    sys.exit(lab.run_inside(installed.load(), _virtual_rack(rack_name).name, argv))


@virtual.command()
@click.option("--keep", is_flag=True, help="Leave the rack up afterwards, to look around in it.")
def demo(keep: bool) -> None:
    """Bring up a rack of 6 virtual nodes with four faults in it, and show what became of them."""
    from toolkit.virtual.demo import run

    sys.exit(run(keep))
