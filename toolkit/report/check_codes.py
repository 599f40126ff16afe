"""Codes of the checks that users run in their own pipelines (toolkit.infra), where no gate and no stage has one."""

from __future__ import annotations

CHECK_CODES = {
    "PRODUCT_OTHER": "The machine is of another make than the profile says: the rack file names the wrong profile, or "
    "another machine stands in the slot.",
    "IMAGE_OTHER": "The node was made from another image than the one that is published now. Nothing is wrong with it "
    "as hardware; release and bringup image it anew, which wipes its disk.",
    "PART_UNPLANNED": "The node shows a GPU, link or HCA that the rack file and its profile do not have. What is not "
    "planned is not judged, so nothing passes before the plan or the node is corrected.",
    "CLOCK_OFF": "The node's clock and this machine's are too far apart: evidence dated in the future is refused. Look "
    "at chrony or timesyncd on the node, and at this machine's own clock.",
    "KERNEL_ARGUMENT_MISSING": "The site asks for a kernel argument that the running kernel was not started with. Play "
    "base.yml, then reboot the node while it is out of the pool.",
    "REBOOT_DUE": "A setting of rackproof's waits for a reboot, which no playbook does to a node in the pool. Drain "
    "the node and reboot it.",
    "VARIABLE_WRONG": "A variable of the site is not of the kind that its role reads. The message names file and kind.",
    "SERVICE_DOWN": "A service that pods need is not active. Its journal says why.",
    "SERVICE_ON_ITS_WAY": "A service is neither up nor down yet. Look again; one that stays so is restarted by systemd "
    "over and over.",
    "VERSION_DRIFT": "A package or an adapter's firmware is of another version than the rack's one version lock. Play "
    "the stage that installs it, out of the pool; or correct the lock, for all nodes.",
    "CERTIFICATE_REVOKED_FOR_NODE": "The certificate was revoked for this node, and is good for others that it names.",
    "CERTIFICATE_LEAVES_OUT": "The certificate is good, and does not name this node; where it was left out, it says "
    "why. rackproof why NODE has the evidence.",
    "CERTIFICATE_OF_ANOTHER_PLAN": "The certificate was issued for another version of the rack file than the one here: "
    "the message names the first difference. Use the file that was certified, or certify again.",
    "FACT_UNREAD": "A fact that the certificate binds could not be read, so nobody knows whether the node is the one "
    "that was certified.",
}
