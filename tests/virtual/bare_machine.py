"""A machine with nothing on it but the node image's programs: root, mounts, process ids and host name of its own.

kubeadm and the kubelet find /etc/kubernetes and /var/lib/kubelet as on a node; what they write is gone with it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_REPOSITORY = Path(__file__).parents[2]
_BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay none -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
for d in sys dev; do mount --rbind /$d "$1/root/$d"; done
mount -t proc proc "$1/root/proc"
hostname "$2"
exec chroot "$1/root" /bin/sh -c 'cd /; touch /booted; while :; do sleep 86400 & wait; done'
"""
# As systemd does with kubelet.service and kubeadm's drop-in: started anew whenever it ends, but not before kubeadm,
# which has stopped it meanwhile, has written the last of its files.
_KUBELET = """
while :; do
  until [ -e /var/lib/kubelet/kubeadm-flags.env ]; do sleep 0.1; done
  . /var/lib/kubelet/kubeadm-flags.env
  {python} -m toolkit.virtual.devices.kubelet --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf \\
    --kubeconfig=/etc/kubernetes/kubelet.conf --config=/var/lib/kubelet/config.yaml --node-ip=127.0.0.1 \\
    $KUBELET_KUBEADM_ARGS >>/var/log/kubelet 2>&1
  sleep 0.2
done
"""


@dataclass(frozen=True)
class BareMachine:
    """One that is on. `pid`: its first process, as the host sees it."""

    pid: int

    def run(self, *argv: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Runs a program on it to its end."""
        return subprocess.run(self._enter(*argv), input=given, capture_output=True, text=True, timeout=60, check=False)

    def kubeadm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The stand-in."""
        return self.run(sys.executable, "-m", "toolkit.virtual.devices.kubeadm", *arguments)

    def start_kubelet_service(self) -> None:
        """Enables kubelet.service, so to say."""
        script = _KUBELET.replace("{python}", sys.executable)
        subprocess.Popen(self._enter("/bin/sh", "-c", script), stdin=subprocess.DEVNULL)

    def write(self, path: str, text: str) -> None:
        """A file of root's, 0600."""
        done = self.run("/bin/sh", "-c", f"umask 077; mkdir -p $(dirname {path}); cat > {path}", given=text)
        assert done.returncode == 0, done.stderr

    def read(self, path: str) -> str:
        """A file's text; empty where there is none."""
        return self.run("cat", path).stdout

    def _enter(self, *argv: str) -> list[str]:
        into = ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--pid", "--root", "--wd"]
        # The variable that other tests of this process leave says that the hardware lies elsewhere.
        return [*into, "--", "env", "--unset=RACKPROOF_HARDWARE", f"PYTHONPATH={_REPOSITORY}", *argv]


@contextmanager
def bare_machine(folder: Path, name: str) -> Iterator[BareMachine]:
    """Switched on for the block; everything of it dies with it, or with this thread."""
    folder.mkdir(parents=True)
    argv = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--"]
    process = subprocess.Popen([*argv, "/bin/sh", "-c", _BOOT, "boot", str(folder), name])
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        end = time.monotonic() + 20
        while True:
            assert process.poll() is None, "the machine does not boot"
            assert time.monotonic() < end, "the machine is not on after 20 s"
            pids = children.read_text().split()
            if pids and BareMachine(int(pids[0])).run("test", "-e", "/booted").returncode == 0:
                break
            time.sleep(0.05)
        yield BareMachine(int(pids[0]))
    finally:
        process.kill()
        process.wait()
