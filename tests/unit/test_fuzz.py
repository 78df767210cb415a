"""What people and programs hand in is understood, or refused with the documented error."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from objcg import _paths
from objcg._sizes import LARGEST, format_size, parse_bytes, parse_limit, parse_protection
from objcg.cli import parser

ROUNDS = int(os.environ.get("OBJCG_TEST_ROUNDS", "300"))
fuzz = settings(max_examples=ROUNDS, deadline=None, database=None, print_blob=True)

# Text of all kinds, surrogates and NUL among it; and text that is nearly a size or a path.
texts = st.text(st.characters(), max_size=300)
nearly_sizes = st.text("0123456789.kmgtKMGTiBb max-+_e\t\0٣", max_size=70)
nearly_paths = st.text("/.aé\0\udc80€\U0001f600", max_size=600)
things = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.binary(), st.lists(st.integers())
)


# ---- sizes ---------------------------------------------------------------------------------------


@fuzz
@given(st.one_of(texts, nearly_sizes, things))
@example("9" * 100_000)
@example("1" * 65)
@example(1 << 100_000)
@pytest.mark.parametrize("parse", [parse_bytes, parse_limit, parse_protection])
def test_a_size_is_a_number_in_range_or_an_error_that_says_what_is_accepted(parse, value):
    try:
        size = parse(value, "memory.max")
    except (TypeError, ValueError) as error:
        assert type(error) in {TypeError, ValueError}
        assert str(error).startswith("memory.max: ")
        assert "accepted are a whole number" in str(error)
        assert len(str(error)) < 1000
    else:
        assert size is None or (type(size) is int and 0 <= size <= LARGEST)


@fuzz
@given(st.integers(0, LARGEST), st.sampled_from(["", "K", "M", "G", "T"]))
def test_a_size_that_was_written_is_read_as_the_same(size, unit):
    shift = 10 * ("", "K", "M", "G", "T").index(unit)
    whole = size >> shift
    for text in (
        f"{whole}{unit}",
        f" {whole} {unit.lower()}",
        f"{whole}.0{unit}{'iB' * bool(unit)}",
    ):
        assert parse_bytes(text, "x") == whole << shift


@fuzz
@given(st.integers(-LARGEST, LARGEST))
def test_what_people_see_is_the_size_to_a_twentieth_of_its_unit(size):
    text = format_size(size)
    number, unit = re.fullmatch(r"(-?[0-9.]+) (B|[KMGT]iB)", text).groups()
    scale = 1 << 10 * ("B", "KiB", "MiB", "GiB", "TiB").index(unit)
    assert abs(float(number) * scale - size) <= max(0.051 * scale, abs(size) * 1e-12)
    if size >= 0:
        assert abs(float(number)) < 1024 or unit == "TiB"


# ---- paths ---------------------------------------------------------------------------------------


@fuzz
@given(st.one_of(texts, nearly_paths, texts.map(lambda text: f"/{text}"), things))
@example("/" + "x" * 1_000_000)
@example("/a" * 100_000)
def test_a_path_comes_apart_and_together_or_is_an_error_that_names_it(path):
    try:
        parts = _paths.split(path)
    except (TypeError, ValueError) as error:
        assert type(error) in {TypeError, ValueError}
        assert not isinstance(path, str) or repr(path) in str(error)
    else:
        assert "/" + "/".join(parts) == path
        assert len(parts) <= _paths.MAX_DEPTH
        assert all(0 < len(part.encode()) <= _paths.MAX_NAME for part in parts)


# ---- the command line ----------------------------------------------------------------------------

verbs = st.sampled_from(
    ["run", "tree", "set", "move", "autopsy", "ps", "record", "report", "top", "web", "bench"]
)
words = st.one_of(
    texts,
    st.sampled_from(
        ["--json", "--max", "--max=1G", "--high", "--group", "-m", "-c", "--", "-", "-o", "1", "/a"]
    ),
    st.sampled_from(["max=1", "low=-1", "--report", "--no-native", "--tasks", "--stat", "--csv"]),
)


@fuzz
@given(st.one_of(verbs, texts), st.lists(words, max_size=6))
def test_a_command_line_is_understood_or_one_error_of_one_line(verb, rest):
    try:
        arguments, program = parser.split_program([verb, *rest])
        namespace = parser.build_parser().parse_args(arguments)
    except parser.WrongUse as error:
        assert error.status == 2
        assert "\n" not in str(error)
    except SystemExit as end:  # --help, --version
        assert end.code == 0
    else:
        assert namespace.verb == verb
        if program is not None:
            assert verb == "run"
            assert program.words[-len(program.arguments) :] == program.arguments or not (
                program.arguments
            )
            assert program.kind in {"file", "module", "command"}
