"""Boot order, boot scripts and DHCP packets: everything of the firmware that needs no machine."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.virtual import dhcp
from toolkit.virtual.firmware import BootEnabled, BootOverride, BootTarget, boot_order
from toolkit.virtual.ipxe import Exit, Interpreter, Kernel, ScriptError

MAC = "52:54:00:66:00:01"
SETTINGS = {"net0/mac": MAC, "mac:hexhyp": MAC.replace(":", "-"), "serial": "VR00000001", "uuid": "u-1"}
URL = "http://10.66.255.1/boot/x.ipxe"


def run(*lines: str, others: dict[str, str] | None = None, said: list[str] | None = None) -> Kernel | Exit:
    files = {URL: "\n".join(("#!ipxe", *lines)), **(others or {})}

    def fetch(url: str) -> str:
        if url not in files:
            raise FileNotFoundError(f"{url}: 404")
        return files[url]

    say: Callable[[str], None] = (said if said is not None else []).append
    return Interpreter(SETTINGS, fetch, say).run(URL)


def test_a_boot_script_gives_kernel_arguments_and_ramdisk() -> None:
    """Relative URLs are relative to the script, settings expand, arguments stay apart."""
    found = run(
        "set base /images",
        "kernel ${base}/vmlinuz deploy.serial=${serial} deploy.mac=${net0/mac} # the deploy ramdisk's arguments",
        "initrd --name deploy http://10.66.255.1${base}/deploy.cpio.zst",
        "boot",
    )
    assert found == Kernel(
        "http://10.66.255.1/images/vmlinuz",
        ("deploy.serial=VR00000001", f"deploy.mac={MAC}"),
        "http://10.66.255.1/images/deploy.cpio.zst",
    )


def test_exit_gives_the_next_boot_device_its_turn() -> None:
    """So does the end of a script without `boot`."""
    assert run("echo done already", "exit", "boot") == Exit()
    assert run("kernel /vmlinuz") == Exit()


def test_a_script_chains_to_another_and_falls_back_when_there_is_none() -> None:
    """`chain URL || COMMAND` is how a generic script looks for the node's own."""
    own = {"http://10.66.255.1/boot/52-54-00-66-00-01.ipxe": "#!ipxe\nkernel k\nboot"}
    found = run("chain ${mac:hexhyp}.ipxe || exit", others=own)
    assert found == Kernel("http://10.66.255.1/boot/k", (), None)
    assert run("chain ${mac:hexhyp}.ipxe || exit") == Exit()


def test_what_a_script_echoes_is_on_the_console() -> None:
    """Unknown settings expand to nothing, as iPXE has it."""
    said: list[str] = []
    run("echo ${serial} at ${nowhere}!", said=said)
    assert said == ["VR00000001 at !"]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (("boot",), "no kernel"),
        (("frobnicate",), "command not found"),
        (("kernel",), "argument is missing"),
        (("initrd --name only",), "no URL"),
        (("chain x.ipxe",), "404"),
        (("chain ../boot/x.ipxe",), "chained more than"),
    ],
)
def test_a_broken_script_says_what_is_broken(lines: tuple[str, ...], reason: str) -> None:
    """A script that cannot be run ends the network boot with its reason."""
    own_404 = {"http://10.66.255.1/boot/y.ipxe": ""}
    with pytest.raises(ScriptError, match=reason):
        run(*(line.replace("x.ipxe", "missing.ipxe") if "404" in reason else line for line in lines), others=own_404)


def test_a_page_that_is_no_script_is_refused() -> None:
    """An HTML error page with status 200 must not be run."""
    with pytest.raises(ScriptError, match="exec format error"):
        Interpreter(SETTINGS, lambda _: "<html>", lambda _: None).run(URL)


@given(st.text())
def test_no_script_can_do_more_than_end(text: str) -> None:
    """Whatever a server sends: a kernel, an exit, or a refusal."""
    with suppress(ScriptError):
        assert isinstance(run(text), Kernel | Exit)


def test_the_disk_comes_before_the_network() -> None:
    """Unless the BMC said otherwise."""
    assert boot_order(BootOverride()) == (BootTarget.HDD, BootTarget.PXE)
    assert boot_order(BootOverride(BootTarget.PXE, BootEnabled.ONCE)) == (BootTarget.PXE, BootTarget.HDD)
    assert boot_order(BootOverride(BootTarget.PXE, BootEnabled.DISABLED)) == (BootTarget.HDD, BootTarget.PXE)


def test_once_is_once_and_continuous_stays() -> None:
    """A consumed override is gone; a continuous one is there at every boot."""
    once, always = (BootOverride(BootTarget.PXE, kind) for kind in (BootEnabled.ONCE, BootEnabled.CONTINUOUS))
    assert not once.consumed().active
    assert always.consumed() == always


def reply(kind: int, transaction: int, options: dict[int, bytes], file: bytes = b"") -> bytes:
    head = struct.pack(
        ">BBBBIHH4s4s4s4s16s64s128s",
        2, 1, 6, 0, transaction, 0, 0, bytes(4), IPv4Address("10.66.0.11").packed, bytes(4), bytes(4),
        b"", b"", file,
    )  # fmt: skip
    body = b"".join(bytes([code, len(value)]) + value for code, value in {53: bytes([kind]), **options}.items())
    return head + b"\x63\x82\x53\x63" + body + b"\xff"


def test_an_ack_becomes_a_lease() -> None:
    """Address, mask and boot file; the file field counts where option 67 is absent."""
    mask = IPv4Address("255.255.0.0").packed
    answer = dhcp.parse(reply(dhcp.ACK, 7, {1: mask, 67: b"http://x/y.ipxe"}), 7)
    assert answer is not None
    assert dhcp.lease_of(answer) == dhcp.Lease(IPv4Address("10.66.0.11"), 16, "http://x/y.ipxe")
    answer = dhcp.parse(reply(dhcp.ACK, 7, {1: mask}, b"undionly.kpxe"), 7)
    assert answer is not None
    assert dhcp.lease_of(answer).boot_file == "undionly.kpxe"


def test_packets_of_others_are_not_ours() -> None:
    """Another transaction, our own broadcast come back, a torn packet."""
    good = reply(dhcp.OFFER, 7, {})
    assert dhcp.parse(good, 8) is None
    assert dhcp.parse(dhcp.request(dhcp.DISCOVER, 7, MAC), 7) is None
    assert dhcp.parse(good[:200], 7) is None


@given(st.binary(max_size=400))
def test_no_packet_breaks_the_client(tail: bytes) -> None:
    """The options of an answer are a stranger's bytes."""
    dhcp.parse(reply(dhcp.OFFER, 7, {})[:240] + tail, 7)
