"""Certificate of the SSH CA for a host key, on stdout; the one the node has, while it is good.

    sign_host_key.py CA_FILE IDENTITY PRINCIPALS DAYS RENEW_DAYS < "PUBLIC KEY\\n[CERTIFICATE\\n]"

What comes from the node is data: its key is signed for the names that the controller gives, whatever it says.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]{60,80}={0,2}(?: [ -~]{0,200})?")
CERTIFICATE = re.compile(r"ssh-ed25519-cert-v01@openssh\.com [A-Za-z0-9+/]{100,4000}={0,2}(?: [ -~]{0,200})?")


def keygen(*arguments: str | Path) -> str:
    """Runs ssh-keygen; ends the program with its words when it fails."""
    done = subprocess.run(["ssh-keygen", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"ssh-keygen: {done.stderr.strip()[:500]}")
    return done.stdout


def fingerprint(file: Path) -> str:
    """SHA256 fingerprint of a public key."""
    return keygen("-l", "-E", "sha256", "-f", file).split()[1]


def is_good(certificate: Path, key: Path, ca: Path, identity: str, principals: set[str], until: datetime) -> bool:
    """It is for this key, by this CA, for exactly these names, and lives at least `until`."""
    listed = keygen("-L", "-f", certificate)
    names = re.search(r"Principals: *\n(.*?)\n *Critical Options:", listed, re.DOTALL)
    end = re.search(r"Valid: from \S+ to (\S+)", listed)
    return (
        "host certificate" in listed
        and re.search(rf"Public key: \S+ {re.escape(fingerprint(key))}$", listed, re.MULTILINE) is not None
        and re.search(rf"Signing CA: \S+ {re.escape(fingerprint(ca))}\b", listed) is not None
        and f'Key ID: "{identity}"' in listed
        and names is not None
        and {name.strip() for name in names[1].splitlines()} == principals
        and end is not None
        and datetime.fromisoformat(end[1]) >= until  # ssh-keygen prints local time, as `until` is
    )


def main(arguments: list[str], said: str) -> str:
    """The certificate's line."""
    ca, identity, principals, days, renew_days = arguments
    public = Path(f"{ca}.pub")
    if not (Path(ca).is_file() and public.is_file()):
        sys.exit(f"there is no SSH CA {ca} with its .pub; make one: ssh-keygen -t ed25519 -N '' -f {ca}")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if not lines or not KEY.fullmatch(lines[0]):
        sys.exit("the node did not show an Ed25519 host key")
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = Path(folder, "key.pub"), Path(folder, "key-cert.pub")
        key.write_text(lines[0] + "\n")
        until = datetime.now() + timedelta(days=int(renew_days))  # noqa: DTZ005  compared with ssh-keygen's local time
        if len(lines) > 1 and CERTIFICATE.fullmatch(lines[1]):
            certificate.write_text(lines[1] + "\n")
            if is_good(certificate, key, public, identity, set(principals.split(",")), until):
                return lines[1]
            certificate.unlink()
        # From a little ago: the node's clock may be behind.
        keygen("-q", "-s", ca, "-h", "-I", identity, "-n", principals, "-V", f"-1h:+{int(days)}d", key)
        return certificate.read_text().strip()


if __name__ == "__main__":
    print(main(sys.argv[1:], sys.stdin.read(64 * 1024)))  # noqa: T201  its stdout is the answer
