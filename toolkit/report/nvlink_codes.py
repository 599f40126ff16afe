"""What codes of the NVLink verdict mean and what to do. Codes that are gates' too explain themselves."""

from __future__ import annotations

_WAITED = "It was looked at until the profile's `fabric_wait` was over. "
_SWITCH_SIDE = "Look at the switch side: `nv show cluster`, `nv show cluster apps`, `nv show sdn partition`."

NVLINK_CODES = {
    # The GPUs' fabric blocks
    "FABRIC_UNREADABLE": "nvidia-smi showed no fabric block, or no state in it: no verdict, and never a pass. Run "
    "`nvidia-smi -q -x` on the node.",
    "FABRIC_IN_PROGRESS": f"GPUs wait for the NVLink fabric. {_WAITED}{_SWITCH_SIDE} GPU resets do not help.",
    "FABRIC_NOT_STARTED": f"GPUs were never asked into the NVLink fabric. {_WAITED}{_SWITCH_SIDE}",
    "FABRIC_REFUSED": "GPUs completed with a status that is not Success. " + _SWITCH_SIDE,
    "FABRIC_INSUFFICIENT_RESOURCES": "Completed with Insufficient Resources is a failure: limits of the partition or "
    "of multicast, or NMX-C without all its files. Inspect `nv show sdn partition`.",
    "FABRIC_UUID_ZERO": "On an NVL72 rack a zero cluster UUID means that the GPU is in no NVLink domain. "
    + _SWITCH_SIDE,
    "FABRIC_CLIQUE_ZERO": "The GPU is in the domain and in no partition of it. " + _SWITCH_SIDE,
    "FABRIC_TWO_DOMAINS": "Two cluster UUIDs in one rack: the cluster is enabled on two switch trays, or a tray is "
    "cabled to another rack.",
    "FABRIC_PARTITIONS_MERGED": "Partitions that the rack file keeps apart share a clique. One of the two is wrong.",
    "FABRIC_HEALTH_UNREAD": "The fabric's health masks were not shown: they need driver 550 or newer, and nvidia-smi "
    "of the same release.",
    "FABRIC_ROUTE_UNHEALTHY": "A GPU's route is unhealthy: findings about its links name the part.",
    "FABRIC_ROUTE_RECOVERY": f"A route recovery did not end. {_WAITED}{_SWITCH_SIDE}",
    "FABRIC_ACCESS_TIMEOUT": f"An access-timeout recovery did not end. {_WAITED}{_SWITCH_SIDE}",
    "FABRIC_MISCONFIGURED": "The GPU reports an incorrect configuration of the fabric, in the words of the message.",
    "FABRIC_UNHEALTHY": "The GPU's fabric summary is Unhealthy or Limited Capacity: its links name the part.",
    "GPU_MISSING": "Fewer GPUs answer than planned. The PCI address that nvidia-smi does not list names the GPU.",
    "RACK_INCOMPLETE": "An NVLink domain is judged as a whole, and some trays could not be looked at. Bring them here.",
    # Mode
    "MODE_CONTRADICTED": "GPUs or services contradict the profile's mode. Correct the profile, or the machine in the "
    "slot. A mode is stated, never guessed from a name.",
    "SERVICES_UNREAD": "Services of the node were not read: systemctl show on the node.",
    "MODULES_UNREAD": "Kernel modules or packages of the node were not read.",
    "NVLSM_MODULES_MISSING": "Without ib_umad and mlx5_ib the fabric manager of B200 and B300 takes the switch for an "
    "older one (`Detected Pre-NVL5 system`), and the fabric stays In Progress. Load them, restart it.",
    "NVLSM_MISSING": "The fabric manager of B200 and B300 needs the package nvlsm.",
    "FM_PRE_NVL5": "The fabric manager took an NVLink 5 switch for an older one: load ib_umad and mlx5_ib, restart it.",
    "FM_VERSION_SKEW": "Fabric manager and driver are of two versions: pin both to one.",
    "FM_TOPOLOGY_UNKNOWN": "An NVSwitch is missing: `lspci -d 10de:` counts them. The board goes to service.",
    "FM_NVSWITCH_FATAL": "The fabric manager met a fatal NVSwitch error; the kernel log's SXid names switch and port.",
    "FM_MULTICAST_GPU_LOST": "A GPU left its multicast team: look for its Xid and its links.",
    # IMEX
    "IMEX_PRESENT": "nvidia-imex runs on the host where it must not: under ComputeDomains it makes NV_ERR_IN_USE. "
    "Disable and mask it.",
    "IMEX_NOT_MASKED": "nvidia-imex is off and not masked: a package's update starts it. Mask it.",
    "IMEX_UNREAD": "The IMEX domain was not read: `nvidia-imex-ctl -N -j`. `-q` speaks of the tray alone.",
    "IMEX_DOMAIN_WAITS": "IMEX daemons wait for one another. " + _WAITED + "`nvidia-imex-ctl -N` shows who for whom.",
    "IMEX_NODES_DIFFER": "nodes_config.cfg is not the same on all trays: same lines, same order, then restart.",
    "IMEX_NODES_UNREAD": "nodes_config.cfg was not read on every tray: whether all have the same is not known.",
    "IMEX_NODES_WRONG": "The IMEX domain has other trays than the plan. nodes_config.cfg comes from the plan.",
    "IMEX_PORT_BLOCKED": "A peer is UNAVAILABLE with an empty version while its daemon runs: TCP port 50005 is shut. "
    "Open 50000 and 50005 on every tray. No part is at fault.",
    "IMEX_PEERS_APART": "All peers answer and some are not connected: TCP port 50000 is shut.",
    "IMEX_PEER_DOWN": "A peer's IMEX does not run: the finding of that tray says why.",
    "IMEX_PEER_UNREAD": "A peer is missing from the domain and could not be asked. Bring that tray here.",
    "IMEX_VERSION_WRONG": "IMEX is of another version than the driver and aborts. Correct the pin.",
    # The switch side
    "SWITCH_UNREAD": "NVUE of a switch tray refused us, was silent, or answered something else than its state. The "
    "message says which. Nothing is taken for healthy that was not read.",
    "SWITCH_UNHEALTHY": "A switch tray reports itself not OK. The compute trays are not at fault; service that tray.",
    "SWITCH_FIRMWARE_SKEW": "Switch trays are of two firmware releases. Bring them to one.",
    "NMX_CLUSTER_OFF": "The cluster is enabled on no switch tray: nobody manages the NVLink domain.",
    "NMX_CLUSTER_TWICE": "The cluster is enabled on two switch trays. Which one goes is for a person to decide: it "
    "stops the control plane of whatever it manages.",
    "NMX_CLUSTER_UNREAD": "A switch tray that could not be read may have the cluster enabled: none is enabled "
    "elsewhere until it is known. Reach its NVUE.",
    "NMX_NOT_CONNECTED": f"The control tray has no connection to NMX-C. {_WAITED}{_SWITCH_SIDE}",
    "NMX_APP_NOT_OK": f"A cluster application is not ok. {_WAITED}Logs: /var/log/nmx/nmx-c on the switch tray.",
    "NMX_APP_MISSING": "A cluster application is not listed: `nv show cluster apps installed`.",
    "CHASSIS_MAPPING_MISSING": "The chassis has no number: `nv action update cluster chassis-id N`.",
    "NMX_PARTITION_WRONG": "The NVLink partitions do not have the planned number of GPUs. A GPU that is missing has no "
    "NVLink; or the rack file's `partitions` are not what was set.",
    "NMX_PARTITION_DEGRADED": "GPUs of a partition are parked without NVLink: findings about links name the part.",
    "NMX_PARTITION_UNHEALTHY": "A partition does not work: a switch is lost, or the controller asks for a person.",
    # Links
    "NVLINK_UNREAD": "A GPU did not show all its links: `nvidia-smi nvlink -s` on the node.",
    "NVLINK_ALL_DOWN": "Every link of the rack is down: power of the switch trays, or no control plane. No one part.",
    "NVLINK_SWITCH_DOWN": "All links of one switch tray are down: that tray.",
    "NVLINK_CHIP_DOWN": "The same link of every GPU is down: one chip of one switch tray.",
    "NVLINK_TRAY_DOWN": "All links of all GPUs of a tray are down: the tray, or how it is seated.",
    "NVLINK_GPU_DOWN": "All links of one GPU are down: reset it once when nothing uses it, then exchange it.",
    "NVLINK_CABLE": "Both ends say that the link is down: the cable cartridge between them. Reseat, then exchange.",
    "NVLINK_GPU_PORT": "Only the GPU's end is down: the compute tray, once a reset of the GPU did not help.",
    "NVLINK_SWITCH_PORT": "Only the switch's end is down: the switch tray, where the fault stays with its port.",
    "NVLINK_PORT_CLOSED": "A switch port was closed by a command. Open it; nothing is pulled.",
    "NVLINK_PORT_PENDING": "The switch still looks for what is wrong with a port. Read it again in a minute.",
}
