"""``objcg bench``: the benchmarks."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, NoReturn

from objcg import bench
from objcg.bench import runner

from .parser import CliError, WrongUse

if TYPE_CHECKING:
    from objcg.bench import Benchmark


def run(options: argparse.Namespace) -> int:
    """Run the benchmark that was named, or list them all; return the exit status."""
    if options.name is None:
        if options.arguments:
            raise WrongUse(f"bench: which? {_accepted()} (see 'objcg bench')")
        print(_list())
        return 0
    try:
        benchmark = bench.load(options.name)
    except KeyError:
        raise WrongUse(f"bench: {options.name!r} is not a benchmark; {_accepted()}") from None
    asked = _parser(benchmark).parse_args(options.arguments)
    progress = runner.Progress()
    try:
        rows = benchmark.run(_options(benchmark, asked, progress))
    except runner.BenchmarkError as error:
        raise CliError(str(error)) from error
    finally:
        progress("")
    result = {
        "name": benchmark.NAME,
        "machine": runner.machine(),
        "python": runner.python(),
        "rows": rows,
    }
    if asked.json:
        print(json.dumps(result))
    elif asked.markdown:
        print(_markdown(benchmark.markdown(rows)))
    else:
        print(f"{benchmark.NAME}: {benchmark.DESCRIPTION}")
        print(f"{result['machine']}\n{result['python']}\n\n{benchmark.table(rows)}")
    return 0


def _accepted() -> str:
    return f"there {'are' if len(bench.NAMES) > 1 else 'is'} {', '.join(bench.NAMES)}"


def _list() -> str:
    width = max(map(len, bench.NAMES))
    return "\n".join(f"{name:{width}}  {bench.load(name).DESCRIPTION}" for name in bench.NAMES)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise WrongUse(f"{message} (see '{self.prog} --help')")


def _parser(benchmark: Benchmark) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"objcg bench {benchmark.NAME}",
        description=f"Measure {benchmark.DESCRIPTION}.",
        allow_abbrev=False,
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print one line of JSON")
    output.add_argument(
        "--markdown", action="store_true", help="print the tables as documents have them"
    )
    parser.add_argument(
        "--rounds",
        metavar="N",
        type=_positive,
        help=f"how often each case is measured (default: {benchmark.ROUNDS}, or 2 with --quick)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer operations: to see it work, not to compare"
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, default=1, help="of the order of measurements"
    )
    benchmark.add_options(parser)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 on")
    return number


def _options(
    benchmark: Benchmark, asked: argparse.Namespace, progress: runner.Progress
) -> runner.Options:
    extra = vars(asked).copy()
    for common in ("json", "markdown"):
        del extra[common]
    rounds = extra.pop("rounds") or (2 if asked.quick else benchmark.ROUNDS)
    return runner.Options(
        rounds=rounds,
        quick=extra.pop("quick"),
        seed=extra.pop("seed"),
        extra=extra,
        progress=progress,
    )


def _markdown(tables: dict[str, str]) -> str:
    return "\n\n".join(
        "\n".join([runner.TABLE_BEGIN.format(name), text, runner.TABLE_END])
        for name, text in tables.items()
    )
