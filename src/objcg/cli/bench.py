"""``objcg bench``: the benchmarks."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from objcg import bench
from objcg.bench import plots, runner

from .output import say
from .parser import CliError, Parser, WrongUse

if TYPE_CHECKING:
    from objcg.bench import Benchmark


def run(options: argparse.Namespace) -> int:
    """Run the benchmark that was named, or list them all; return the exit status."""
    if options.name is None:
        if options.arguments:
            raise WrongUse(f"bench: which? {_accepted()} (see 'objcg bench')")
        say(_list())
        return 0
    try:
        benchmark = bench.load(options.name)
    except KeyError:
        raise WrongUse(f"bench: {options.name!r} is not a benchmark; {_accepted()}") from None
    parser = _parser(benchmark)
    asked = parser.parse_args(options.arguments)
    if asked.source is not None:
        for name, value in vars(asked).items():
            if name not in _OUTPUT and value != parser.get_default(name):
                option = f"--{name.replace('_', '-')}"
                raise WrongUse(f"bench: {option} is for measuring, and --from measures nothing")
    try:
        if asked.plot is not None:
            plots.check(asked.plot)
        if asked.source is None:
            return _show(benchmark, asked, _measure(benchmark, asked))
        result = runner.read_result(asked.source, benchmark.NAME)
        try:
            return _show(benchmark, asked, result)
        except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
            # rows as another version made them
            raise CliError(
                f"{asked.source} is not what 'objcg bench {benchmark.NAME} --json' prints "
                f"in this version: {type(error).__name__}: {error}"
            ) from error
    except runner.BenchmarkError as error:
        raise CliError(str(error)) from error


def _measure(benchmark: Benchmark, asked: argparse.Namespace) -> dict[str, Any]:
    progress = runner.Progress()
    try:
        rows = benchmark.run(_options(benchmark, asked, progress))
    finally:
        progress("")
    return {
        "name": benchmark.NAME,
        "machine": runner.machine(),
        "python": runner.python(),
        "rows": rows,
    }


def _show(benchmark: Benchmark, asked: argparse.Namespace, result: dict[str, Any]) -> int:
    rows = result["rows"]
    # all is made before any of it is shown: it may not be possible
    if asked.json:
        text = json.dumps(result)
    elif asked.markdown:
        text = _markdown(benchmark.markdown(rows))
    else:
        text = (
            f"{benchmark.NAME}: {benchmark.DESCRIPTION}\n{result['machine']}\n"
            f"{result['python']}\n\n{benchmark.table(rows)}"
        )
    say(text)
    if asked.plot is not None:
        try:
            plots.draw(benchmark, result, asked.plot)
        except OSError as error:
            raise CliError(f"cannot write the picture: {error}") from error
    return 0


def _accepted() -> str:
    return f"there {'are' if len(bench.NAMES) > 1 else 'is'} {', '.join(bench.NAMES)}"


def _list() -> str:
    width = max(map(len, bench.NAMES))
    return "\n".join(f"{name:{width}}  {bench.load(name).DESCRIPTION}" for name in bench.NAMES)


_OUTPUT = ("json", "markdown", "plot", "source")
"""The options, as argparse names them, that do not concern how it is measured."""


def _parser(benchmark: Benchmark) -> argparse.ArgumentParser:
    parser = Parser(
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
    parser.add_argument(
        "--plot",
        metavar="FILE",
        type=_picture,
        help="draw it, too, to FILE.svg or FILE.png (with matplotlib)",
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="FILE",
        help="measure nothing, and show what --json printed before, which is in FILE",
    )
    return parser


def _picture(text: str) -> str:
    if not text.endswith(plots.FORMATS):
        raise argparse.ArgumentTypeError(f"{text!r} does not end with {' or '.join(plots.FORMATS)}")
    return text


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 on")
    return number


def _options(
    benchmark: Benchmark, asked: argparse.Namespace, progress: runner.Progress
) -> runner.Options:
    extra = vars(asked).copy()
    for common in _OUTPUT:
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
