"""`verify` and `parse`: they need no rack, no ledger and no network, but for what `verify` is told to ask as well."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit import settings as installed
from toolkit.cli.output import documented, emit, json_option
from toolkit.errors import EvidenceError, UndecidedError, UsageError

if TYPE_CHECKING:
    from toolkit.certificate.reading import Verified
    from toolkit.certificate.trust import Trust
    from toolkit.report.proof import Proof


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--key", "keys", multiple=True, type=click.Path(path_type=Path),
    help="Public key to trust (PEM); again for more. Default: this installation's own.",
)  # fmt: skip
@click.option("--trust", "trust_file", type=click.Path(path_type=Path), help="A trust file: keys, revocations.")
@click.option(
    "--against", "rack_name", metavar="RACK", help="Ask RACK's nodes, and the ledger, whether it still holds."
)
@click.option("--evidence", is_flag=True, help="Look up in the ledger what it rests on, byte for byte.")
@click.option("--timestamp", type=click.Path(path_type=Path), help="Its timestamp (RFC 3161): RACK.dsse.json.tsr.")
@click.option("--tsa", type=click.Path(path_type=Path), help="Root certificate (PEM) of who made the timestamp.")
@json_option
def verify(
    file: Path, keys: tuple[Path, ...], trust_file: Path | None, rack_name: str | None, evidence: bool,
    timestamp: Path | None, tsa: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Check the certificate FILE offline: signed by a trusted key, unaltered, in force. Exit 1 if not.

    Offline nobody can say what came later. With --against the facts of every node it names are read now, and each one
    that is another is named: exit 1. A node that does not tell is no drift: exit 3. With --evidence every artifact it
    rests on must be in this installation's ledger: exit 3 where one is missing or damaged. Nothing is changed.
    """
    from toolkit.certificate.timestamp import read_stamp
    from toolkit.certificate.verify import read_envelope
    from toolkit.certificate.verify import verify as check
    from toolkit.cli.wiring import now
    from toolkit.report.proof import proof_document, proof_view

    envelope = read_envelope(file)
    trust = _trust(keys, trust_file)
    if (timestamp is None) is not (tsa is None):
        raise UsageError("--timestamp and --tsa go together", "a timestamp counts by an authority that you trust")
    stamp = read_stamp(timestamp, tsa) if timestamp and tsa else None
    with _told(as_json):
        verified = check(envelope, trust, now(), stamp)
        proof = _look(verified, rack_name, evidence, trust)
    emit(proof_document(proof), as_json, lambda: proof_view(proof))
    sys.exit(proof.exit_code)


def _trust(keys: tuple[Path, ...], trust_file: Path | None) -> Trust:
    from toolkit.certificate.public_key import trusted_keys
    from toolkit.certificate.rotation import installed_trust
    from toolkit.certificate.trust import Trust
    from toolkit.certificate.trust_file import load_trust
    from toolkit.cli.wiring import now

    if keys and trust_file:
        raise UsageError("--key and --trust were both given", "a trust file names its keys")
    if trust_file:
        return load_trust(trust_file, now())
    return Trust.of(trusted_keys(keys)) if keys else installed_trust(installed.load().keys, now())


@contextmanager
def _told(as_json: bool) -> Iterator[None]:
    """A script that asked for JSON gets it, also of a file that proves nothing; the exit code stays the error's."""
    from toolkit.certificate.refusal import CertificateRefusedError
    from toolkit.report.proof import refused_document

    try:
        yield
    except (EvidenceError, UndecidedError) as failure:
        if as_json:
            code = failure.refusal.value if isinstance(failure, CertificateRefusedError) else ""
            told = documented(refused_document(code, failure.message, failure.hint), "verification")
            click.echo(json.dumps(told, indent=2, sort_keys=True))
        raise


def _look(verified: Verified, rack_name: str | None, evidence: bool, trust: Trust) -> Proof:
    """What was asked for beside the file itself."""
    from toolkit.cli.wiring import context_of, ledger_of, now, rack_named
    from toolkit.report.certificate_record import evidence_of, on_record
    from toolkit.report.proof import Proof

    proof = Proof(verified, listed_until=trust.listed_until)
    if rack_name is None and not evidence:
        return proof
    settings = installed.load()
    if rack_name is None:
        with ledger_of(settings) as ledger:
            return replace(proof, record=on_record(ledger, verified, now()), evidence=evidence_of(ledger, verified))
    from toolkit.stages.against import compare

    rack = rack_named(rack_name, settings)
    with context_of(rack) as context:
        found = compare(context, verified)
        return replace(
            proof,
            against=rack.name,
            drifted=found.drifted,
            unread=found.unread,
            record=on_record(context.ledger, verified, context.clock()),
            evidence=evidence_of(context.ledger, verified) if evidence else None,
        )


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
    ibnetdiscover  nodes and links: the topology, -p, -l
    iblinkinfo     state, width and rate of every port, also -l
    ibqueryerrors  counters of a fabric's ports
    perfquery      one port's counters, smpquery portinfo and nodeinfo
    sminfo         subnet managers, also saquery SMIR
    pkeys          smpquery pkeys
    opensm-log     GUIDs that two nodes answer to
    hca-firmware   ibv_devinfo, ibstat, mstflint q: firmware and PSID
    lldp           lldpcli -f json or json0, networkctl lldp --json
    link-flaps     interfaces that lost and gained carrier
    """
    from rich.pretty import Pretty

    from toolkit.facts.parse import read_file

    parsed = read_file(kind, file)
    for doubt in parsed.doubts:
        click.echo(f"rackproof: {file}: {doubt}", err=True)
    found = parsed.as_json()
    emit(found, as_json, lambda: Pretty(found))
