"""Stand-in of `nvidia-smi`: the options a bring-up reads, in the real tool's formats and with its exit codes.

nvidia-smi | -L | -q -x | --query-gpu=A,B --format=csv[,noheader][,nounits] | nvlink -s|-e | --gpu-reset |
--version   [-i ID,...]
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from . import smi_query, smi_xml
from .state import Gpu, NoDriverError, State, read

# man nvidia-smi, RETURN VALUE
_INVALID_ARGUMENT, _NO_PERMISSION, _NOT_FOUND, _NO_DRIVER, _GPU_LOST = 2, 4, 6, 9, 15
_NOT_RESET = 255  # not in the manual


class _Refused(Exception):  # noqa: N818 - carries a sentence and an exit code, and is no error of ours
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the tool; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        state = read()
        text, code = _answer(state, given)
    except NoDriverError:
        text, code = (
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest "
            "NVIDIA driver is installed and running.\n\n",
            _NO_DRIVER,
        )
    except _Refused as refused:
        text, code = f"{refused}\n", refused.code
    sys.stdout.write(text)
    return code


def _answer(state: State, given: list[str]) -> tuple[str, int]:
    gpus = _chosen(state, given)
    if given[:1] == ["nvlink"]:
        return _nvlink(gpus, given[1:])
    if not given:
        return _summary(state, gpus)
    query = _option(given, "--query-gpu")
    if query is not None:
        return _query(state, gpus, query, _option(given, "--format") or "")
    if "-L" in given or "--list-gpus" in given:
        return _list(gpus)
    if "-r" in given or "--gpu-reset" in given:
        return _reset(gpus)
    if "--version" in given:
        return _version(state), 0
    if ("-q" in given or "--query" in given) and ("-x" in given or "--xml-format" in given):
        return smi_xml.document(state, gpus), _lost_code(gpus)
    raise _Refused(
        _INVALID_ARGUMENT, f"Invalid combination of input arguments: {' '.join(given)} (the stand-in has -L, -q -x,"
        " --query-gpu, --gpu-reset, nvlink -s, nvlink -e, --version)"
    )  # fmt: skip


def _option(given: Sequence[str], name: str) -> str | None:
    """The value of `name=VALUE` or `name VALUE`."""
    for at, argument in enumerate(given):
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
        if argument == name and at + 1 < len(given):
            return given[at + 1]
    return None


def _chosen(state: State, given: Sequence[str]) -> tuple[Gpu, ...]:
    wanted = _option(given, "-i") or _option(given, "--id")
    if wanted is None:
        return state.gpus
    names = {name: gpu for gpu in state.gpus for name in (str(gpu.index), gpu.need("uuid"), gpu.need("pci"))}
    missing = [name for name in wanted.split(",") if name not in names]
    if missing:
        raise _Refused(_NOT_FOUND, f"No devices were found: {missing[0]}")
    return tuple(names[name] for name in wanted.split(","))


def _query(state: State, gpus: Sequence[Gpu], fields: str, form: str) -> tuple[str, int]:
    words = form.split(",")
    if words[0] != "csv" or set(words[1:]) - {"noheader", "nounits"}:
        raise _Refused(_INVALID_ARGUMENT, 'Option "--format=" is missing or invalid: it takes csv[,noheader][,nounits]')
    names = [name.strip() for name in fields.split(",")]
    try:
        return smi_query.csv(state, gpus, names, "noheader" not in words, "nounits" not in words), _lost_code(gpus)
    except smi_query.UnknownFieldError as error:
        raise _Refused(_INVALID_ARGUMENT, f'Field "{error}" is not a valid field to query.\n') from error


def _list(gpus: Sequence[Gpu]) -> tuple[str, int]:
    lines = [_lost_line(gpu) if gpu.lost else f"{_title(gpu)}\n" for gpu in gpus]
    return "".join(lines), _lost_code(gpus)


def _reset(gpus: Sequence[Gpu]) -> tuple[str, int]:
    """Resets the GPUs, all or none: one that a process uses, or that is gone, is a reason not to."""
    if os.geteuid() != 0:
        return "Unable to reset GPU: Insufficient Permissions\n", _NO_PERMISSION
    busy = [(gpu, "GPU is lost") if gpu.lost else (gpu, "In use by another client") for gpu in gpus
            if gpu.lost or gpu.in_use()]  # fmt: skip
    if busy:
        lines = "".join(f"  GPU {gpu.need('pci')}: {why}\n" for gpu, why in busy)
        return f"The following GPUs could not be reset:\n{lines}\n", _NOT_RESET
    for gpu in gpus:
        gpu.reset()
    lines = "".join(f"GPU {gpu.need('pci')} was successfully reset.\n" for gpu in gpus)
    return f"{lines}All done.\n", 0


def _lost_code(gpus: Sequence[Gpu]) -> int:
    return _GPU_LOST if any(gpu.lost for gpu in gpus) else 0


def _title(gpu: Gpu) -> str:
    return f"GPU {gpu.index}: {gpu.need('name')} (UUID: {gpu.need('uuid')})"


def _lost_line(gpu: Gpu) -> str:
    pci = gpu.need("pci")[4:]
    return f"Unable to determine the device handle for gpu {pci}: GPU is lost.  Reboot the system to recover this GPU\n"


def _nvlink(gpus: Sequence[Gpu], given: Sequence[str]) -> tuple[str, int]:
    if "-s" in given or "--status" in given:
        body = _link_status
    elif "-e" in given or "--errorcounters" in given:
        body = _link_errors
    else:
        raise _Refused(_INVALID_ARGUMENT, "Invalid combination of input arguments: nvlink takes -s or -e")
    text = "".join(_lost_line(gpu) if gpu.lost else f"{_title(gpu)}\n{body(gpu)}" for gpu in gpus)
    return text, _lost_code(gpus)


def _link_status(gpu: Gpu) -> str:
    links = gpu.nvlinks
    if not any(links.values()):
        return "NVML: Unable to retrieve NVLink information as all links are inactive\n"
    rate = gpu.number("nvlink_mb_per_s") / 1000
    return "".join(f"\t Link {link}: {f'{rate:g} GB/s' if up else '<inactive>'}\n" for link, up in links.items())


def _link_errors(gpu: Gpu) -> str:
    kinds = ("Replay", "Recovery", "CRC")
    up = [link for link, active in gpu.nvlinks.items() if active]
    return "".join("".join(f"\t Link {link}: {kind} Errors: 0\n" for kind in kinds) + "\n" for link in up)


def _version(state: State) -> str:
    driver, cuda = state.values["driver"], int(state.values["cuda"])
    return (
        f"NVIDIA-SMI version  : {driver}\nNVML version        : {driver.rpartition('.')[0]}\n"
        f"DRIVER version      : {driver}\nCUDA Version        : {cuda // 1000}.{cuda % 1000 // 10}\n"
    )


def _summary(state: State, gpus: Sequence[Gpu]) -> tuple[str, int]:
    """The table of a bare `nvidia-smi`; as the real tool, it gives up at the first GPU that is lost."""
    lost = [gpu for gpu in gpus if gpu.lost]
    if lost:
        return _lost_line(lost[0]), _GPU_LOST
    driver, cuda = state.values["driver"], int(state.values["cuda"])
    title = f"NVIDIA-SMI {driver:<22} Driver Version: {driver:<14} CUDA Version: {cuda // 1000}.{cuda % 1000 // 10}"
    rule = "+" + "-" * 87 + "+"
    lines = [rule, f"| {title:<85} |", rule]
    for gpu in gpus:
        total = gpu.number("memory_bytes") >> 20
        row = (
            f"{gpu.index:>3}  {gpu.need('name'):<25} On  | {gpu.need('pci')} | {gpu.celsius}C P0 "
            f"{gpu.watts:>4.0f}W | 0MiB / {total}MiB"
        )
        lines.append(f"| {row:<85} |")
    return "\n".join([*lines, rule, ""]), 0
