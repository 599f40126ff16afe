"""What our own ERROR codes mean and what to do. Codes of gates explain themselves from the profiles."""

from __future__ import annotations

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
    "RAIL_UNDECIDED": "The rails of this node could not be judged: no free partner, tests that did not run or took "
    "another way, or readings that fit more than one part. The message says what would settle it.",
    "GPU_RESET_FAILED": "A GPU replaced a faulty row and waits for a reset, which nvidia-smi refused or which did not "
    "help. End what holds the GPUs, or reboot the node; then the same command again goes on from there.",
    "CERTIFICATE_REFUSED": "The certificate does not verify, has expired or does not name the node as it is now.",
    "INTERRUPTED": "Our process was killed during this run. Run bringup again: that is the resume.",
    "UNDECIDED": "We could not tell. The message says while doing what.",
    "STAGE_SILENT": "A stage gave no result for the node: a defect of rackproof.",
    "DEFECT": "rackproof failed at something it should not fail at. The traceback is in the named artifact.",
    "OPERATOR": "Set aside by an operator.",
}
