"""What the codes of admission and of pools mean, and what to do."""

POOL_CODES = {
    "ADMISSION_HALTED": "A node of the same wave, or of an earlier one, went bad while the wave was watched. The wave "
    "was taken back out of the pool and no other was begun. The message names the sign and who gave it; this node "
    "itself showed nothing. See to the named node, then: rackproof admit RACK, which begins with a canary again.",
    "ADMISSION_NOT_BEGUN": "An earlier wave was halted, or the pool could not be asked, before this node's wave was "
    "due. Nothing was done to the node. See to what the message names, then: rackproof admit RACK.",
    "REGULATOR_BUSY": "Another rackproof lets nodes into the same pool: the message names its user, host and process. "
    "Two at once would watch each other's waves. Wait for it, then run the same command again.",
    "POOL_SILENT": "The pool did not answer for as long as the site's policy has patience. What was let in and not "
    "yet watched long enough is taken out again, or the message says that it could not be. Run the same command "
    "again.",
    "POOL_REFUSED": "The pool answered and would not let the node in; the message has its words. Nothing is held "
    "against the node.",
    "NODE_NOT_JOINED": "The pool has no such member: the node has not joined, or goes by another name there. Nothing "
    "was admitted. Run bringup, or look at its kubelet.",
    "NODE_OF_ANOTHER_MACHINE": "The cluster has a node of this name that is another machine, or this one before it was "
    "imaged: the machine-id that its kubelet reports is not the one on the node. See which machine has the name "
    "(kubectl get node -o wide); delete the Node if its machine is gone, then run bringup again.",
    "NODE_JOINED_UNTAINTED": "The node is in the cluster without the taint of the uncertified: it takes jobs that "
    "nobody has admitted it for. It was not registered. Cordon it, see who lifted the taint, then run bringup again.",
    "NODE_GONE": "A node that was let in is no member of the pool any more: deleted, or it came back under another "
    "name.",
    "NODE_SHUT": "A node that was let in takes no jobs any more: somebody, or the doorkeeper, took it out while its "
    "wave was watched. The message has their reason.",
    "NODE_NOT_READY": "The kubelet of the node reports that it is not ready, or reports nothing. Look at its journal.",
    "NODE_HELD": "Another controller has the node in hand: a health agent's quarantine or a driver upgrade. It is "
    "theirs until they let it go.",
    "NODE_CORDONED": "Somebody else made the node unschedulable. Whoever did makes it schedulable again.",
    "GPUS_LOST": "The device plugin gives out fewer GPUs than the node has: it holds one or more for bad. rackproof "
    "facts NODE shows what the driver says.",
    "PODS_FAIL": "A pod failed on the node while its wave was watched. Read its log before the node: a program's own "
    "fault looks the same from here.",
    "SMOKE_FAILED": "The small collective over the wave ran and its data were wrong, or a rank died. The wave was "
    "taken back out; its output is kept. Burn the nodes in again: rackproof burnin RACK.",
    "SMOKE_UNDECIDED": "The small collective over the wave did not run, or nobody saw its end. The wave was taken "
    "back out. Look at its Job or job, then run the same command again.",
    "CERTIFICATE_NOT_ACCEPTED": "The certificate is good and says that something was not verified which this pool's "
    "policy does not accept. Verify it, or let the site accept it: accepts, in pools/SITE.yml.",
    "NODE_DOWN": "Slurm has the node as down or in an error state. The message has its reason, by whom.",
    "NODE_NOT_RESPONDING": "slurmd of the node does not answer slurmctld; after SlurmdTimeout it is down.",
    "NODE_FAILING": "Slurm has the node as FAIL, by an administrator's word or a failure manager's: theirs to settle.",
    "NODE_UNCERTIFIED": "In Slurm the node takes jobs, and no certificate lets it: somebody resumed it by hand.",
    "FEATURES_LOST": "slurmctld has forgotten the node's features, so jobs that ask for a certified node do not find "
    "it. rackproof admit RACK writes them again.",
    "FEATURES_EDITED": "The node's features are not those of our record: somebody changed one of the two.",
    "JOB_LOST_NODE": "A job ended because this node did (NODE_FAIL, BOOT_FAIL). Look at its log and its BMC's.",
    "CONDITION": "A health agent of the cluster set a condition on the node; the word after CONDITION_ is its type. "
    "rackproof waits for it and does not judge by it.",
    "EVENT": "An event on the node tells of its hardware or kernel; the word after EVENT_ is its reason. The kernel's "
    "log has the rest.",
}
