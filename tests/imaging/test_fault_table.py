"""The image stage's fault table on real virtual machines, row by row: `make test-slow`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest

from tests.imaging.machines import Site
from toolkit.errors import UsageError
from toolkit.rack.lifecycle import Outcome
from toolkit.virtual.faults import FaultKind
from toolkit.virtual.firmware import Phase

pytestmark = [pytest.mark.root, pytest.mark.rack, pytest.mark.slow, pytest.mark.timeout(180)]


def _console(site: Site) -> str:
    console = site.bench.layout.node("node1").console
    return console.read_text(errors="replace") if console.exists() else "it never came on"


def _finishes(site: Site) -> None:
    result = site.image()
    assert result.outcome is Outcome.PASSED, (result, _console(site)[-2000:])
    assert site.is_up()


@contextmanager
def _spoilt(site: Site, part: str, content: bytes) -> Iterator[None]:
    """What is served as that part is something else, until the end of the block."""
    file = site.part(part)
    good = file.read_bytes()
    file.unlink()  # published parts are links to the release's files
    file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(good)


@contextmanager
def _truncated_under_way(site: Site) -> Iterator[None]:
    """The image is cut when the attempt is on record: it was whole when it was ordered."""
    file = site.part("disk.img.zst")
    good = file.read_bytes()

    def cut(kind: str, what: str) -> None:
        if (kind, what) == ("intent", "image"):
            file.unlink(missing_ok=True)
            file.write_bytes(good[: len(good) // 2])

    site.record.then = cut
    try:
        yield
    finally:
        site.record.then = lambda _kind, _what: None
        file.write_bytes(good)


@contextmanager
def _losing(site: Site, percent: int) -> Iterator[None]:
    """Of what comes to the node that share is dropped."""
    drop = f"iif eth0 numgen random mod 100 < {percent} drop"
    rules = f"table inet loss {{\nchain in {{\ntype filter hook input priority 0;\n{drop}\n}}\n}}\n"
    inside = ["nsenter", f"--net=/run/netns/{site.bench.layout.namespace('node1')}", "nft"]
    subprocess.run([*inside, "-f", "-"], input=rules, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run([*inside, "delete", "table", "inet", "loss"], check=True)


def _row(site: Site, name: str) -> AbstractContextManager[None]:
    match name:
        case "lies":
            return site.fault(FaultKind.BMC_LIES_ABOUT_POWER)
        case "dead":
            return site.fault(FaultKind.BMC_DEAD)
        case "drops the override":
            return site.fault(FaultKind.BMC_IGNORES_OVERRIDE)
        case "refuses":
            return site.fault(FaultKind.BMC_UNAUTHORISED, value=1)
        case "corrupt ramdisk":
            size = site.part("deploy.cpio.zst").stat().st_size
            return _spoilt(site, "deploy.cpio.zst", b"\xff" * size)
        case "damaged image":
            return site.fault(FaultKind.BAD_IMAGE, value=9)
        case "truncated image":
            return _truncated_under_way(site)
        case "hung boot":
            return site.fault(FaultKind.BOOT_HANG)
    raise AssertionError(name)


@pytest.mark.parametrize(
    ("row", "code", "said"),
    [
        ("lies", "NETWORK_BOOT_ABSENT", "nobody fetched its boot script, the BMC says power On"),
        ("dead", "BMC_UNREACHABLE", "10.67.0.11"),
        ("drops the override", "BMC_OVERRIDE_IGNORED", "shows None Disabled"),
        ("refuses", "BMC_UNTRUSTED", "HTTP 401"),
        ("corrupt ramdisk", "DEPLOY_SILENT", "it fetched its boot script at"),
        ("damaged image", "IMAGE_HASH_MISMATCH", "2 times"),
        ("truncated image", "IMAGE_HASH_MISMATCH", "2 times"),
        ("hung boot", "IMAGE_TIMEOUT", "'written'"),
    ],
)
def test_a_fault_ends_in_its_state_and_the_second_run_finishes(site: Site, row: str, code: str, said: str) -> None:
    """ERROR by name, never FAILED: the node is not to blame; the same command ends well when the cause is gone."""
    with _row(site, row):
        result = site.image(silence_s=6.0)
    assert (result.outcome, result.code) == (Outcome.ERROR, code), (result, _console(site)[-1500:])
    assert said in result.message
    _finishes(site)


def test_an_image_that_was_cut_on_the_server_is_not_ordered_at_all(site: Site) -> None:
    """Its size is not the signed one: nothing is recorded, nothing is pressed."""
    whole = site.part("disk.img.zst").read_bytes()
    with _spoilt(site, "disk.img.zst", whole[: len(whole) // 2]), pytest.raises(UsageError, match=r"disk\.img\.zst"):
        site.image()
    assert site.record.entries == []
    _finishes(site)


def _cut(site: Site, step: str) -> Callable[[], bool]:
    """When the plug is pulled."""
    phases = {"self-test": Phase.SELF_TEST, "ramdisk": Phase.RAMDISK, "first boot": Phase.OPERATING_SYSTEM}
    if step in phases:
        return lambda: site.bench.status("node1").phase is phases[step]
    return lambda: site.has_said({"writing": "started", "written": "written"}[step])


@pytest.mark.parametrize(
    ("step", "code"), [("self-test", "NETWORK_BOOT_ABSENT"), ("ramdisk", "DEPLOY_SILENT"), ("writing", ""),
                       ("written", ""), ("first boot", "")]
)  # fmt: skip
def test_power_that_is_cut_at_a_step_is_named_or_mended(site: Site, step: str, code: str) -> None:
    """Once the node has spoken the stage begins anew by itself; before that the state is named; again finishes."""
    plug = site.cut_power_when(_cut(site, step))
    result = site.image(silence_s=10.0)
    plug.join(60)
    wanted = (Outcome.ERROR, code) if code else (Outcome.PASSED, "")
    assert (result.outcome, result.code) == wanted, (result, _console(site)[-1500:])
    _finishes(site)


def test_a_third_of_all_packets_lost_it_is_imaged_all_the_same(site: Site) -> None:
    """DHCP, boot script, ramdisk, image and reports are asked for again until they come."""
    with _losing(site, 30):
        result = site.image(silence_s=90.0)
    assert result.outcome is Outcome.PASSED, (result, _console(site)[-2000:])
    _finishes(site)


def test_nothing_wrong_is_the_last_row(site: Site) -> None:
    """What the rows are compared with."""
    with nullcontext():
        _finishes(site)
