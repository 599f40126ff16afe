"""The command lines of the control plane's programs. Flags that a version no longer has are left out of its own."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from toolkit.virtual.control_plane.binaries import Binaries
from toolkit.virtual.control_plane.layout import PlaneLayout, PlaneOptions
from toolkit.virtual.control_plane.processes import Component
from toolkit.virtual.programs import run

ETCD, APISERVER, CONTROLLERS, SCHEDULER = "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"
ETCD_HOST = "127.0.0.1"
ISSUER = "https://kubernetes.default.svc.cluster.local"
SERVICES = "10.96.0.0/16"
FIRST_SERVICE = "10.96.0.1"  # `kubernetes`, as pods reach it
# Of the controllers and the scheduler, as far as a version has them. Until 1.23 their insecure port was open on every
# address; their own limit of 20 requests a second makes the controllers' start five seconds longer.
_WHERE_KNOWN = ("--port=0", "--kube-api-qps=500", "--kube-api-burst=1000")


def etcd(binaries: Binaries, layout: PlaneLayout, options: PlaneOptions) -> Component:
    """One member on loopback that knows its clients, and itself, by certificate only."""
    client = f"https://{ETCD_HOST}:{options.etcd_port}"
    peer = f"https://{ETCD_HOST}:{options.etcd_peer_port}"
    certificate, key = layout.certificate(ETCD), layout.key(ETCD)
    argv = [
        "--name=default",
        f"--data-dir={layout.data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        f"--cert-file={certificate}",
        f"--key-file={key}",
        "--client-cert-auth",
        f"--trusted-ca-file={layout.ca}",
        f"--peer-cert-file={certificate}",
        f"--peer-key-file={key}",
        "--peer-client-cert-auth",
        f"--peer-trusted-ca-file={layout.ca}",
    ]
    argv += [] if options.durable else ["--unsafe-no-fsync"]
    return _component(ETCD, binaries.etcd, argv, layout)


def apiserver(binaries: Binaries, layout: PlaneLayout, options: PlaneOptions) -> Component:
    """The API server: nodes and RBAC decide, kubelets are kept to their own, secrets are encrypted, changes audited."""
    argv = [
        f"--etcd-servers=https://{ETCD_HOST}:{options.etcd_port}",
        f"--etcd-cafile={layout.ca}",
        f"--etcd-certfile={layout.certificate(APISERVER)}",
        f"--etcd-keyfile={layout.key(APISERVER)}",
        f"--bind-address={options.address}",
        f"--advertise-address={options.address}",
        f"--secure-port={options.port}",
        f"--tls-cert-file={layout.certificate(APISERVER)}",
        f"--tls-private-key-file={layout.key(APISERVER)}",
        f"--client-ca-file={layout.ca}",
        "--authorization-mode=Node,RBAC",
        f"--enable-admission-plugins={','.join(('NodeRestriction', *options.plugins))}",
        "--enable-bootstrap-token-auth=true",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={layout.key('service-accounts')}",
        f"--service-account-signing-key-file={layout.key('service-accounts')}",
        f"--service-cluster-ip-range={SERVICES}",
        "--allow-privileged=true",
        f"--kubelet-certificate-authority={layout.ca}",
        f"--kubelet-client-certificate={layout.certificate('apiserver-kubelet-client')}",
        f"--kubelet-client-key={layout.key('apiserver-kubelet-client')}",
        "--kubelet-preferred-address-types=InternalIP,Hostname",
        f"--encryption-provider-config={layout.encryption}",
        f"--audit-policy-file={layout.audit_policy}",
        f"--audit-log-path={layout.audit_log}",
        "--audit-log-maxsize=64",
        "--audit-log-maxbackup=2",
        "--profiling=false",
    ]
    # An address that no other machine reaches is no endpoint of the service `kubernetes`.
    argv += ["--endpoint-reconciler-type=none"] if ip_address(options.address).is_loopback else []
    return _component(APISERVER, binaries.apiserver, [*argv, *options.apiserver], layout)


def controllers(binaries: Binaries, layout: PlaneLayout, options: PlaneOptions) -> Component:
    """The controllers, each with a service account of its own; also those that sign for nodes that join."""
    argv = [
        f"--kubeconfig={layout.kubeconfig(CONTROLLERS)}",
        "--leader-elect=false",
        "--controllers=*,bootstrapsigner,tokencleaner",
        "--use-service-account-credentials=true",
        f"--root-ca-file={layout.ca}",
        f"--service-account-private-key-file={layout.key('service-accounts')}",
        f"--cluster-signing-cert-file={layout.ca}",
        f"--cluster-signing-key-file={layout.ca_key}",
        f"--node-monitor-grace-period={options.node_grace_s}s",
        f"--node-monitor-period={min(5, max(1, options.node_grace_s // 8))}s",
        "--secure-port=0",  # nobody asks them anything
        *_known(binaries.controller_manager),
    ]
    return _component(CONTROLLERS, binaries.controller_manager, argv, layout)


def scheduler(binaries: Binaries, layout: PlaneLayout) -> Component:
    """The scheduler."""
    argv = [
        f"--kubeconfig={layout.kubeconfig(SCHEDULER)}",
        "--leader-elect=false",
        "--secure-port=0",
        *_known(binaries.scheduler),
    ]
    return _component(SCHEDULER, binaries.scheduler, argv, layout)


def _known(program: Path) -> tuple[str, ...]:
    lines = run([str(program), "--help"]).splitlines()
    flags = {word for line in lines for word in line.split()[:1]}
    return tuple(flag for flag in _WHERE_KNOWN if flag.partition("=")[0] in flags)


def _component(name: str, program: Path, argv: list[str], layout: PlaneLayout) -> Component:
    return Component(name, (str(program), *argv), layout.log(name))
