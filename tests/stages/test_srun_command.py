"""What Slurm's programs are told, and what they print, read: no Slurm is needed."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from toolkit.errors import InputError, UndecidedError, UsageError
from toolkit.facts import nccl_tests
from toolkit.facts.nccl_run import Outcome
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Disk, Gpu, Host, Slurm, Unit, UnitKind
from toolkit.stages import srun_command
from toolkit.stages.mpi_command import Order
from toolkit.stages.srun_command import Held, Seat

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "/var/lib/rackproof/collectives/c1"
DISK = Disk("/dev/nvme0n1", "D")
# as srun 22.05.8 of Debian 12 prints it, on standard output
OFFERED = b"""MPI plugin types are...
\tpmix
\tnone
\tcray_shasta
\tpmi2
specific pmix plugin versions available: pmix_v4
"""


def node(number: int) -> Unit:
    """A node with a host and eight GPUs."""
    gpus = tuple(Gpu(index, None) for index in range(8))
    return Unit(
        f"node{number}", UnitKind.NODE, f"S{number}", number, host=Host(f"10.0.0.{number}", "", DISK), gpus=gpus
    )


ORDER = Order("c1", "alltoall", (node(3), node(1)), 2, 600.0)


def test_nodes_are_taken_whole_and_ranks_placed_in_order() -> None:
    """salloc with Slurm's own end after ours, then srun in it: names, ranks, PMIx, no environment but the one given."""
    slurm = Slurm(gres="gpu", partition="burnin", account="ops", reservation="certify")
    command = srun_command.command(ORDER, slurm, FOLDER, Seat("pmix"))
    at = command.index("/usr/bin/srun")
    allocation, step = shlex.join(command[:at]), shlex.join(command[at:])
    for words in ("/usr/bin/salloc --job-name=c1 --nodes=2 --nodelist=node3,node1 --exclusive --mem=0",
                  "--gres=gpu:8", "--time=11 ", "--immediate=30 ",
                  "--partition=burnin --account=ops --reservation=certify"):  # fmt: skip
        assert words in f"{allocation} "
    for words in ("--mpi=pmix --job-name=c1", "--nodes=2 --ntasks=4 --distribution=arbitrary", "--gres=gpu:8",
                  f"--nodelist={FOLDER}/ranks", "--kill-on-bad-exit=1", "--export=HOME,NCCL_DEBUG,"):  # fmt: skip
        assert words in step
    assert "--unbuffered" not in step and "ALL" not in shlex.join(command) and "SLURM_CONF" not in step
    assert step.endswith("/usr/bin/alltoall_perf -b 131072 -e 8589934592 -f 2 -g 1 -n 20 -c 1")
    assert srun_command.ranks(ORDER) == "node3\nnode3\nnode1\nnode1\n"


def test_a_job_that_holds_the_nodes_is_used_and_no_other_is_taken() -> None:
    """A step beside other steps; what the order sets is set last, for the GPUs' plugin sets the same."""
    order = replace(ORDER, environment={"CUDA_VISIBLE_DEVICES": "3"}, beside="rails")
    step = srun_command.command(order, Slurm(allocation="held"), FOLDER, Seat("pmix", 12))
    assert step[:2] == ("/usr/bin/srun", "--jobid=12") and "--overlap" in step
    assert shlex.join(step[-15:-12]) == "/usr/bin/env CUDA_VISIBLE_DEVICES=3 /usr/bin/alltoall_perf"


def test_tests_side_by_side_need_a_job_that_holds_their_nodes() -> None:
    """Each would wait for the others' nodes, and its deadline would pass."""
    order = replace(ORDER, beside="rails")
    with pytest.raises(UsageError, match="Slurm gives a node to one job"):
        srun_command.checked(order, Slurm())
    srun_command.checked(order, Slurm(allocation="held"))


def test_mpi_speaks_over_tcp_and_slurms_configuration_is_not_the_ranks() -> None:
    """What mpirun is told by options; SLURM_CONF is for srun alone."""
    slurm = Slurm(config="/opt/slurm/slurm.conf", programs="/opt/slurm/bin")
    found = srun_command.environment(replace(ORDER, network="10.0.0.0/24"), slurm, FOLDER)
    assert (found["OMPI_MCA_pml"], found["OMPI_MCA_btl"]) == ("ob1", "tcp,self")
    assert found["OMPI_MCA_btl_tcp_if_include"] == "10.0.0.0/24"
    assert found["SLURM_CONF"] == "/opt/slurm/slurm.conf" and found["PATH"] == "/opt/slurm/bin:/usr/bin:/bin"
    (export,) = [w for w in srun_command.command(ORDER, slurm, FOLDER, Seat("pmix")) if w.startswith("--export=")]
    assert "OMPI_MCA_btl" in export and "SLURM_CONF" not in export


