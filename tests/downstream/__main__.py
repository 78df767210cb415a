"""Other people's suites, unchanged: each test comes to the same under `objcg run` as without.

    python tests/downstream [SUITE ...] [options]

Each unit (a module of CPython's tests; a folder of tests of a library) runs plain and under objcg,
each in a process of its own.  Where the two do not agree both are run twice more: a test that does
not agree with itself is unstable, and says nothing.  Differences are explained in differences.py.

Exit status: 0 if all differences are explained and every audit has drift 0; 1 if not; 2 for wrong
arguments or where nothing could be run.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import differences
import outcomes
import sides
import suites

REPEATS = 2


@dataclass
class Finding:
    """A test, or the end of a unit's process (its name is then that of the unit)."""

    unit: str
    test: str
    plain: str
    objcg: str
    reason: str | None = None


@dataclass
class Result:
    """What a unit came to."""

    unit: str
    tests: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    end: str = ""
    drift: int | None = None
    differing: list[Finding] = field(default_factory=list)
    unstable: list[Finding] = field(default_factory=list)
    fault: str = ""
    """Why it says nothing."""
    tail: str = ""


def compare(
    suite: str, version: str, unit: suites.Unit, python: str, options: tuple[str, ...]
) -> Result:
    """Run a unit on both sides, and again where they do not agree."""
    runs = {side: [sides.run(unit, python, side, options)] for side in sides.SIDES}
    for _ in range(REPEATS):
        if not _disagree(runs["plain"][-1], runs["objcg"][-1]):
            break
        for side in sides.SIDES:
            runs[side].append(sides.run(unit, python, side, options))
    plain, charged = runs["plain"], runs["objcg"]
    result = Result(
        unit.name,
        len(plain[0].tests),
        dict(Counter(plain[0].tests.values())),
        {side: round(min(run.seconds for run in runs[side]), 2) for side in sides.SIDES},
        charged[0].end,
        max((run.drift for run in charged if run.drift is not None), default=None),
    )
    result.fault = suites.fault(unit, plain[0].end)
    if not result.fault and charged[0].drift is None:
        result.fault = f"it was not audited: {charged[0].end}"
    if result.fault or _disagree(plain[0], charged[0]):
        result.tail = charged[0].tail
    for name in dict.fromkeys(
        name
        for one, other in zip(plain, charged, strict=True)
        for name in (*outcomes.differing(one.tests, other.tests), *_ends(one, other))
    ):
        told = {side: {_of(run, name) for run in runs[side]} for side in sides.SIDES}
        finding = Finding(
            unit.name, name or unit.name, *(" or ".join(sorted(told[side])) for side in sides.SIDES)
        )
        if told["plain"] & told["objcg"]:
            result.unstable.append(finding)
        else:
            finding.reason = differences.reason(suite, version, finding.test)
            result.differing.append(finding)
    return result


def _ends(plain: sides.Outcome, charged: sides.Outcome) -> list[str]:
    """The name of a unit's end, if it differs and no test tells why."""
    told = outcomes.differing(plain.tests, charged.tests)
    return [""] if plain.end != charged.end and not told else []


def _disagree(plain: sides.Outcome, charged: sides.Outcome) -> bool:
    return plain.end != charged.end or bool(outcomes.differing(plain.tests, charged.tests))


def _of(run: sides.Outcome, name: str) -> str:
    return run.tests.get(name, "missing") if name else run.end


# --- the report -----------------------------------------------------------------------------------


def wrong(results: list[Result]) -> list[str]:
    """What must not be, a line for each."""
    lines = [
        f"{one.unit}: {one.test}: {one.plain} without objcg, {one.objcg} with it"
        for result in results
        for one in result.differing
        if one.reason is None
    ]
    lines += [f"{result.unit}: {result.fault}" for result in results if result.fault]
    lines += [f"{result.unit}: drift {result.drift}" for result in results if result.drift]
    return lines


def kept(result: Result) -> dict[str, object]:
    """What is kept of a unit: all but how long it took and what it printed."""
    told = asdict(result)
    for name in ("unit", "seconds", "tail"):
        del told[name]
    return {name: value for name, value in told.items() if value not in ([], None, "")}


