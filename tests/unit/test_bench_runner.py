from __future__ import annotations

import pytest

from objcg import bench
from objcg.bench import _callgrind, _seed_cases, document, runner


def test_every_case_is_measured_once_in_each_round_and_the_first_round_is_not_counted():
    order = []

    def measure(case):
        order.append(case)
        return len(order)

    samples = runner.interleave("abc", measure, rounds=4, seed=1)
    assert [len(values) for values in samples] == [4, 4, 4]
    rounds = [order[i : i + 3] for i in range(0, 15, 3)]
    assert [sorted(names) for names in rounds] == [["a", "b", "c"]] * 5
    # each number stands with the case that it was measured of
    for name, values in zip("abc", samples, strict=True):
        assert [order[at - 1] for at in values] == [name] * 4
        assert min(values) > 3


def test_the_order_of_the_cases_follows_from_the_seed_and_differs_between_rounds():
    def order_of(number):
        order = []
        runner.interleave(range(8), lambda case: order.append(case) or 0.0, rounds=3, seed=number)
        return order

    assert order_of(1) == order_of(1)
    assert order_of(1) != order_of(2)
    once = order_of(1)
    assert once[:8] != once[8:16]


def test_a_ratio_compares_the_same_round():
    # the machine gets slower: the ratio of the medians would be 2, too, but not that of each round
    assert runner.ratios([2, 40, 6], [1, 10, 3]) == [2, 4, 2]
    assert runner.differences([2, 40, 6], [1, 10, 3]) == [1, 30, 3]
    assert runner.summary("ratio", [2, 4, 2]) == {"ratio": 2, "ratio_quartiles": [2.0, 3.0]}


def test_one_value_has_quartiles():
    assert runner.quartiles([3.0]) == [3.0, 3.0]


def test_tables_keep_their_columns():
    rows = [["a", "1.5"], ["long", "22"]]
    assert runner.text_table(["name", "ns"], rows) == "name   ns\na     1.5\nlong   22"
    assert runner.markdown_table(["name", "ns"], rows) == (
        "| name | ns |\n| --- | ---: |\n| a | 1.5 |\n| long | 22 |"
    )


def test_every_benchmark_says_what_it_is_in_one_line():
    for name in bench.NAMES:
        benchmark = bench.load(name)
        assert name == benchmark.NAME
        assert benchmark.DESCRIPTION
        assert "\n" not in benchmark.DESCRIPTION


def test_a_module_that_is_no_benchmark_is_not_loaded_as_one():
    with pytest.raises(KeyError):
        bench.load("runner")


def test_every_step_is_measured_beside_the_step_before_it():
    asked = {
        (cell.scenario.name, cell.variant, cell.request) for cell in _seed_cases.cells(quick=False)
    }
    for name, variant, request in asked:
        if name == "batch":
            continue
        if variant not in {"stock", "glibc"}:
            assert (name, _seed_cases.BASELINE, request) in asked
    alloc = {variant for name, variant, request in asked if name == "alloc"}
    for variant in alloc:
        step = _seed_cases.VARIANTS[variant].step
        assert step is None or step in alloc


def test_the_kernels_published_ratios_are_those_of_the_design():
    ratios = {
        (cgroup, name): round(value / figures["unaccounted"], 2)
        for cgroup, figures in _seed_cases.KERNEL.items()
        for name, value in figures.items()
    }
    assert ratios["user", "original"] == 2.84
    assert ratios["user", "patched"] == 1.98
    assert ratios["root", "original"] == 1.63
    assert ratios["root", "patched"] == 1.06


DOCUMENT = """\
before
<!-- table: a -->
old
<!-- end -->
between
<!-- table: b -->
<!-- end -->
"""


def test_a_documents_tables_are_replaced_and_nothing_else():
    text = document.rewrite(DOCUMENT, {"a": "| new |", "b": "| too |", "c": "unused"})
    assert text == DOCUMENT.replace("old\n", "| new |\n").replace("b -->\n", "b -->\n| too |\n")
    # again: the same
    assert document.rewrite(text, {"a": "| new |", "b": "| too |"}) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (DOCUMENT.replace("table: b", "table: x"), "no table 'x'; there are a, b"),
        (DOCUMENT.replace("old\n<!-- end -->\n", ""), "'a' has no <!-- end -->"),
        (DOCUMENT.removesuffix("<!-- end -->\n"), "'b' has no <!-- end -->"),
        ("no markers\n", "it has no line"),
    ],
)
def test_a_document_with_wrong_markers_is_left_alone(text, told):
    with pytest.raises(ValueError, match=told):
        document.rewrite(text, {"a": "", "b": ""})


def test_instructions_are_counted_where_they_were_run():
    text = """\
events: Ir

ob=/x/libc.so.6
fn=lock
7 100

ob=/x/_lab/objcg.so
fn=lab_time
10 5
cob=/x/libc.so.6
cfn=lock
calls=3 7
10 100
11 6
fn=slab_alloc
12 30
"""
    assert _callgrind.by_object(text) == {"libc.so.6": 100, "objcg.so": 41}
    assert _callgrind.calls(text) == {("libc.so.6", "lock"): 3}


def test_calls_are_counted_by_the_file_of_what_was_called():
    text = """\
ob=/x/libpython3.13.so.1.0
fn=PyObject_Malloc
cob=/x/_core.so
cfn=object_malloc
calls=5 10
7 100
cfn=PyErr_NoMemory
calls=1 3
8 9

ob=/x/_core.so
fn=object_malloc
10 50
cfn=object_malloc'2
calls=2 10
11 20
"""
    assert _callgrind.calls(text) == {
        ("_core.so", "object_malloc"): 7,
        ("libpython3.13.so.1.0", "PyErr_NoMemory"): 1,
    }
