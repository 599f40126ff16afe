"""Mode guard: which services manage NVLink on a node and which must not. Configuration only: no part is blamed here.

Mode table: NVIDIA DeepOps roles/nvidia-dgx/vars/ubuntu-24.04.yml; NVIDIA DRA driver (ComputeDomain).
"""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.judge.nvlink.finding import Blame, NvlinkFinding, Standing
from toolkit.judge.nvlink.seen import TraySeen
from toolkit.rack.model import MNNVL, Mode, Rack

MANAGER, IMEX = "nvidia-fabricmanager.service", "nvidia-imex.service"
NVLSM_MODULES = ("ib_umad", "mlx5_ib")
_AGAIN = "then run this again"


def judge_services(rack: Rack, tray: TraySeen) -> Iterator[NvlinkFinding]:
    """What contradicts the profile's mode on this node, each with its fix."""
    mode = rack.profile.mode
    if tray.services is None:
        yield NvlinkFinding(
            "SERVICES_UNREAD", Standing.UNKNOWN, Blame.EVIDENCE, f"{tray.node}: its services were not read",
            (tray.node,), evidence=tray.problems[:4], settled_by="systemctl show on the node",
        )  # fmt: skip
        return
    if mode in (Mode.NVSWITCH_GEN3, Mode.NVLINK5_SINGLE):
        yield from _manager_runs(tray, mode)
    else:
        yield from _manager_absent(tray, mode)
    if mode is Mode.MNNVL_HOST_IMEX:
        yield from _imex_runs(tray)
    else:
        yield from _imex_absent(tray, mode)
    if mode is Mode.NVLINK5_SINGLE:
        yield from _nvlsm(tray)


def _manager_runs(tray: TraySeen, mode: Mode) -> Iterator[NvlinkFinding]:
    manager = tray.service(MANAGER)
    if manager is None or not manager.running:
        seen = manager.active if manager and manager.active else "not there"
        yield _config(
            tray, "FABRIC_MANAGER_DOWN", f"{MANAGER} is {seen}, and in mode {mode} it programs the NVSwitches",
            f"journalctl -u {MANAGER} and /var/log/fabricmanager.log; {_AGAIN}",
        )  # fmt: skip
    if tray.manager and tray.driver and tray.manager != tray.driver:
        yield _config(
            tray, "FABRIC_MANAGER_SKEW", f"fabric manager {tray.manager}, driver {tray.driver}",
            f"pin nvidia-fabricmanager to {tray.driver} in the profile's `versions`; {_AGAIN}",
        )  # fmt: skip


def _manager_absent(tray: TraySeen, mode: Mode) -> Iterator[NvlinkFinding]:
    manager = tray.service(MANAGER)
    if manager is None:
        yield _unread(tray, MANAGER)
    elif manager.running:
        why = "the fabric is managed on a switch tray" if mode in MNNVL else "there is no NVSwitch to manage"
        yield _config(
            tray, "FABRIC_MANAGER_PRESENT", f"{MANAGER} runs, and in mode {mode} {why}",
            f"systemctl disable --now {MANAGER} && systemctl mask {MANAGER}, or correct the profile's `mode`",
        )  # fmt: skip
    elif not manager.blocked:
        yield _config(
            tray, "FABRIC_MANAGER_NOT_MASKED", f"{MANAGER} could start: {manager.file or 'not masked'}",
            f"systemctl disable --now {MANAGER} && systemctl mask {MANAGER}; {_AGAIN}",
        )  # fmt: skip


def _imex_runs(tray: TraySeen) -> Iterator[NvlinkFinding]:
    imex = tray.service(IMEX)
    if imex is None:
        yield _unread(tray, IMEX)
    elif not imex.running:
        # A tray that is in no domain ends the service as "inactive (dead)", which is no error of its own.
        yield _config(
            tray, "IMEX_DOWN", f"{IMEX} is {imex.active or 'not there'}{' and masked' if imex.blocked else ''}",
            f"journalctl -u {IMEX} and /var/log/nvidia-imex.log: it ends by itself on another driver version and "
            f"outside an NVLink domain; {_AGAIN}",
        )  # fmt: skip


