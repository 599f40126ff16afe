"""`verify` and `parse`: they need no rack, no ledger and no network."""

from __future__ import annotations

from pathlib import Path

import click

from toolkit import settings as installed
from toolkit.cli.output import emit, json_option


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--key", "keys", multiple=True, type=click.Path(path_type=Path),
    help="Public key to trust (PEM); again for more. Default: this installation's own.",
)  # fmt: skip
@json_option
def verify(file: Path, keys: tuple[Path, ...], as_json: bool) -> None:
    """Check the certificate FILE offline: signed by a trusted key, unaltered, in force. Exit 1 if not."""
    from toolkit.certificate.sign import PUBLIC
    from toolkit.certificate.verify import read_envelope, trusted_keys
    from toolkit.certificate.verify import verify as check
    from toolkit.cli.wiring import now
    from toolkit.report.terminal import certificate_view

    envelope = read_envelope(file)
    verified = check(envelope, trusted_keys(keys or (installed.load().keys / PUBLIC,)), now())
    emit(verified, as_json, lambda: certificate_view(verified))


@click.command()
@click.argument("kind")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def parse(kind: str, file: Path, as_json: bool) -> None:
    """Parse FILE as output of KIND.

    \b
    kernel-log     Xids, SXids, lost GPUs, PCIe errors, line by line
    kernel-events  the same, joined: cause, consequences, what a burn-in does
    nvidia-smi     -q -x, -q, --query-gpu as CSV
    nvlink         nvidia-smi nvlink -s, -e
    nccl-tests     all_reduce_perf and its like
    nccl-transport NCCL's log (NCCL_DEBUG=INFO): the ways between ranks
    dcgm-diag      dcgmi diag (JSON or table), dcgmi nvlink
    nvbandwidth    text or JSON
    gpu-burn       and GEMM sweeps of key=value lines
    ibstat         adapters and ports
    perftest       ib_write_bw and its like
    """
    from rich.pretty import Pretty

    from toolkit.facts.parse import read_file

    parsed = read_file(kind, file)
    for doubt in parsed.doubts:
        click.echo(f"rackproof: {file}: {doubt}", err=True)
    found = parsed.as_json()
    emit(found, as_json, lambda: Pretty(found))
