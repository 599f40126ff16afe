"""First in a pod: puts the program together from its parts, sees that it is the one that was ordered, becomes it.

    python3 -I -c "THIS FILE" SHA256 PARTS TARGET ARGUMENT...

PARTS is a folder with one folder for each part, in the order of their names, and the part in it as `part`: each is a
ConfigMap, which holds at most 1 MiB. exit 90: the parts are not the program; 91: this Python is too old.
"""

import hashlib
import os
import sys


def main(arguments: list) -> int:  # type: ignore[type-arg]  # a Python that is too old must read this, and say so
    """Join, check, become."""
    digest, parts, target = arguments[:3]
    if sys.version_info < (3, 10):  # noqa: UP036
        return _fail(91, f"the image has Python {sys.version.split()[0]}; 3.10 is needed")
    found = hashlib.sha256()
    with open(target, "wb") as joined:  # noqa: PTH123
        for name in sorted(os.listdir(parts)):  # noqa: PTH208
            with open(os.path.join(parts, name, "part"), "rb") as part:  # noqa: PTH118, PTH123
                content = part.read()
            found.update(content)
            joined.write(content)
    if found.hexdigest() != digest:
        return _fail(90, f"the parts in {parts} are not the program that was ordered: their sha256 is not {digest}")
    os.execv(sys.executable, [sys.executable, target, *arguments[3:]])  # noqa: S606
    raise AssertionError("exec does not return")


def _fail(status: int, words: str) -> int:
    sys.stderr.write(f"rackproof: {words}\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
