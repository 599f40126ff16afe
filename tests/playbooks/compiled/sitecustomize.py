"""Python reads this at its start, where the folder is in PYTHONPATH: Ansible's sources are compiled once.

Ansible sends its library with every task, as sources in a zip, and Python compiles them anew each time: a third of a
task's work. Installed on the machines that playbooks are played on too.
"""

import hashlib
import marshal
import os
import sys
import zipimport


def once(path, source, compiled=zipimport._compile_source):
    """What `compiled` answers, kept by what was compiled and by which Python."""
    kept = f"/var/tmp/compiled/{sys.implementation.cache_tag}-{hashlib.sha256(source).hexdigest()}"
    try:
        with open(kept, "rb") as file:  # noqa: PTH123 - pathlib would cost more than it saves
            return marshal.load(file)  # noqa: S302 - written below
    except OSError:
        code = compiled(path, source)
    os.makedirs(os.path.dirname(kept), mode=0o700, exist_ok=True)  # noqa: PTH103, PTH120
    with open(f"{kept}.{os.getpid()}", "wb") as file:  # noqa: PTH123
        marshal.dump(code, file)
    os.rename(file.name, kept)  # noqa: PTH104
    return code


# Of root's alone: no other user of the machine may say what is run.
if os.geteuid() == 0:
    zipimport._compile_source = once
