"""A `rackproof serve` that runs: the program itself, asked as a browser or a program asks it."""

import http.client
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

PROGRAM = Path(sys.executable).with_name("rackproof")
START_S = 60
END_S = 10


class Server:
    """A `rackproof serve` that runs, asked as a browser or a program asks it."""

    def __init__(self, process, address):
        self.process, self.address = process, address
        parts = urlsplit(address)
        self.host, self.port, self.netloc = parts.hostname, parts.port, parts.netloc

    def ask(self, path, method="GET", body=None, **headers):
        """(status, headers by lower-case name, text). Header names may be written with underscores."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=START_S)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body=body, headers={"Accept": "text/html"} | named)
        answer = connection.getresponse()
        text = answer.read().decode()
        told = answer.status, {name.lower(): value for name, value in answer.getheaders()}, text
        connection.close()
        return told

    def page(self, path):
        """The page, which must be one."""
        status, _, text = self.ask(path)
        assert status == 200, (path, status, text[:500])
        return text


@contextmanager
def serving(settings, *options):
    """The program itself, on a port of its own choice, ended as an operator ends it."""
    env = os.environ | {
        "RACKPROOF_HOME": str(settings.home), "RACKPROOF_LEDGER": settings.ledger_url,
        "RACKPROOF_INVENTORY": str(settings.inventory),
    }  # fmt: skip
    with subprocess.Popen(
        [PROGRAM, "serve", "--port", "0", *options], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            address = process.stdout.readline().strip()
            assert address, process.stderr.read()
            yield Server(process, address)
        finally:
            process.terminate()
            process.wait(END_S)


def words(page):
    """A page's text without its markup."""
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())