def _imex_absent(tray: TraySeen, mode: Mode) -> Iterator[NvlinkFinding]:
    imex = tray.service(IMEX)
    if imex is None:
        if mode is Mode.MNNVL_DRA:
            yield _unread(tray, IMEX)
        return
    if imex.running:
        why = "a ComputeDomain then fails with NV_ERR_IN_USE" if mode is Mode.MNNVL_DRA else "it has no domain here"
        yield _config(
            tray, "IMEX_PRESENT", f"{IMEX} runs on the host in mode {mode}: {why}",
            f"systemctl disable --now {IMEX} && systemctl mask {IMEX}, or correct the profile's `mode`",
        )  # fmt: skip
    elif mode is Mode.MNNVL_DRA and not imex.blocked:
        yield _config(
            tray, "IMEX_NOT_MASKED", f"{IMEX} is not masked: {imex.file or 'no word of it'}",
            f"systemctl mask {IMEX}: disabled alone, a package's update starts it; {_AGAIN}",
        )  # fmt: skip


def _nvlsm(tray: TraySeen) -> Iterator[NvlinkFinding]:
    """B200 and B300: without these the fabric manager takes the switch for an older one and waits for ever."""
    if tray.modules is None or tray.packages is None:
        what = "kernel modules" if tray.modules is None else "packages"
        yield NvlinkFinding(
            "MODULES_UNREAD", Standing.UNKNOWN, Blame.EVIDENCE, f"{tray.node}: its {what} were not read",
            (tray.node,), evidence=tray.problems[:4], settled_by="lsmod and dpkg-query on the node",
        )  # fmt: skip
        return
    absent = [name for name in NVLSM_MODULES if name not in tray.modules]
    if absent:
        yield _config(
            tray, "NVLSM_MODULES_MISSING", f"kernel modules {' and '.join(absent)} are not loaded",
            f"modprobe {' '.join(absent)}, list them in /etc/modules-load.d, restart {MANAGER}",
        )  # fmt: skip
    if "nvlsm" not in tray.packages:
        yield _config(tray, "NVLSM_MISSING", "the package nvlsm is not installed", f"install nvlsm, restart {MANAGER}")


def judge_manager_log(tray: TraySeen) -> Iterator[NvlinkFinding]:
    """Known lines of the fabric manager's log; what is no error (NV_WARN_NOTHING_TO_DO) is left out by the parser."""
    fixes = {
        "FM_PRE_NVL5": (Blame.SOFTWARE, f"load {' and '.join(NVLSM_MODULES)}, then restart {MANAGER}"),
        "FM_VERSION_SKEW": (Blame.SOFTWARE, "pin fabric manager and driver to one version"),
        "FM_TOPOLOGY_UNKNOWN": (Blame.TRAY, "count the NVSwitches: lspci -d 10de: on the node; one is missing"),
        "FM_NVSWITCH_FATAL": (Blame.TRAY, "the SXid of the kernel log names switch and port"),
        "FM_MULTICAST_GPU_LOST": (Blame.SYMPTOM, "the GPU left its multicast team: look for its Xid and its links"),
    }
    for code, line in tray.manager_log:
        if code in fixes:
            blame, fix = fixes[code]
            part = f"board of {tray.node}" if blame is Blame.TRAY else ""
            yield NvlinkFinding(
                code, Standing.FAIL, blame, f"{tray.node}: its fabric manager says so in its log", (tray.node,), part,
                evidence=(line,), settled_by=fix,
            )  # fmt: skip


def _config(tray: TraySeen, code: str, text: str, fix: str) -> NvlinkFinding:
    return NvlinkFinding(code, Standing.FAIL, Blame.SOFTWARE, f"{tray.node}: {text}", (tray.node,), settled_by=fix)


def _unread(tray: TraySeen, service: str) -> NvlinkFinding:
    return NvlinkFinding(
        "SERVICES_UNREAD", Standing.UNKNOWN, Blame.EVIDENCE, f"{tray.node}: {service} was not read", (tray.node,),
        evidence=tray.problems[:4], settled_by=f"systemctl show {service} on the node",
    )  # fmt: skip
