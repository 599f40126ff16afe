"""`serve`: web pages over the ledger, and /metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit import settings as installed
from toolkit.cli.output import documented, json_option, stderr
from toolkit.cli.wiring import now
from toolkit.errors import UsageError

if TYPE_CHECKING:
    from toolkit.serve.server import Terms
    from toolkit.serve.site import Site
    from toolkit.settings import Settings

PORT = 8181
TOKEN = "serve/token"  # noqa: S105 - of the file, in the installation's home
_MANY = 8  # racks to be read: more are counted out to who waits
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--bind", default="127.0.0.1", show_default=True, help="Any other address takes a token, and TLS.")
@click.option("--port", type=click.IntRange(0, 65_535), default=PORT, show_default=True, help="0: any that is free.")
@click.option("--name", "names", multiple=True, help="A name that browsers call it by; may be repeated.")
@click.option("--with-token", is_flag=True, help="Ask for the token on a loopback address too.")
@click.option("--token-file", type=_FILE, help="Mode 0600; made where it is missing. [default: HOME/serve/token]")
@click.option("--tls-cert", type=_FILE, help="PEM, with its chain.")
@click.option("--tls-key", type=_FILE, help="PEM, without a password.")
@click.option("--behind-proxy", is_flag=True, help="Another server does TLS in front of it; give its --name.")
@json_option
def serve(
    bind: str, port: int, names: tuple[str, ...], with_token: bool, token_file: Path | None, tls_cert: Path | None,
    tls_key: Path | None, behind_proxy: bool, as_json: bool,
) -> None:  # fmt: skip
    """Show the ledger as web pages: fleet, rack, node, part; live while a bringup runs. Serve /metrics.

    It only reads. It prints its address once it listens, and ends on SIGINT or SIGTERM. Programs send the token as
    Authorization: Bearer TOKEN; a browser is asked for it once.
    """
    try:
        from toolkit.serve.server import Terms
        from toolkit.serve.server import serve as carry_out
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in ("starlette", "uvicorn", "markdown_it"):
            raise
        raise UsageError("serve needs packages that are not installed", "pip install 'rackproof[serve]'") from None
    if (tls_cert is None) is not (tls_key is None):
        raise UsageError("a certificate goes with its key", "give --tls-cert and --tls-key together")
    settings = installed.load()
    tls = (tls_cert, tls_key) if tls_cert and tls_key else None
    file = token_file or settings.home / TOKEN
    terms = Terms(bind, port, file, names, tls, with_token, behind_proxy)
    with _site(settings) as site:
        carry_out(site, terms, lambda address: _tell(address, terms, as_json=as_json))


def _tell(address: str, terms: Terms, *, as_json: bool) -> None:
    """The address alone on stdout; as JSON with where the token is, on one line, for who starts it."""
    token_file = str(terms.token_file) if terms.needs_token else None
    if as_json:
        click.echo(json.dumps(documented({"address": address, "token_file": token_file}, "serve-address")))
        return
    if token_file:
        stderr().print(f"the token is in {token_file}")
    click.echo(address)


@contextmanager
def _site(settings: Settings) -> Iterator[Site]:
    """Over a ledger that cannot be written; every rack of it read once."""
    from toolkit.ledger import Ledger
    from toolkit.serve.site import Site

    with Ledger.open_to_read(settings.ledger_url, settings.artifacts, now) as ledger:
        site = Site(settings, ledger, now)
        site.board.fleet(_counted)
        yield site


def _counted(done: int, of: int) -> None:
    """Whoever waits for hundreds of racks is told how far it is."""
    if of > _MANY and done % _MANY == 0:
        stderr().print(f"reading racks: {done} of {of}")