def keep(file: Path, suite: str, version: str, results: list[Result]) -> None:
    """Write what was found; units that were not run this time stay as they were."""
    try:
        units = json.loads(file.read_text(encoding="utf-8"))["units"]
    except FileNotFoundError:
        units = {}
    units |= {result.unit: kept(result) for result in results}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(units[name])}" for name in sorted(units))
    head = json.dumps({"suite": suite, "python": version})[:-1]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f'{head},\n "units": {{\n{lines}\n }}}}\n', encoding="utf-8")


def lines_of(suite: str, version: str, results: list[Result]) -> list[str]:
    """Return what was found, for people."""
    counted: Counter[str] = Counter()
    for result in results:
        counted.update(result.outcomes)
    differing = [one for result in results for one in result.differing]
    each = ", ".join(f"{n:,} {name}" for name, n in sorted(counted.items()))
    head = (
        f"{suite} on {version}: {len(results)} units, {sum(counted.values()):,} tests ({each}), "
        f"{sum(result.drift is not None for result in results)} audits with drift "
        f"{sum(result.drift or 0 for result in results)}; {len(differing)} differ, "
        f"{sum(len(result.unstable) for result in results)} unstable"
    )
    explained = Counter(one.reason for one in differing if one.reason)
    return [head, *(f"  {n} explained: {reason}" for reason, n in explained.items())]


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        prog="tests/downstream", description=__doc__.partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument(
        "suites", nargs="*", metavar="SUITE", help=f"of {', '.join(suites.SUITES)} (default: all)"
    )
    parser.add_argument("--python", default=sys.executable, help="that has objcg and the suites")
    parser.add_argument("--only", action="append", metavar="UNIT", help="a pattern, as of fnmatch")
    parser.add_argument("--slice", action="store_true", help="some units of some suites: minutes")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--no-native", action="store_true", help="objcg run with that option")
    parser.add_argument(
        "--json", type=Path, metavar="FOLDER", help="write SUITE-VERSION.json there"
    )
    options = parser.parse_args(arguments)
    # not the file behind a link: a virtual environment is found by where its link is
    options.python = os.path.abspath(options.python)
    for suite in options.suites:
        if suite not in suites.SUITES:
            parser.error(f"{suite!r} is no suite; there are {', '.join(suites.SUITES)}")
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: at least 1")
    return options


def chosen(suite: str, options: argparse.Namespace) -> list[suites.Unit]:
    """Return the units to run, in order."""
    if options.slice and suite not in suites.SLICE:
        return []
    found = suites.units(suite, options.python)
    if options.slice:
        found = [unit for unit in found if suites.in_slice(suite, unit)]
    if options.only:
        found = [
            unit for unit in found if any(fnmatchcase(unit.name, only) for only in options.only)
        ]
    return found


def run_suite(suite: str, version: str, options: argparse.Namespace) -> list[str]:
    """Run a suite; return what must not be."""
    found = chosen(suite, options)
    if not found:
        if options.slice or options.only:
            return []
        return [f"{suite}: no unit was found"]
    results = []
    extra = ("--no-native",) if options.no_native else ()
    with ThreadPoolExecutor(options.jobs) as pool:
        pending = [
            pool.submit(compare, suite, version, unit, options.python, extra) for unit in found
        ]
        for number, future in enumerate(pending, 1):
            result = future.result()
            results.append(result)
            if options.json:
                keep(options.json / f"{suite}-{version}.json", suite, version, [result])
            took = " ".join(f"{side} {seconds:.0f} s" for side, seconds in result.seconds.items())
            print(
                f"[{number}/{len(pending)}] {result.unit}: {result.tests} tests, {result.end}, "
                f"{took}",
                flush=True,
            )
            for line in wrong([result]):
                print(f"    {line}", flush=True)
            if wrong([result]):
                print("\n".join(f"    | {line}" for line in result.tail.splitlines()), flush=True)
    print("\n".join(lines_of(suite, version, results)), flush=True)
    return wrong(results)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    # A shell's background jobs ignore it, and what is started inherits that: tests of signals would
    # wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    version = suites.version(options.python)
    failures = []
    for suite in options.suites or suites.SUITES:
        failures += run_suite(suite, version, options)
    if failures:
        print(f"\n{len(failures)} must not be:")
        print("\n".join(failures))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