@pytest.mark.parametrize(
    ("said", "chosen"),
    [
        (OFFERED, "pmix"),
        (b"srun: MPI types are...\nsrun: none\nsrun: pmix_v2\nsrun: pmix_v3\nsrun: pmi2\n", "pmix_v3"),
        (b"srun: MPI types are...\nsrun: pmix_v4\nsrun: pmix\n", "pmix"),
    ],
)
def test_the_pmix_that_srun_offers_is_chosen(said: bytes, chosen: str) -> None:
    """Its own default, or the highest version."""
    assert srun_command.plugin(said, "node1") == chosen


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"MPI plugin types are...\n\tnone\n\tpmi2\n", "it offers none, pmi2"),
        (b"srun: fatal: Could not establish a configuration source\n", "it says srun: fatal: Could not establish"),
        (b"", "it says nothing"),
    ],
)
def test_an_srun_without_pmix_is_refused_with_what_it_offers(said: bytes, words: str) -> None:
    """Before anything is started: the ranks would not find one another."""
    with pytest.raises(UndecidedError, match=words) as caught:
        srun_command.plugin(said, "node1")
    assert "no PMIx" in str(caught.value) and "PMIx plugin on all nodes" in caught.value.hint


def test_a_pmix_that_is_offered_and_cannot_be_loaded_is_the_launchers_error() -> None:
    """Debian's plugin without libpmix-dev: it is on the list all the same. srun 22.05.8's own words."""
    said = (
        "salloc: Granted job allocation 1\n"
        "srun: error:  mpi/pmix_v4: init: (null) [0]: mpi_pmix.c:195: pmi/pmix: can not load PMIx library\n"
        "srun: error: Invalid MPI type 'pmix', --mpi=list for acceptable types\n"
        "salloc: Relinquishing job allocation 1\n"
    )
    assert nccl_tests.parse(said).outcome is Outcome.LAUNCHER_ERROR


def test_nodes_that_take_no_job_are_named_with_slurms_reason() -> None:
    """Every state but those that take one; a node that does not answer has a star."""
    said = b"node1|idle|none\nnode2|drained|bad cable | rail 3\nnode3|down*|Not responding\nnode4|mixed|none\n"
    said += b"node5|idle*|none\nnode6|draining|none\nnot a line\n"
    assert srun_command.unfit(said) == (
        "Slurm has node2 as drained: bad cable | rail 3",
        "Slurm has node3 as down*: Not responding",
        "Slurm has node5 as idle*",
        "Slurm has node6 as draining",
    )


def test_the_queue_is_read_and_what_is_no_line_of_it_left_out() -> None:
    """Jobs and steps; an identity goes to scancel, so that nothing but digits is taken for one."""
    said = b"12|c1|RUNNING|node[1-2]\n12.0|c1|STEP|node1\n--all|c1|RUNNING|node1\nslurm_load_jobs error: x\n"
    assert srun_command.queue(said) == (
        Held("12", "c1", "RUNNING", "node[1-2]"),
        Held("12.0", "c1", "STEP", "node1"),
    )


def test_a_rack_says_that_slurm_starts_its_collectives(tmp_path: Path) -> None:
    """A field of the rack file; its topology, which certificates bind, is the same."""
    text = (ROOT / "inventory/racks/demo.yml").read_text()
    plain = load_rack("demo", ROOT / "inventory")
    assert plain.slurm is None
    file = tmp_path / "demo.yml"
    file.write_text(f"{text}\nslurm:\n  allocation: rackproof-demo\n  gres: gpu\n")
    rack = load_rack(str(file), ROOT / "inventory")
    assert rack.slurm == Slurm(allocation="rackproof-demo", gres="gpu") and rack.digest == plain.digest
    file.write_text(f"{text}\nslurm: {{partition: a b}}\n")
    with pytest.raises(InputError, match="a name as Slurm has it"):
        load_rack(str(file), ROOT / "inventory")
