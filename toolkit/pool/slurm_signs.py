"""What is bad about members of a Slurm pool, from what slurmctld says of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from toolkit.pool import slurm_record
from toolkit.pool.model import NODE_GONE, NODE_SHUT, Sign
from toolkit.pool.slurm_record import Standing
from toolkit.pool.slurm_text import SlurmJob, SlurmNode, shown

NODE_DOWN = "NODE_DOWN"
NODE_NOT_RESPONDING = "NODE_NOT_RESPONDING"  # its slurmd is silent; DOWN after SlurmdTimeout
NODE_HELD = "NODE_HELD"  # somebody else drained it, or has it reserved for his maintenance
NODE_FAILING = "NODE_FAILING"  # State=FAIL: an administrator's word, or a failure manager's
NODE_UNCERTIFIED = "NODE_UNCERTIFIED"  # it takes jobs, and no certificate lets it
FEATURES_LOST = "FEATURES_LOST"  # slurmctld has forgotten them; jobs that ask for a certified node do not find it
FEATURES_EDITED = "FEATURES_EDITED"
CERTIFICATE_EXPIRED = "CERTIFICATE_EXPIRED"
JOB_LOST_NODE = "JOB_LOST_NODE"  # a job ended NODE_FAIL or BOOT_FAIL there
_MARKS = {
    Standing.EXPIRED: CERTIFICATE_EXPIRED,
    Standing.FEATURES_LOST: FEATURES_LOST,
    Standing.EDITED: FEATURES_EDITED,
    Standing.SHUT: NODE_UNCERTIFIED,
}


def signs_of(
    asked: Sequence[str], found: Mapping[str, SlurmNode], lost: Mapping[str, Sequence[SlurmJob]], now: datetime
) -> tuple[Sign, ...]:
    """Signs of the members asked for. `lost`: jobs that ended because a node did, by node."""
    signs: list[Sign] = []
    for name in asked:
        node = found.get(name)
        if node is None or slurm_record.standing(node, now) is Standing.STRANGER:
            said = "slurmctld does not know it" if node is None else "nothing on it is rackproof's any more"
            signs.append(Sign(name, NODE_GONE, said, "sinfo"))
        else:
            signs += _of_state(node, now)
        signs += [Sign(name, JOB_LOST_NODE, f"{job} lost a node", f"job {job.identity}") for job in lost.get(name, ())]
    return tuple(signs)


def _of_state(node: SlurmNode, now: datetime) -> Iterator[Sign]:
    state, reason = slurm_record.state_of(node), shown(node.reason) or "no reason given"
    source = f"reason by {shown(node.by, 40)}" if node.by else f"state {state}"
    if "down" in node.state or "error" in node.state:
        yield Sign(node.name, NODE_DOWN, f"{state}: {reason}", source, node.at)
    elif "not_responding" in node.state:
        yield Sign(node.name, NODE_NOT_RESPONDING, f"{state}: its slurmd does not answer", f"state {state}")
    if "fail" in node.state:
        yield Sign(node.name, NODE_FAILING, f"{state}: {reason}", source, node.at)
    elif slurm_record.is_drained_by_us(node):
        yield Sign(node.name, NODE_SHUT, f"{state}: {reason}", source, node.at)
    elif "drain" in node.state:
        yield Sign(node.name, NODE_HELD, f"{state}: {reason}", source, node.at)
    elif not slurm_record.takes_jobs(node) and not node.state & {"down", "error", "not_responding"}:
        yield Sign(node.name, NODE_HELD, f"Slurm has it as {state}", f"state {state}")
    stands = slurm_record.standing(node, now)
    if stands in _MARKS and not (stands is Standing.SHUT and not slurm_record.takes_jobs(node)):
        yield Sign(node.name, _MARKS[stands], slurm_record.doubt(node, now), "features and comment")
