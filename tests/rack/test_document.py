"""YAML is read without guessing, with places, and never at the file's mercy."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import InputError, UsageError
from toolkit.rack import document
from toolkit.rack.document import parse, read


def refused(raw: bytes):
    """The problems of a text that is refused."""
    with pytest.raises(InputError) as error:
        parse(raw, "f.yml")
    return error.value.problems


def test_plain_scalars_stay_as_they_are_written():
    """What safe_load turns into numbers and booleans is text here."""
    data = parse(b"mac: 10:20:30:40:50:59\nserial: 0123456\nfirmware: 1.10\ncountry: no\n", "f").data
    assert data == {"mac": "10:20:30:40:50:59", "serial": "0123456", "firmware": "1.10", "country": "no"}


def test_only_an_unquoted_null_is_none():
    """An empty value, ~ and null are None; the quoted word is a word."""
    assert parse(b"a: ~\nb: null\nc: 'null'\nd:\ne: ''\n", "f").data == {
        "a": None, "b": None, "c": "null", "d": None, "e": "",
    }  # fmt: skip


def test_a_place_is_line_and_column_of_value_or_key():
    """Places count from 1; a path that ends nowhere gives the nearest value around it."""
    found = parse(b"units:\n  - {name: a,\n     slot: 7}\n", "f")
    assert found.place(("units", 0, "slot")) == (3, 12)
    assert found.place(("units", 0, "slot"), of_key=True) == (3, 6)
    assert found.place(("units", 0, "serial")) == (2, 5)
    assert found.place(("units", 9, "slot")) == (2, 3)


@pytest.mark.parametrize(
    ("raw", "line", "column", "wrong"),
    [
        (b"a: 1\nb: [1\nc: 2\n", 3, 2, "not YAML"),
        (b"a: 1\nb: \xff\n", 2, 4, "not UTF-8"),
        (b"a: 1\nb: \x07\n", 2, 4, "control character"),
        (b"a: 1\n---\nb: 2\n", 2, 1, "second document"),
        (b"a: 1\na: 2\n", 2, 1, "written twice"),
        (b"a: !!python/object/apply:os.system [id]\n", 1, 4, "tag"),
        (b"a: !x 1\n", 1, 4, "tag"),
        (b"? [1, 2]\n: 3\n", 1, 3, "key"),
        (b"a: *b\n", 1, 4, "no anchor"),
        (b"a: &a [*a]\n", 1, 8, "no anchor"),
        (b"a: " + b"[" * 100_000, 1, 27, "nested deeper"),
        (b"a: " + b"x" * 5000, 1, 4, "5,000 characters"),
        (b"- x\n" * 3000, 2049, 3, "more than 2,048 entries"),
    ],
)  # fmt: skip
def test_what_is_wrong_has_its_line(raw, line, column, wrong):
    """Every refusal names where and what."""
    (problem,) = refused(raw)
    assert (problem.line, problem.column) == (line, column)
    assert wrong in problem.wrong


def test_all_duplicate_keys_are_told_at_once():
    """And each with the line of the first."""
    found = refused(b"a: 1\nb: {c: 1, c: 2}\na: 3\n")
    assert [(p.line, p.right) for p in found] == [(2, "first at 2:5"), (3, "first at 1:1")]


def test_an_anchor_is_allowed():
    """One value written once and meant twice."""
    assert parse(b"a: &x {k: v}\nb: *x\n", "f").data == {"a": {"k": "v"}, "b": {"k": "v"}}


def test_a_billion_laughs_are_refused_at_once():
    """Aliases count as what they stand for."""
    bomb = b"a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + b"".join(
        b"a%d: &a%d [%s]\n" % (i, i, b",".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 12)
    )
    began = time.process_time()
    (problem,) = refused(bomb)
    assert "aliases included" in problem.wrong
    assert time.process_time() - began < 1


def test_aliases_cannot_build_depth():
    """A ladder of aliases is as deep as what it stands for, and Python's stack is not asked to hold it."""
    ladder = b"a0: &a0 [x]\n" + b"".join(b"a%d: &a%d [*a%d]\n" % (i, i, i - 1) for i in range(1, 3000))
    assert "nested deeper" in refused(ladder)[0].wrong


def test_a_file_above_the_size_bound_is_not_read_whole(tmp_path):
    """Eight mebibytes are enough for any rack."""
    file = tmp_path / "big.yml"
    with file.open("wb") as stream:
        stream.truncate(1 << 33)
    with pytest.raises(InputError, match="larger than"):
        read(file)


def test_a_missing_file_is_the_command_line_s_fault(tmp_path):
    """Nothing is wrong in a file that is not there; a folder or a pipe is no file either."""
    for path in (tmp_path / "none.yml", tmp_path):
        with pytest.raises(UsageError):
            read(path)


def test_problems_beyond_the_limit_are_counted():
    """Twenty are shown, the others are a number."""
    problems = document.Problems(parse(b"a: 1\n", "f"))
    for _ in range(50):
        problems.add(("a",), "is wrong")
    with pytest.raises(InputError) as error:
        problems.raise_any()
    assert len(error.value.problems) == 20
    assert "30 more" in error.value.hint


def test_a_message_cannot_carry_an_escape_sequence():
    """A terminal is not driven by a file's content."""
    found = refused(b'"\\e[31m": 1\n"\\e[31m": 2\n')
    assert "\x1b" not in str(found[0])
    assert "\x1b" not in document.path(["a\x1b[31m", 3])


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw):
    """No other exception leaves the parser."""
    try:
        parse(raw, "f")
    except InputError as error:
        assert error.problems


@given(st.text(alphabet="ab:- \n[]{},&*!|>'\"#?%@`~\t", max_size=60))
def test_any_punctuation_is_read_or_refused(text):
    """The same for texts that look like YAML."""
    try:
        parse(text.encode(), "f")
    except InputError as error:
        assert all(p.line >= 1 and p.column >= 1 for p in error.problems)
