"""Results as ``objcg bench --json`` prints them, made up: no measurement has such figures."""

from __future__ import annotations

MACHINE = "Made-up processor, 1 CPUs"


def result(name, rows, minor="3.13"):
    return {
        "name": name,
        "machine": MACHINE,
        "python": f"CPython {minor}.99 (made up), none",
        "rows": rows,
    }


def program_row(program, side, ratio, **fields):
    compared = side != "stock"
    return {
        "program": program,
        "side": side,
        "cpu_seconds": 1.0,
        "peak_bytes": 1 << 20,
        "ratio": ratio if compared else None,
        "ratio_quartiles": [ratio - 0.01, ratio + 0.01] if compared else None,
        "memory_ratio": 1.01 if compared else None,
        "memory_ratio_quartiles": [1.0, 1.02] if compared else None,
        "baseline": "stock" if compared else None,
        "scale": 1.0,
        "rounds": 3,
        **fields,
    }


def mean_row(side, ratio, programs=8):
    return program_row("geometric mean", side, ratio, programs=programs, programs_asked=8)


def programs_rows(objcg=0.87, mimalloc=0.82):
    return [
        program_row("dicts", "stock", 1.0),
        program_row("dicts", "objcg", objcg),
        program_row("dicts", "mimalloc", mimalloc),
        mean_row("objcg", objcg),
        mean_row("mimalloc", mimalloc),
    ]


def suite_row(benchmark, status, ratio=None, memory=None, reason=None):
    return {
        "benchmark": benchmark,
        "status": status,
        "reason": reason,
        "baseline_seconds": 0.5,
        "ratio": ratio,
        "ratio_quartiles": ratio and [ratio, ratio],
        "memory_ratio": memory,
        "memory_ratio_quartiles": memory and [memory, memory],
        "rounds": 3,
        "pyperformance": "0",
    }


def suite_rows(mean=0.99, worst=1.04, *, failed=False):
    rows = [
        suite_row("slow", "measured", worst, 1.02),
        suite_row("fast", "measured", 0.91, 1.01),
        suite_row("old", "not runnable", reason="it is old"),
        suite_row("geometric mean", "summary", mean, 1.02, "2 benchmarks"),
        suite_row("worst", "summary", worst, 1.09, "slow"),
    ]
    for row in rows[-2:]:
        del row["ratio_quartiles"], row["memory_ratio_quartiles"]
    return [*rows, suite_row("broken", "failed", reason="no")] if failed else rows


def switch_rows(ns=240.0):
    return [
        {
            "case": case,
            "operation": f"operation {case}",
            "ns_per_op": ns,
            "ns_per_op_quartiles": [ns - 1, ns + 1],
            "stock_ns": 200.0,
            "stock_ns_quartiles": [199.0, 201.0],
            "ratio": ns / 200,
            "ratio_quartiles": [ns / 200, ns / 200],
            "baseline": "stock",
            "goal": {"of": "ns_per_op", "most": 250},
            "goal_met": ns <= 250,
            "rounds": 3,
            "processes": 1,
        }
        for case in ("enter", "enter-nested")
    ]


def scale_rows(ratio=1.02):
    return [
        {
            "kind": kind,
            "n": n,
            "ns_per_op": 10.0 * (ratio if n > 1 else 1),
            "ns_per_op_quartiles": [9.0, 11.0],
            "stock_ns": 9.0,
            "stock_ns_quartiles": [8.0, 10.0],
            "stock_ratio": 1.1,
            "stock_ratio_quartiles": [1.0, 1.2],
            "ratio": ratio if n > 1 else None,
            "ratio_quartiles": [ratio, ratio] if n > 1 else None,
            "baseline": "n = 1",
            "rounds": 3,
            "processes": 1,
        }
        for kind in ("groups", "groups-one", "depth", "depth-batch", "threads", "threads-shared")
        for n in (1, 1_000_000)
    ]


def all_results(minor="3.13"):
    rows = {
        "programs": programs_rows(),
        "suite": suite_rows(),
        "switch": switch_rows(),
        "scale": scale_rows(),
    }
    return {name: result(name, of, minor) for name, of in rows.items()}
