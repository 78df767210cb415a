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
    compared = side != "stock" and ratio is not None
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
        "scripts": 9,
        "scripts_known": 9,
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


def alloc_row(size, pattern, phase, ratio, side="objcg"):
    goal = (size, side) == (64, "objcg") and phase in {"sum", "realloc"}
    return {
        "size": size,
        "n": 1_000_000,
        "asked": 1_000_000,
        "pattern": pattern,
        "phase": phase,
        "side": side,
        "ns": 10.0 * ratio,
        "ns_quartiles": [9.0, 11.0],
        "stock_ns": 10.0,
        "stock_ns_quartiles": [9.0, 11.0],
        "ratio": ratio,
        "ratio_quartiles": [ratio - 0.01, ratio + 0.01],
        "baseline": "stock, another process",
        "goal": {"of": "ratio", "most": 1.0} if goal else None,
        "goal_met": ratio <= 1 if goal else None,
        "rounds": 3,
        "processes": 1,
        "worn": False,
        "huge_pages": True,
    }


def alloc_rows(worst=0.9):
    rows = [
        alloc_row(64, pattern, phase, 0.8)
        for pattern in ("fifo", "lifo", "random", "threads")
        for phase in ("alloc", "free", "sum")
    ]
    rows += [alloc_row(64, f"realloc-{what}", "realloc", 0.7) for what in ("list", "bytearray")]
    rows.append(alloc_row(64, "pair", "sum", worst))
    for row in rows:
        if row["phase"] == "free":
            row["ratio"] = 3.0
    mimalloc = alloc_row(64, "fifo", "sum", 3.0, "mimalloc")
    return [*rows, mimalloc, alloc_row(128, "fifo", "sum", 1.5)]


def limits_rows(worst=6_291_456, errors=0):
    ways = ("call", "call-list", "large", "main", "thread", "thread-busy", "task")
    return [
        {
            "case": way,
            "what": way,
            "block": 144,
            "errors": {"MemoryError": 3},
            "ns": 1000.0,
            "ns_quartiles": [900.0, 1100.0],
            "ns_worst": 2000.0,
            "step_ns": 10.0,
            "overshoot": 1024.0,
            "overshoot_quartiles": [512.0, 2048.0],
            "overshoot_worst": float(worst if way == "call" else 4096),
            "bound": 6_291_456,
            "bound_held": True,
            "neighbour_errors": errors,
            "rounds": 3,
            "processes": 1,
        }
        for way in ways
    ]


def memory_rows():
    return [
        {
            "kind": "ints",
            "n": 1000,
            "side": side,
            "stage": stage,
            "live_bytes_per_object": 32.0,
            "bytes": 2.0**20,
            "bytes_per_object": 40.0,
            "over_live": 2.0,
            "returned": 0.5,
            "ratio": None if side == "stock" else ratio,
            "ratio_quartiles": None if side == "stock" else [ratio, ratio],
            "baseline": None if side == "stock" else "stock",
            "scale": 1.0,
            "settle": 1.0,
            "rounds": 3,
        }
        for side, ratio in (("stock", 1.0), ("objcg", 0.97), ("jemalloc", 1.23))
        for stage in ("held", "peak", "few", "none")
    ]


def native_rows(charged=1.2, program=0.99):
    calls = [
        {
            "kind": "malloc",
            "case": case,
            "what": f"what {case} does",
            "side": side,
            "ns": 50.0 * (ratio or 1),
            "ns_quartiles": [49.0, 51.0],
            "ratio": ratio,
            "ratio_quartiles": ratio and [ratio - 0.01, ratio + 0.01],
            "baseline": ratio and "plain",
            "goal": {"of": "ratio", "most": 1.1} if ratio and case == "working-set" else None,
            "goal_met": ratio <= 1.1 if ratio and case == "working-set" else None,
            "operations": 1000,
            "rounds": 3,
            "turns": 9,
        }
        for case in ("working-set", "pair-64")
        for side, ratio in (("plain", None), ("preloaded", 1.02), ("charged", charged))
    ]
    base = program_row("dicts", "objcg", None, baseline=None)
    for name in ("ratio", "memory_ratio"):
        base |= {name: None, f"{name}_quartiles": None}
    of_programs = [
        base,
        program_row("dicts", "loaded", program, baseline="objcg"),
        mean_row("loaded", program),
    ]
    return calls + [{"kind": "programs", **row} for row in of_programs]


def start_rows():
    ratios = ("ratio", "cpu_ratio", "memory_ratio")
    return [
        {
            "command": command,
            **dict.fromkeys(("wall_seconds", "cpu_seconds"), 0.01),
            **{key: [0.01, 0.01] for key in ("wall_seconds_quartiles", "cpu_seconds_quartiles")},
            "peak_bytes": 2.0**20,
            "peak_bytes_quartiles": [2.0**20, 2.0**20],
            **dict.fromkeys(ratios, ratio),
            **{f"{name}_quartiles": ratio and [ratio, ratio] for name in ratios},
            "rounds": 3,
        }
        for command, ratio in (("python -c pass", None), ("objcg run -c pass", 1.47))
    ]


def read_rows(region=0.0099, tree=0.149, first_quartile=0.99):
    return [
        {
            "case": case,
            "operation": f"operation {case}",
            "cpu_seconds": region if case == "region" else 0.2,
            "cpu_seconds_quartiles": [0.009, 0.3],
            "beyond_seconds": tree if baseline else None,
            "beyond_seconds_quartiles": [0.1, 0.2] if baseline else None,
            "ratio": 1.01 if baseline else None,
            "ratio_quartiles": [first_quartile, 1.02] if baseline else None,
            "baseline": baseline,
            "goal": {"of": of, "most": most} if of else None,
            "goal_met": True if of else None,
            "groups": 10_102,
            "asked": 10_000,
            "readings": 300,
            "rounds": 3,
            "seed": 1,
        }
        for case, baseline, of, most in (
            ("region", None, "cpu_seconds", 0.01),
            ("tree", "python -c pass", "beyond_seconds", 0.15),
            ("watched", "operation alone", None, None),
        )
    ]


def instructions_rows():
    return [
        {
            "program": program,
            "operation": operation,
            "operations": operation and 100,
            **dict.fromkeys(("stock_instructions", "objcg_instructions"), 9900),
            **{key: {"python": 9900} for key in ("stock_by_object", "objcg_by_object")},
            **dict.fromkeys(("stock_spread", "objcg_spread"), 0.0),
            "ratio": 1.034,
            "allocations": None,
            "extra_per_allocation": None,
            "core_per_allocation": None,
            "rounds": 3,
        }
        for program, operation in (("start", None), ("enter", "with group:"))
    ]


def all_results(minor="3.13"):
    rows = {
        "programs": programs_rows(),
        "alloc": alloc_rows(),
        "start": start_rows(),
        "limits": limits_rows(),
        "memory": memory_rows(),
        "native": native_rows(),
        "instructions": instructions_rows(),
        "suite": suite_rows(),
        "switch": switch_rows(),
        "scale": scale_rows(),
        "read": read_rows(),
    }
    return {name: result(name, of, minor) for name, of in rows.items()}
