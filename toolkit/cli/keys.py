"""`keys`: who signs certificates, whom readers should trust, and what was revoked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit import settings as installed
from toolkit.cli.output import emit, json_option
from toolkit.errors import UsageError
from toolkit.settings import Settings

if TYPE_CHECKING:
    from toolkit.certificate.purpose import Purpose

MAX_EVENTS = 1_000_000


@click.group()
def keys() -> None:
    """Say who signs certificates; rotate the key; export what a reader of certificates needs."""


_purpose_option = click.option(
    "--purpose",
    type=click.Choice(["certificate", "image"]),
    default="certificate",
    show_default=True,
    help="What the key signs: certificates of racks, or images of nodes.",
)


@keys.command("list")
@_purpose_option
@json_option
def show(purpose: str, as_json: bool) -> None:
    """Show the keys that this installation believes, and which of them signs."""
    from rich.table import Table

    from toolkit.certificate.keyholder import remote_key, signing_key
    from toolkit.certificate.purpose import Purpose
    from toolkit.certificate.rotation import installed_trust
    from toolkit.cli.wiring import now

    settings, kind = installed.load(), Purpose(purpose)
    trust = installed_trust(settings.keys, now(), kind)
    signs = _in_use(settings, kind)
    if kind is Purpose.CERTIFICATE and remote_key(os.environ) is not None:
        signing_key(settings.keys, os.environ)  # says so where another one is named than certificates are signed by
    rows = [
        {
            "keyid": k.key.keyid,
            "name": k.name,
            "until": str(k.until or ""),
            "stamped": k.stamped,
            "signs": k.key.keyid == signs,
        }
        for k in trust.keys
    ]

    def view() -> Table:
        table = Table("key", "name", "trusted for what it signed until", "signs")
        for row in rows:
            table.add_row(str(row["keyid"])[:16], str(row["name"]), _until(row), "yes" if row["signs"] else "")
        return table

    emit({"keys": rows, "signer": signs}, as_json, view)


def _in_use(settings: Settings, purpose: Purpose) -> str:
    """Id of the key that signs things of this kind. Makes none: UsageError where there is none yet."""
    from toolkit.certificate.public_key import read_pem, trusted_key

    public = settings.keys / purpose.public
    if not public.exists():
        raise UsageError(f"there is no key in {settings.keys} yet", f"it is made with the first {purpose}")
    return trusted_key(read_pem(public), str(public)).keyid


def _until(row: Mapping[str, object]) -> str:
    words = str(row["until"]) or "now"
    return f"{words}, with a timestamp" if row["stamped"] else words


@keys.command()
@click.option("--confirm", metavar="KEY", help="Type the first 8 digits of the key that goes.")
@click.option("--stolen", is_flag=True, help="What the old key signed counts only with a timestamp from before now.")
@_purpose_option
@json_option
def rotate(confirm: str | None, stolen: bool, purpose: str, as_json: bool) -> None:
    """Make a new signing key. What the old one signed stays good; its private part is destroyed.

    An image key that is retired verifies the images it signed; build and sign new ones with the new key.
    Where RACKPROOF_SIGNER names another key, an agent's or a program's, certificates are signed with that from now on.
    With --stolen it stays good only where a timestamp (RFC 3161) shows that it was there before now.
    """
    from toolkit.certificate.purpose import Purpose
    from toolkit.certificate.rotation import rotate as replace_key
    from toolkit.cli.wiring import now

    settings, kind = installed.load(), Purpose(purpose)
    going = _in_use(settings, kind)[:8]
    if confirm != going:
        more = (" --stolen" if stolen else "") + (f" --purpose {kind}" if kind is not Purpose.CERTIFICATE else "")
        raise UsageError(f"this ends key {going}", f"rackproof keys rotate{more} --confirm {going}")
    old, new = replace_key(settings.keys, os.environ, now(), stolen=stolen, purpose=kind)
    told = {"old": old.keyid, "new": new.keyid, "public": str(settings.keys / kind.public)}
    emit(
        told, as_json, lambda: f"key {old.keyid[:16]} is retired; {new.keyid[:16]} signs: give readers {told['public']}"
    )


@keys.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file to write.")
@click.option("--days", type=click.IntRange(1, 365), default=7, show_default=True, help="How long the list holds.")
@json_option
def revocations(out: Path, days: int, as_json: bool) -> None:
    """Write the signed list of revoked certificates, for those who verify elsewhere."""
    from toolkit.certificate.keyholder import signing_key
    from toolkit.certificate.revocations import sign_revocations
    from toolkit.certificate.trust import Revocation
    from toolkit.cli.wiring import ledger_of, now
    from toolkit.durable import write_whole
    from toolkit.ledger import EventKind

    settings = installed.load()
    found = []
    with ledger_of(settings) as ledger:
        for event in ledger.events(kind=EventKind.CERTIFICATE_REVOKED, limit=MAX_EVENTS):
            nodes = event.body.get("nodes")
            named = tuple(str(n) for n in nodes) if isinstance(nodes, list) else ()
            found.append(Revocation(event.what, named, str(event.body["reason"]), event.at))
    content = sign_revocations(found, now(), timedelta(days=days), signing_key(settings.keys, os.environ))
    write_whole(out, content)
    told = {"file": str(out), "revocations": len(found), "days": days}
    emit(told, as_json, lambda: f"{out}: {len(found)} revocations, good for {days} days")
