"""`rackproof parse KIND FILE`: files an operator brings."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.errors import InputError, UsageError
from toolkit.facts.parse import MAX_BYTES, parse_file, read_file

CASES = Path(__file__).parent / "cases"


def test_a_file_is_parsed_to_its_json(tmp_path: Path) -> None:
    """The answer is the parser's, as it goes to --json."""
    file = tmp_path / "kern.log"
    file.write_text("NVRM: Xid (PCI:0000:3f:00): 46\n")
    assert parse_file("kernel-log", file)["xids"] == [{"xid": 46, "pci": "0000:3f:00"}]


def test_an_unknown_kind_names_the_known_ones(tmp_path: Path) -> None:
    """The operator sees what can be asked for."""
    with pytest.raises(UsageError, match="kernel-log, nccl-tests"):
        parse_file("dmseg", tmp_path)


@pytest.mark.parametrize(
    ("content", "wrong"),
    [(b"x" * (MAX_BYTES + 1), "larger than"), (b"\x7fELF\x00\x00", "binary"), (None, "cannot be read")],
    ids=["too large", "binary", "missing"],
)
def test_a_file_that_is_no_text_is_refused_by_name(tmp_path: Path, content: bytes | None, wrong: str) -> None:
    """Too large, binary and missing files are named, with what is wrong."""
    file = tmp_path / "out.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=wrong) as caught:
        parse_file("nccl-tests", file)
    assert caught.value.problems[0].file == str(file)


def test_a_log_of_nccl_is_parsed_to_its_ways(tmp_path: Path) -> None:
    """Ways with the pairs that take them; a log that names none is a doubt, and 8 MiB of it are read."""
    file = tmp_path / "nccl.txt"
    said = "n1:1:2 [0] NCCL INFO "
    file.write_text(
        f"{said}comm 0x1 rank 0 nRanks 2 nNodes 1 localRanks 2\n{said}Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM/read\n"
        + f"{said}Channel 01/0 : 1[1] -> 0[0] [send] via NET/Socket/0\n{said}more\n" * 80_000
    )
    assert file.stat().st_size > MAX_BYTES
    assert parse_file("nccl-transport", file) == {
        "transport": "Socket", "ranks": 2, "nodes": 1, "nvls": False, "collnet": False,
        "ways": {"NET/Socket": 1, "P2P/CUMEM": 1},
    }  # fmt: skip
    file.write_text("NCCL version 2.28\n")
    assert read_file("nccl-transport", file).doubts == ("no line names a way between two ranks",)


def test_xml_that_breaks_off_is_refused_with_its_line(tmp_path: Path) -> None:
    """A report cut by a deadline is no report."""
    whole = (CASES / "nvidia-smi" / "two_gpus" / "input.txt").read_text()
    file = tmp_path / "smi.xml"
    file.write_text(whole[: whole.index("</nvidia_smi_log>") - 100])
    with pytest.raises(InputError, match="was cut"):
        parse_file("nvidia-smi", file)


@pytest.mark.parametrize(
    "declaration",
    ['<!DOCTYPE nvidia_smi_log [<!ENTITY a "b">]>', '<!DOCTYPE nvidia_smi_log [<!ENTITY % p SYSTEM "file:///etc/passwd">]>'],
)  # fmt: skip
def test_xml_with_entities_is_refused(tmp_path: Path, declaration: str) -> None:
    """No entity is expanded, no file is fetched."""
    file = tmp_path / "smi.xml"
    file.write_text(f"<?xml version='1.0'?>{declaration}<nvidia_smi_log>&a;</nvidia_smi_log>")
    with pytest.raises(InputError, match="entity"):
        parse_file("nvidia-smi", file)


def test_xml_deeper_than_any_report_is_refused(tmp_path: Path) -> None:
    """A document made to exhaust the reader ends at a bound."""
    file = tmp_path / "smi.xml"
    file.write_text("<nvidia_smi_log>" + "<a>" * 10_000 + "</nvidia_smi_log>")
    with pytest.raises(InputError, match="deeper"):
        parse_file("nvidia-smi", file)


def test_lines_that_were_not_understood_are_doubts(tmp_path: Path) -> None:
    """An Xid in no known form is not silence: it is told beside the answer."""
    file = tmp_path / "kern.log"
    file.write_text("NVRM: Xid (PCI:0000:66:00): abc, pid=2280636\n")
    assert read_file("kernel-log", file).doubts == ("not understood: NVRM: Xid (PCI:0000:66:00): abc, pid=2280636",)


def test_a_report_with_secrets_in_it_gives_none_of_them(tmp_path: Path) -> None:
    """nccl-tests writes its environment into its JSON report; nothing of it comes out."""
    found = str(parse_file("nccl-tests", CASES / "nccl-tests" / "json_report" / "input.txt"))
    assert "hunter2" not in found
    assert "SECRET_TOKEN" not in found
