"""Text made to be slow: a megabyte of lines on which a careless pattern would try every way to split them."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from toolkit.facts import hca_firmware, iblinkinfo, ibnetdiscover, ibqueryerrors, link_flaps, lldp, subnet

READERS: tuple[Callable[[str], object], ...] = (
    ibnetdiscover.parse, iblinkinfo.parse, ibqueryerrors.parse, subnet.parse_sminfo, subnet.parse_pkeys,
    subnet.parse_fields, subnet.parse_opensm_log, lldp.parse, hca_firmware.parse, link_flaps.parse,
)  # fmt: skip
END, PORT = (
    '[1]\t"S-0000000000000000"[1]\t\t# "',
    "CA    14  1 0x9c63c003001a0311 4x NDR - SW     3  4 0xfc6a1c0300b00100 ( '",
)
LINK = '0xfc6a1c0300b00100 "x" 1 1[  ] ==('


@pytest.mark.parametrize(
    ("head", "unit", "tail"),
    [
        (END, '" lid 1 ', ""),
        (END, '" lid 1 4xNDR a=b', "!"),
        (END + 'x" lid 1 4xNDR', " a=b", "!"),
        ('Switch\t1 "S-0000000000000000"\t\t# "', '" port 0 lid 1 lmc 0', "!"),
        (PORT, "' - '", "!"),
        (PORT, "' - 'x' )", "!"),
        ('Ca\t: 0x0000000000000000 ports 1 "', '" base port 0 lid 1 lmc 0', "!"),
        ("DR path slid 0; dlid 0; 0", " -> new ", "\x00"),
        ("umad (DR path slid 0; dlid 0; 0,", "1,", "x"),
        ('0xfc6a1c0300b00100 "', '" 1 1[  ] ', "==( 4X 106.25 Gbps Active/ LinkUp)==> !"),
        (LINK + ' 4X 106.25 Gbps Active/ LinkUp)==>  0x9c63c003001a0311 1 1[  ] "', '" (', "!"),
        (LINK, " ", "!"),
        ("   GUID 0x1 port 1:", " [A == 1]", "!"),
        ("## Thresholds: ", "[A = 1]", ""),
        ("Abc:", ".", "x"),
        ("", "mlx5_core 0000:c1:00.0 ", ""),
        ("", " ", "!"),
    ],
    ids=range(17),
)
def test_a_megabyte_of_the_worst_lines_is_read_in_seconds(head: str, unit: str, tail: str) -> None:
    """Time grows with the length of the text, for all readers together."""
    line = head + unit * ((4000 - len(head) - len(tail)) // len(unit)) + tail + "\n"
    text = line * (1_000_000 // len(line))
    began = time.process_time()
    for read in READERS:
        read(text)
    assert time.process_time() - began < 5
