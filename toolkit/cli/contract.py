"""`contract`: a contract's acceptance criteria judged on what the ledger has, printed, signed, and read back."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit import settings as installed
from toolkit.cli.output import emit, json_option, stderr
from toolkit.cli.wiring import ledger_of, now, rack_named
from toolkit.errors import EvidenceError, UndecidedError, UsageError

if TYPE_CHECKING:
    from toolkit.report.contract_document import ContractReport
    from toolkit.settings import Settings


@click.command()
@click.argument("rack_name", metavar="[RACK]", required=False)
@click.option("--annex", type=click.Path(path_type=Path), help="The contract's criteria: YAML; see inventory/examples.")
@click.option(
    "-o", "--output", "page", type=click.Path(path_type=Path, dir_okay=False), help="The page to print: HTML."
)
@click.option("--sign", "signed", is_flag=True, help="Also a signed report, beside the page: NAME.dsse.json.")
@click.option("--verify", "sealed", type=click.Path(path_type=Path), help="Check a signed report instead, offline.")
@click.option("--key", "keys", multiple=True, type=click.Path(path_type=Path), help="With --verify: public key (PEM).")
@click.option("--trust", "trust_file", type=click.Path(path_type=Path), help="With --verify: a trust file.")
@json_option
def contract(
    rack_name: str | None, annex: Path | None, page: Path | None, signed: bool, sealed: Path | None,
    keys: tuple[Path, ...], trust_file: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Judge a contract's acceptance criteria on what the ledger has of RACK. No node is asked.

    A criterion is INCONCLUSIVE where its gates were not asked or no certificate in force vouches for a node; a limit
    that the contract states is judged on what was measured. Exit code: 0 all pass, 1 one fails, 3 undecided.
    """
    if sealed is not None:
        if rack_name or annex or signed:
            raise UsageError("--verify was given with a rack to judge", "rackproof contract --verify FILE [-o PAGE]")
        _read_back(sealed, keys, trust_file, page, as_json)
        return
    if rack_name is None or annex is None:
        raise UsageError(
            "a rack and its annex are needed", "rackproof contract RACK --annex FILE.yml; or contract --verify FILE"
        )
    if keys or trust_file:
        raise UsageError("--key and --trust go with --verify", "a report is made with this installation's own trust")
    if signed and page is None:
        raise UsageError("--sign needs to know where the page goes", f"-o {rack_name}.html")
    _make(rack_name, annex, page, signed, as_json)


def _make(rack_name: str, annex_file: Path, page: Path | None, signed: bool, as_json: bool) -> None:
    from toolkit.judge.contract import judge_contract
    from toolkit.rack.contract_file import load_annex
    from toolkit.report.contract import contract_report, contract_view
    from toolkit.report.in_force import in_force, own_trust
    from toolkit.stages.contract_evidence import evidence_of

    settings = installed.load()
    rack = rack_named(rack_name, settings)
    annex = load_annex(annex_file, settings.inventory)
    at = now()
    with ledger_of(settings) as ledger:
        held = in_force(ledger, rack, own_trust(settings.keys, at), at)
        evidence = evidence_of(ledger, rack, annex, held, at)
    report = contract_report(annex, rack, judge_contract(annex, rack, evidence), held, at)
    if page is not None:
        _write_page(page, report)
    if signed and page is not None:
        _write_signed(settings, page.with_suffix(".dsse.json"), report)
    emit(report.document(), as_json, lambda: contract_view(report))
    sys.exit(_exit_code(report.answer))


def _write_page(page: Path, report: ContractReport) -> None:
    from toolkit.report.contract import contract_page

    _write(page, contract_page(report).encode())


def _write_signed(settings: Settings, file: Path, report: ContractReport) -> None:
    from toolkit.certificate.keyholder import signing_key
    from toolkit.report.contract_seal import seal

    _write(file, seal(report, signing_key(settings.keys, os.environ)))


def _write(path: Path, content: bytes) -> None:
    from toolkit.durable import write_whole

    try:
        write_whole(path, content)
    except OSError as failure:
        raise UsageError(f"{path} cannot be written: {failure.strerror}", "name another file") from failure
    stderr().print(f"written: {path}")


def _read_back(sealed: Path, keys: tuple[Path, ...], trust_file: Path | None, page: Path | None, as_json: bool) -> None:
    from toolkit.certificate.public_key import trusted_keys
    from toolkit.certificate.trust import Trust
    from toolkit.certificate.trust_file import load_trust
    from toolkit.certificate.verify import read_envelope
    from toolkit.report.contract import contract_view
    from toolkit.report.contract_seal import unseal
    from toolkit.report.in_force import own_trust

    if keys and trust_file:
        raise UsageError("--key and --trust were both given", "a trust file names its keys")
    envelope = read_envelope(sealed)
    own = Trust.of(trusted_keys(keys)) if keys else own_trust(installed.load().keys, now())
    trust = load_trust(trust_file, now()) if trust_file else own
    if trust is None:
        raise UsageError("this installation has no key to trust", "name whose report it is: --key FILE or --trust FILE")
    found = unseal(envelope, trust, now())
    if page is not None:
        _write_page(page, found.report)
    said = f"VALID, by key {found.keyid[:16]}" + (f"; but {found.doubt}" if found.doubt else "")
    body = {"report": found.report.document(), "keyid": found.keyid, "answer": found.answer, "doubt": found.doubt}
    emit(body, as_json, lambda: contract_view(found.report, said), document="contract-reading")
    sys.exit(_exit_code(found.answer))


def _exit_code(answer: str) -> int:
    """0 every criterion passes, 1 one fails, 3 undecided."""
    from toolkit.judge.verdict import Answer

    codes = {Answer.PASS: 0, Answer.FAIL: EvidenceError.exit_code}
    return codes.get(Answer(answer), UndecidedError.exit_code)
