"""The packages of a virtual node: names and versions of the metal's, and what is in each."""

from __future__ import annotations

from dataclasses import dataclass, field

from toolkit.virtual.device_libraries import CUDA, NVML, Library

_NCCL_PROGRAMS = (
    "all_reduce_perf", "all_gather_perf", "reduce_scatter_perf", "alltoall_perf", "sendrecv_perf", "broadcast_perf",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Package:
    """One .deb: programs as (path on the node, module:function), units as (name, text), configuration as (path, text),
    tools as names of real InfiniBand programs, which it wraps.

    `version` is what it has where the rack's lock does not name it; `depends` comes on top of the runtime.
    """

    name: str
    version: str
    summary: str
    programs: tuple[tuple[str, str], ...] = ()
    libraries: tuple[Library, ...] = ()
    units: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    depends: tuple[str, ...] = field(default=())
    tools: tuple[str, ...] = ()


def _unit(description: str, command: str, extra: str = "") -> str:
    """A systemd unit whose service says itself when it is up."""
    return (
        f"[Unit]\nDescription={description}\nAfter=network.target\n\n"
        f"[Service]\nType=notify\nExecStart={command}\n{extra}\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )


_FABRIC_CONFIG = """# NVIDIA Fabric Manager configuration
LOG_LEVEL=4
LOG_FILE_NAME=/var/log/fabricmanager.log
DAEMONIZE=1
BIND_INTERFACE_IP=127.0.0.1
STARTING_TCP_PORT=16000
FABRIC_MODE=0
FM_STAY_RESIDENT_ON_FAILURES=0
ABORT_CUDA_JOBS_ON_FM_EXIT=1
"""
_IMEX_CONFIG = """LOG_LEVEL=4
LOG_FILE_NAME=/var/log/nvidia-imex.log
SERVER_PORT=50000
IMEX_CMD_PORT=50005
IMEX_CMD_ENABLED=1
IMEX_NODE_CONFIG_FILE=/etc/nvidia-imex/nodes_config.cfg
IMEX_WAIT_FOR_QUORUM=RECOVERY
"""
# DOCA-OFED calls the service opensmd, Debian opensm.
_OPENSM_UNIT = """[Unit]
Description=OpenSM InfiniBand subnet manager
Documentation=man:opensm(8)
After=network.target

[Service]
Type=simple
ExecStart=/usr/sbin/opensm -F /etc/opensm/opensm.conf -f /var/log/opensm.log -d 0x2
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=5

[Install]
WantedBy=multi-user.target
Alias=opensmd.service
"""
_OPENSM_CONFIG = "# opensm -c FILE writes all settings with their defaults. What is not here has its default.\n"
# As in the packages of pkgs.k8s.io. KillMode: there a container's processes are containerd's, and outlive the kubelet.
_KUBELET_UNIT = """[Unit]
Description=kubelet: The Kubernetes Node Agent
Documentation=https://kubernetes.io/docs/
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/usr/bin/kubelet $KUBELET_EXTRA_ARGS
EnvironmentFile=-/etc/default/kubelet
Restart=always
StartLimitInterval=0
RestartSec=10
KillMode=process

[Install]
WantedBy=multi-user.target
"""
_KUBEADM_DROP_IN = """# Note: This dropin only works with kubeadm and kubelet v1.11+
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf \
--kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
"""
# Entry point of the image of this name: every rank by itself, as pods here have no network of their own.
_SMOKE = "exec /usr/bin/all_reduce_perf -b 1M -e 8M -f 2 -g 8\n"

PACKAGES = (
    Package(
        "nvidia-driver-580-open", "580.95.05", "NVML, CUDA driver, nvidia-smi, persistence daemon",
        programs=(
            ("usr/bin/nvidia-smi", "nvidia_smi:main"),
            ("usr/bin/nvidia-persistenced", "services:persistenced"),
        ),
        libraries=(NVML, CUDA),
        units=(
            ("nvidia-persistenced.service",
             _unit("NVIDIA Persistence Daemon", "/usr/bin/nvidia-persistenced --verbose")),
        ),
    ),
    Package("libnvidia-nscq", "580.95.05", "NVSwitch queries"),
    Package("nvidia-modprobe", "580.95.05", "loads the driver's modules"),
    Package("nv-persistence-mode", "1.0", "persistence mode at boot", depends=("nvidia-driver-580-open",)),
    Package(
        "nvidia-fabricmanager", "580.95.05", "programs the NVSwitches",
        programs=(("usr/bin/nv-fabricmanager", "services:fabric_manager"),),
        units=(
            ("nvidia-fabricmanager.service",
             _unit("NVIDIA fabric manager service",
                   "/usr/bin/nv-fabricmanager -c /usr/share/nvidia/nvswitch/fabricmanager.cfg")),
        ),
        files=(("usr/share/nvidia/nvswitch/fabricmanager.cfg", _FABRIC_CONFIG),),
    ),
    Package("nvlsm", "2025.10.11", "subnet manager of NVLink 5"),
    Package("libnvsdm", "580.95.05", "NVLink 5 switches, for the fabric manager"),
    Package(
        "nvidia-imex", "580.95.05", "memory sharing between nodes of an NVLink domain",
        programs=(("usr/bin/nvidia-imex", "imex:daemon"), ("usr/bin/nvidia-imex-ctl", "imex:control")),
        units=(
            ("nvidia-imex.service",
             _unit("NVIDIA IMEX service", "/usr/bin/nvidia-imex -c /etc/nvidia-imex/config.cfg")),
        ),
        files=(("etc/nvidia-imex/config.cfg", _IMEX_CONFIG), ("etc/nvidia-imex/nodes_config.cfg", "")),
    ),
    Package(
        "datacenter-gpu-manager-4-cuda13", "4.6.0", "DCGM's daemon",
        programs=(("usr/bin/nv-hostengine", "services:host_engine"),),
        units=(("nvidia-dcgm.service", _unit("NVIDIA DCGM service", "/usr/bin/nv-hostengine -n")),),
    ),
    Package("nccl-tests", "2.17.9", "collectives of one node",
            programs=tuple((f"usr/bin/{name}", "nccl_tests:main") for name in _NCCL_PROGRAMS)),
    Package(
        "infiniband-diags", "3.2.1", "ibstat, and the real diagnostics over the rack's fabric",
        programs=(("usr/sbin/ibstat", "ibstat:main"),),
        tools=(
            "ibaddr", "ibhosts", "iblinkinfo", "ibnetdiscover", "ibping", "ibportstate", "ibqueryerrors", "ibroute",
            "ibswitches", "ibtracert", "perfquery", "saquery", "sminfo", "smpquery",
        ),
    ),
    Package(
        "opensm", "3.3.23", "the real subnet manager over the rack's fabric",
        units=(("opensm.service", _OPENSM_UNIT),),
        files=(("etc/opensm/opensm.conf", _OPENSM_CONFIG),),
        depends=("infiniband-diags", "libwrap0"),
        tools=("opensm",),
    ),
    Package("ibverbs-utils", "2510.0.1", "ibv_devinfo", programs=(("usr/bin/ibv_devinfo", "ibv_devinfo:main"),)),
    Package("mft", "4.34.1", "settings in adapter firmware", programs=(("usr/bin/mlxconfig", "mlxconfig:main"),)),
    Package("doca-ofed", "3.2.1", "InfiniBand drivers and tools", depends=("infiniband-diags", "ibverbs-utils", "mft")),
    Package(
        "containerd.io", "2.1.5", "container runtime's daemon",
        programs=(("usr/bin/containerd", "services:containerd"),),
        units=(("containerd.service", _unit("containerd container runtime", "/usr/bin/containerd")),),
    ),
    Package(
        "kubelet", "1.34.3", "Kubernetes node agent",
        programs=(("usr/bin/kubelet", "kubelet:main"),),
        units=(("kubelet.service", _KUBELET_UNIT),),
        files=(("usr/lib/rackproof-virtual/images/nccl-smoke", _SMOKE),),
        depends=("openssl", "python3-yaml"),
    ),
    Package(
        "kubeadm", "1.34.3", "lets a node join a Kubernetes cluster",
        programs=(("usr/bin/kubeadm", "kubeadm:main"),),
        files=(("usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", _KUBEADM_DROP_IN),),
        depends=("kubelet",),
    ),
)  # fmt: skip
