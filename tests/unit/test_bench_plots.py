from __future__ import annotations

import json
import struct
import subprocess
import sys
import types
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from unit import bench_results as made_up

from objcg import bench
from objcg.bench import figures, plots
from objcg.bench.figures import Bars, Value
from objcg.bench.runner import BenchmarkError

MOST_BYTES = 150_000
"""Of a picture: it is kept with the sources."""


def texts(path):
    """Return what an SVG says; it has to be XML for that."""
    root = ET.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return [
        "".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")
    ]


def draw(result, path, benchmark=None):
    plots.draw(benchmark or bench.load(result["name"]), result, str(path))
    return path


@pytest.mark.parametrize("name", sorted(made_up.all_results()))
def test_a_picture_says_what_was_measured_and_where(name, tmp_path):
    result = made_up.all_results()[name]
    path = draw(result, tmp_path / "picture.svg")
    said = texts(path)
    whole = " ".join(said)
    assert f"{name}: {bench.load(name).DESCRIPTION}" in whole
    assert made_up.MACHINE in said
    assert "CPython 3.13.99 (made up), none, rounds: 3" in said
    labels = {
        "programs": ["dicts", "geometric mean", "0.87", "objcg, worse", "mimalloc"],
        "alloc": ["1,000,000, freed oldest first", "mimalloc", "objcg, worse", "128"],
        "start": ["objcg run -c pass", "peak memory", "1.47", "objcg, worse"],
        "limits": ["call, blocks of 144 bytes", "6,144", "median", "goal: at most"],
        "memory": ["ints", "peak: the process at its peak", "0.97", "1.23", "jemalloc"],
        "native": ["what pair-64 does", "1.20", "preloaded", "charged", "programs: peak memory"],
        "read": ["operation tree", "149", "9.9", "goal: at most", "1.01"],
        "instructions": ["start", "with group:", "1.03", "99", "stock"],
        "suite": ["slow", "fast", "1.04", "time, geometric mean 0.990"],
        "switch": ["operation enter", "ns for one operation", "240", "goal: at most"],
        "scale": ["1,000,000", "n: groups", "ns, allocation and free", "stock"],
    }
    assert set(labels[name]) <= set(said)
    assert path.stat().st_size < MOST_BYTES


def test_the_same_result_gives_the_same_picture(tmp_path):
    result = made_up.all_results()["programs"]
    first = draw(result, tmp_path / "first.svg").read_bytes()
    assert draw(result, tmp_path / "second.svg").read_bytes() == first
    source = tmp_path / "result.json"
    source.write_text(json.dumps(result))
    # in another process, too
    code = (
        "import json, sys; from objcg.bench import plots, programs;"
        "plots.draw(programs, json.load(open(sys.argv[1])), sys.argv[2])"
    )
    third = tmp_path / "third.svg"
    subprocess.run([sys.executable, "-c", code, source, third], check=True)
    assert third.read_bytes() == first


def test_a_picture_knows_its_result(tmp_path):
    result = made_up.all_results()["programs"]
    path = draw(result, tmp_path / "picture.svg")
    assert plots.digest_of(path) == plots.digest(result)
    other = made_up.result("programs", made_up.programs_rows(objcg=0.88))
    assert plots.digest_of(path) != plots.digest(other)


def test_a_picture_can_be_of_pixels(tmp_path):
    path = draw(made_up.all_results()["programs"], tmp_path / "picture.png")
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", head[16:])
    # wider than high, and large enough to be read
    assert width > 1000
    assert width > height > 300


def test_a_loss_has_a_colour_of_its_own():
    bars = [Value("a", 0.9), Value("b", 1.1), Value("c", 1.1, series="other"), Value("d", 1.004)]
    assert plots._colours(Bars("", "", bars, reference=1.0)) == [
        plots.GAIN,
        plots.LOSS,
        plots.OTHERS[0],
        plots.GAIN,
    ]
    goals = [Value("a", 250, goal=250), Value("b", 251, goal=250), Value("c", 9999)]
    assert plots._colours(Bars("", "", goals)) == [plots.GAIN, plots.LOSS, plots.GAIN]


def test_a_point_of_a_curve_that_is_a_loss_has_that_colour(tmp_path):
    rows = [row for row in made_up.alloc_rows(worst=1.2) if row["pattern"] == "pair"]
    assert plots.LOSS in draw(made_up.result("alloc", rows), tmp_path / "loss.svg").read_text()
    rows = [row for row in made_up.alloc_rows(worst=0.9) if row["pattern"] == "pair"]
    assert plots.LOSS not in draw(made_up.result("alloc", rows), tmp_path / "gain.svg").read_text()


def test_no_line_of_the_longest_result_stands_on_another():
    values = [Value(f"label {i}", 1 + i, series=side) for i in range(30) for side in "abc"]
    places, lines = plots._places(values)
    assert sorted(places) == places
    assert min(b - a for a, b in pairwise(places)) >= 1
    assert lines == places[-1] + 1


GENERIC = [
    {"size": size, "pattern": pattern, "side": side, "ratio": ratio, "baseline": "stock", "seed": 1}
    for size, ratio in ((64, 0.5), (1024, 1.5))
    for pattern in ("fifo", "pair")
    for side in ("objcg", "mimalloc")
]


def test_a_benchmark_without_a_figure_of_its_own_is_drawn_by_its_ratios(tmp_path):
    module = types.SimpleNamespace(NAME="made", DESCRIPTION="made up")
    figure = figures.of(module, [*GENERIC, {"size": 1, "ratio": None}])
    (panel,) = figure.panels
    assert panel.reference == 1.0
    assert panel.axis == "ratio to stock (above 1: worse)"
    assert [(v.label, v.series, v.value) for v in panel.values[:3]] == [
        ("size 64, fifo", "objcg", 0.5),
        ("size 64, fifo", "mimalloc", 0.5),
        ("size 64, pair", "objcg", 0.5),
    ]
    path = draw(made_up.result("made", GENERIC), tmp_path / "picture.svg", module)
    assert {"size 1,024, pair", "mimalloc"} <= set(texts(path))


def test_rows_without_figures_are_an_error(tmp_path):
    module = types.SimpleNamespace(NAME="made", DESCRIPTION="made up")
    with pytest.raises(BenchmarkError, match="no row of made has figures that could be drawn"):
        draw(made_up.result("made", [{"ratio": None}]), tmp_path / "picture.svg", module)
    nothing = made_up.result(
        "suite", [made_up.suite_row("old", "not runnable", reason="it is old")]
    )
    with pytest.raises(BenchmarkError, match="no row of suite"):
        draw(nothing, tmp_path / "picture.svg")
    assert list(tmp_path.iterdir()) == []


def test_what_failed_or_was_left_out_is_in_the_picture(tmp_path):
    rows = made_up.suite_rows(failed=True)
    said = texts(draw(made_up.result("suite", rows), tmp_path / "picture.svg"))
    assert "FAILED on one side only: broken." in said
    assert "1 more were not measured, for reasons that the tables name." in said


def test_many_ratios_are_shown_in_several_panels():
    rows = [
        {"size": size, "n": n, "pattern": pattern, "ratio": 1.0, "baseline": "stock"}
        for size in (16, 32, 64, 128, 512, 1024, 4096)
        for n in (10_000, 1_000_000)
        for pattern in ("fifo", "lifo", "random", "pair", "cross")
    ]
    panels = figures.generic(rows).panels
    assert [panel.title for panel in panels] == ["ratio, n 10,000", "ratio, n 1,000,000"]
    assert [len(panel.values) for panel in panels] == [35, 35]
    assert panels[0].values[0].label == "size 16, fifo"
