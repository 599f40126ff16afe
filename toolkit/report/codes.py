"""What our own ERROR codes mean and what to do. Codes of gates explain themselves from the profiles."""

from __future__ import annotations

from toolkit.report.bmc_codes import BMC_CODES
from toolkit.report.certificate_codes import CERTIFICATE_CODES
from toolkit.report.check_codes import CHECK_CODES
from toolkit.report.deploy_codes import DEPLOY_CODES
from toolkit.report.fabric_codes import FABRIC_CODES
from toolkit.report.image_codes import IMAGE_CODES
from toolkit.report.lint_codes import LINT_CODES
from toolkit.report.netboot_codes import NETBOOT_CODES
from toolkit.report.nvlink_codes import NVLINK_CODES
from toolkit.report.pool_codes import POOL_CODES

ERROR_CODES = {
    "BMC_UNREACHABLE": "The BMC did not answer. Check its cable, address and power; then run bringup again.",
    "BMC_UNTRUSTED": "The BMC's certificate or password was refused. Check bmc-ca.pem and bmc.yml of the site.",
    "NODE_SERIAL_MISMATCH": "The machine behind this BMC is not the one planned for the slot. Correct the rack file or "
    "the cabling; nothing was erased.",
    "DISK_SERIAL_MISMATCH": "The disk is not the planned one. Nothing was written. Correct the rack file or the disk.",
    "IMAGE_HASH_MISMATCH": "What the image server sent is not the image: the server, its disk or the path is at fault, "
    "not the node. The disk's first MiB was wiped, so that nothing half-written boots.",
    "IMAGE_FAILED": "The deploy ramdisk gave up (download, disk write or seed), or the first boot reported another "
    "image than the planned one. The message has its words; run bringup again.",
    "IMAGE_TIMEOUT": "The node did not report in time. Look at its console; then run bringup again.",
    "NODE_UNREACHABLE": "No answer over SSH. Never a verdict on the hardware, never a pass. Run bringup again.",
    "PLAYBOOK_FAILED": "A task failed on the node. The message names it; the run's folder has its output.",
    "PLAYBOOK_UNPROVEN": "The playbook did not prove that it finished on this node: not counted as done.",
    "VERSION_SKEW": "Versions on the node do not go together, so a stage that builds on them was not begun. The "
    "message names the pin of the rack's lock to correct, or the stage that installs what the lock has.",
    "EVIDENCE_MISSING": "A required gate could not be asked: evidence is missing, stale or unreadable. Run it again.",
    "EVIDENCE_INCONCLUSIVE": "Certification could not decide. The node goes back to JOINED; run bringup again.",
    "BURNIN_CUT": "The burn-in has no end record: it died, or its time ran out. Run bringup again.",
    "BURNIN_INCOMPLETE": "Some planned workloads did not end. Run bringup again; look at the records if it stays.",
    "WRONG_FABRIC": "A collective did not go over NVLink: NCCL's log or the byte counters name what did, "
    "and no part is judged by it. Look for NCCL variables in /etc/nccl.conf and the environment, at fabric manager and "
    "IMEX, at what else used the links; then run it again: everything is measured anew.",
    "RAIL_SLOW": "Collectives over one rail of this node are slow with every partner, and without it they are not. "
    "Cable, HCA and leaf port are told apart by their counters or by a swap: the message has their probabilities.",
    "RAIL_HANGS": "As RAIL_SLOW: collectives over this rail do not end.",
    "RAIL_CORRUPTS_DATA": "As RAIL_SLOW: collectives over this rail return wrong values.",
    "RAIL_COUNTS_ERRORS": "As RAIL_SLOW: this rail counts errors and costs no bandwidth yet.",
    "RAIL_CABLES_EXCHANGED": "Several rails of this rack reach nobody, on leaves that do not reach each other: as "
    "likely as so many dead parts is that their cables are in each other's port. Compare the neighbours that "
    "ibnetdiscover reports with the rack file before a part is pulled; both ends of each cable are named.",
    "RAIL_UNDECIDED": "The rails of this node could not be judged: no free partner, tests that did not run or took "
    "another way, or readings that fit more than one part. The message says what would settle it.",
    "LEAF_HANGS": "A collective among nodes of one leaf, over one rail, does not end though all its ranks were there. "
    "The node's own suite and the pairs on its rail were well: look at the leaf's ports and at what the message names.",
    "UNIT_HANGS": "As LEAF_HANGS, among all GPUs and HCAs of the scalable unit.",
    "DOMAIN_HANGS": "As LEAF_HANGS, over the NVLink domain: look at the switch trays and at IMEX.",
    "LEAF_DATA_WRONG": "A collective among nodes of one leaf returned wrong values. Data that changes on the way is no "
    "matter of speed: nothing of it may carry a job until the part is found.",
    "UNIT_DATA_WRONG": "As LEAF_DATA_WRONG, among all GPUs and HCAs of the scalable unit.",
    "DOMAIN_DATA_WRONG": "As LEAF_DATA_WRONG, over the NVLink domain.",
    "LEAF_UNDECIDED": "Collectives among nodes of one leaf could not be measured, or were well once and once not. The "
    "message says why, and names nodes that were gone or whose ranks never came. Run bringup again.",
    "UNIT_UNDECIDED": "As LEAF_UNDECIDED, among all GPUs and HCAs of the scalable unit.",
    "DOMAIN_UNDECIDED": "As LEAF_UNDECIDED, over the NVLink domain.",
    "GPU_RESET_BY_HAND": "A GPU replaced a faulty row and waits for a reset, on a node that rackproof burns in by Jobs "
    "and does not reach otherwise. Drain it, reset its GPUs or reboot it, and burn it in again: the rerun decides.",
    "GPU_RESET_FAILED": "A GPU replaced a faulty row and waits for a reset, which nvidia-smi refused or which did not "
    "help. End what holds the GPUs, or reboot the node; then the same command again goes on from there.",
    "DRIFTS_FROM_PEERS": "A warning, which fails nobody: this board, by its serial, falls behind its siblings from one "
    "burn-in to the next (EWMA and CUSUM). It was measured again beside them. rackproof why NODE has the figures; look "
    "at its cooling, power and error counters before the next certification.",
    "CERTIFICATE_REFUSED": "The certificate does not verify, has expired or does not name the node as it is now.",
    "BURNIN_OF_OTHER_PARTS": "The node passed, and with other GPUs than it has now: a board was changed after its "
    "burn-in. Nothing is certified; the same command measures what is there.",
    "INTERRUPTED": "Our process was killed during this run. Run bringup again: that is the resume.",
    "YIELDED": "A job had a use for the node while it was measured again: the burn-in was stopped, the node given back "
    "by the certificate it has. What had ended is kept on the node; the next rackproof recert run goes on with it.",
    "DRIFTED": "The node is not what its certificate says, so nothing of it can be carried on, and it leaves the pool. "
    "Say what was changed: rackproof recert run RACK --after CHANGE; or let bringup test it whole.",
    "UNDECIDED": "We could not tell. The message says while doing what.",
    "COLLECTIVE_ORPHANS": "Processes of a collective that has ended do not die on a node, and hold its GPUs. Reboot "
    "it, then run bringup again.",
    "LEVELS_UNMEASURED": "The profile asks for collectives among many nodes, and this node's burn-in has none on "
    "record. The message says which were left out and why.",
    "STAGE_SILENT": "A stage gave no result for the node: a defect of rackproof.",
    "DEFECT": "rackproof failed at something it should not fail at. The traceback is in the named artifact.",
    "OPERATOR": "Set aside by an operator.",
    "FABRIC_UNDECIDED": "The look at the fabric was not whole: a tool that did not run, output that was cut, counters "
    "not read. The message says which; nothing is blamed. Run rackproof fabric RACK, then bringup again.",
    **BMC_CODES,
    **CERTIFICATE_CODES,
    **CHECK_CODES,
    **FABRIC_CODES,
    **IMAGE_CODES,
    **DEPLOY_CODES,
    **LINT_CODES,
    **NETBOOT_CODES,
    **NVLINK_CODES,
    **POOL_CODES,
}

# Of what others call their findings: CONDITION_GPU_XID_ERROR is explained as CONDITION.
FAMILIES = ("CONDITION", "EVENT")


def explained_as(code: str) -> str:
    """The code that explains this one: itself; of what a cluster's own agents name, that of its family."""
    if code in ERROR_CODES:
        return code
    return next((family for family in FAMILIES if code.startswith(f"{family}_")), code)
