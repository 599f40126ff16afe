"""A small collective over nodes just admitted, as an ordinary job of Slurm: its command line and its end. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from toolkit.pool.model import Smoked, SmokeEnd
from toolkit.pool.policy import SlurmSite
from toolkit.pool.slurm_record import CERTIFIED
from toolkit.pool.slurm_text import shown

# 64 MiB at most: enough for every channel and every rail to carry some of it, done in a second
_SIZES = ("-b", "8", "-e", "64M", "-f", "8", "-n", "5", "-w", "1", "-c", "1")
# nccl-tests' own verdict on its data (src/common.cu): the count of wrong values, and a word
_CHECKED = re.compile(r"^# Out of bounds values : (\d{1,18}) (OK|FAILED)\s*$", re.MULTILINE)
_DIED = re.compile(r"^srun: error: (\S{1,128}): tasks? [\d,-]{1,60}: (.{1,120})$", re.MULTILINE)
_NODE_DIED = re.compile(r"^srun: error: Node failure on (\S{1,200})", re.MULTILINE)
_NEVER_RAN = ("execve()", "error while loading shared libraries", "No such file or directory")
_BEGAN = "#"  # nccl-tests' first line, before any data moves
_STARTS_SECONDS = 30


def command(site: SlurmSite, nodes: Sequence[str], identity: str, deadline_s: float) -> tuple[str, ...]:
    """argv of srun: whole nodes, at once or not at all, and through the door that other jobs take too."""
    given = {"partition": site.partition, "account": site.account, "qos": site.qos}
    gres = (f"--gres={site.gres}:{site.gpus}",) if site.gres else ()
    mpi = (f"--mpi={site.mpi}",) if len(nodes) > 1 and site.mpi else ()
    return (
        "srun", f"--job-name={identity}", *(f"--{name}={value}" for name, value in given.items() if value),
        f"--nodelist={','.join(nodes)}", f"--nodes={len(nodes)}", f"--ntasks={len(nodes)}", "--ntasks-per-node=1",
        f"--constraint={CERTIFIED}", "--exclusive", "--mem=0", *gres, *mpi, "--cpu-bind=none", "--chdir=/",
        f"--immediate={max(1, min(_STARTS_SECONDS, int(deadline_s / 2)))}", f"--time={1 + int(deadline_s) // 60}",
        "--kill-on-bad-exit=1", "--input=none", "--quit-on-interrupt", site.smoke, *_SIZES, "-g", str(site.gpus),
    )  # fmt: skip


def judged(status: int, out: str, errors: str) -> Smoked:
    """What an srun that ended came to: PASSED only on nccl-tests' own word that every value was right."""
    checked = _CHECKED.findall(out)
    if any(word != "OK" or int(wrong) for wrong, word in checked):
        return Smoked(SmokeEnd.FAILED, f"{max(int(w) for w, _ in checked)} values were wrong")
    if status == 0 and len(checked) == 1:
        return Smoked(SmokeEnd.PASSED, "every value was right")
    last = shown(" ".join(errors.split("\n")[-6:]))
    never = any(sign in errors for sign in _NEVER_RAN) or _BEGAN not in out
    if never or status == 0:
        what = "ended well but never said that its data were right" if status == 0 else f"did not run: {last}"
        return Smoked(SmokeEnd.UNDECIDED, f"the smoke collective {what}")
    gone = _NODE_DIED.search(errors)
    if gone:
        return Smoked(SmokeEnd.FAILED, f"{shown(gone[1])} was lost in the middle of it")
    died = _DIED.search(errors)
    if died:
        return Smoked(SmokeEnd.FAILED, f"a rank on {shown(died[1])} died: {shown(died[2])}")
    return Smoked(SmokeEnd.UNDECIDED, f"the smoke collective ended with status {status}: {last}")
