"""Tool outputs by kind, for `rackproof parse KIND FILE`: the same parsers that read the nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from toolkit.errors import InputError, Problem, UsageError
from toolkit.facts import (
    dcgm_diag,
    fabric_manager_log,
    fabric_text,
    gpu_burn,
    hca_firmware,
    iblinkinfo,
    ibnetdiscover,
    ibqueryerrors,
    imex,
    infiniband,
    kernel_events,
    kernel_log,
    link_flaps,
    lldp,
    nccl_tests,
    nccl_transport,
    nvbandwidth,
    nvidia_smi_text,
    nvlink,
    perftest,
    subnet,
)
from toolkit.facts.unreadable import UnreadableError

MAX_BYTES = 4 * 1024 * 1024
# A burn-in keeps up to 8 MiB of NCCL's log, and cutting it takes the proof out of it.
# A fabric of 16,384 HCAs takes 12 MiB to describe; cut to the part in question, it is another fabric.
_LONGER = {
    "nccl-transport": nccl_transport.MAX_CHARACTERS,
    **dict.fromkeys(("ibnetdiscover", "iblinkinfo", "ibqueryerrors", "opensm-log"), fabric_text.MAX_CHARACTERS),
}


class Parsed(Protocol):
    """What a parser gives: a value of its own type that can be shown as JSON."""

    def as_json(self) -> dict[str, Any]:
        """The value in JSON's terms; every number is finite."""
        ...

    @property
    def doubts(self) -> tuple[str, ...]:
        """What an operator should know before trusting it: lines not understood, output cut."""
        ...


def _transport(text: str) -> nccl_transport.Transport:
    """One log: what NCCL_DEBUG_FILE holds of one process, or of all of a node's."""
    return nccl_transport.parse([text])


KINDS: Mapping[str, Callable[[str], Parsed]] = MappingProxyType(
    {
        "kernel-log": kernel_log.parse,
        "nccl-tests": nccl_tests.parse,
        "nccl-transport": _transport,
        "nvidia-smi": nvidia_smi_text.parse,
        "nvlink": nvlink.parse,
        "ibstat": infiniband.parse,
        "dcgm-diag": dcgm_diag.parse,
        "nvbandwidth": nvbandwidth.parse,
        "gpu-burn": gpu_burn.parse,
        "perftest": perftest.parse,
        "kernel-events": kernel_events.parse,
        "imex": imex.parse,
        "fabric-manager-log": fabric_manager_log.parse,
        "ibnetdiscover": ibnetdiscover.report,
        "iblinkinfo": iblinkinfo.parse,
        "ibqueryerrors": ibqueryerrors.parse,
        "perfquery": subnet.parse_fields,
        "sminfo": subnet.parse_sminfo,
        "pkeys": subnet.parse_pkeys,
        "opensm-log": subnet.parse_opensm_log,
        "hca-firmware": hca_firmware.parse,
        "lldp": lldp.parse,
        "link-flaps": link_flaps.parse,
    }
)


def parse_file(kind: str, path: Path) -> dict[str, Any]:
    """The file's content as JSON-able value. Raises as `read_file`."""
    return read_file(kind, path).as_json()


def read_file(kind: str, path: Path) -> Parsed:
    """The file parsed as output of that kind.

    Raises UsageError for a kind nobody knows, InputError for a file that cannot be read, is too large (4 MiB, or 16 of
    NCCL's log, or 64 of a fabric), is binary or is no output of that kind.
    """
    parser = KINDS.get(kind)
    if parser is None:
        raise UsageError(f"there is no parser of kind {kind!r:.60}", f"kinds: {', '.join(KINDS)}")
    text = _text(path, _LONGER.get(kind, MAX_BYTES))
    try:
        return parser(text)
    except UnreadableError as error:
        raise _wrong(path, error.message, f"an output of {kind}", error.line, error.column) from error


def _text(path: Path, most: int) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise _wrong(path, f"cannot be read: {error.strerror or error}", "a file you may read") from error
    if len(data) > most:
        raise _wrong(path, f"is larger than {most} bytes", "cut it to the time in question")
    if b"\0" in data:
        raise _wrong(path, "is binary", "the tool's output as text")
    return data.decode("utf-8", "replace")


def _wrong(path: Path, wrong: str, right: str, line: int = 1, column: int = 1) -> InputError:
    return InputError((Problem(str(path), line, column, "", wrong, right),))
