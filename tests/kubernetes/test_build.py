"""Building the control plane's programs: what is there is not built again, what is wrong is not taken."""

import stat

import pytest

from toolkit.errors import UndecidedError, UsageError
from toolkit.virtual.control_plane import build


def program(path, says, status=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {status}\n")
    path.chmod(0o755)


def test_programs_that_are_there_are_not_built_again(tmp_path):
    """A second `make kubernetes-binaries` says where they are, and needs neither compiler nor mirror."""
    for name in build.PROGRAMS:
        program(tmp_path / "kubernetes" / name, "Kubernetes v1.20.2")
    said = []
    assert build.build(tmp_path, said.append) == tmp_path / "kubernetes"
    assert str(tmp_path / "kubernetes") in said[0]
    assert not (tmp_path / "kubernetes-build").exists()


def test_what_is_missing_to_build_with_is_named(tmp_path, monkeypatch):
    """The Debian packages, all at once, and the command that installs them."""
    monkeypatch.setattr(build, "GO", tmp_path / "go")
    monkeypatch.setattr(build, "REFLECT2", tmp_path / "reflect2")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"rsync golang-1.19-go golang-github-modern-go-reflect2-dev") as told:
        build.build(tmp_path, lambda _: None)
    assert "make kubernetes-binaries" in told.value.hint


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("kubernetes_1.20.5+really1.20.2-1.1.dsc", "1.20.2"),
        ("kubernetes_1.32.3+ds-2.dsc", "1.32.3"),
        ("kubernetes_x.dsc", None),
    ],
)
def test_the_version_is_that_of_the_source(name, version):
    """Debian's version names what it really is."""
    match = build._VERSION.fullmatch(name)
    assert (match["version"] if match else None) == version


def test_only_a_program_of_that_version_is_taken(tmp_path):
    """One that does not start, or is another, stays out of the cache; what was there before stays as it was."""
    shop = build.Workshop(tmp_path)
    made, place = shop.source / "_output/local/bin/linux/amd64/kube-scheduler", shop.programs / "kube-scheduler"
    shop.programs.mkdir()
    for says, status in (("Kubernetes v1.20.1", 0), ("Kubernetes v1.20.2", 1)):
        program(made, says, status)
        with pytest.raises(UndecidedError, match="did not come out of it"):
            build._take(shop, "kube-scheduler", "1.20.2")
        assert not place.exists()
    program(made, "Kubernetes v1.20.2")
    build._take(shop, "kube-scheduler", "1.20.2")
    assert place.stat().st_mode & stat.S_IXUSR


def test_a_step_that_fails_is_told_with_its_last_words(tmp_path):
    """The log's end is in the error; the same command goes on from there."""
    shop = build.Workshop(tmp_path)
    shop.folder.mkdir()
    with pytest.raises(UndecidedError, match="ended with 3:\n  no such module") as told:
        build._run(shop, ["sh", "-c", "echo no such module; exit 3"], tmp_path)
    assert str(shop.log) in told.value.hint
