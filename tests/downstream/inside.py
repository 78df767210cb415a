"""Runs in the interpreter that is looked at: one unit of a suite, on either side.

    inside.py regrtest RESULTS MODULE
    inside.py pytest RESULTS GROUP FILE...

Writes RESULTS.xml, as JUnit does, and RESULTS.json: the exit status, and with objcg on what an
audit says at the end.  With objcg on each test module has a group of its own: regrtest runs one
module in a process, whose group `objcg run` has entered; under pytest a plugin enters them.
"""

from __future__ import annotations

import gc
import json
import os
import sys

# Whether `objcg run` started us. Not `import objcg`: the plain side must not have it in memory.
objcg = sys.modules.get("objcg")

# Of one module. What hangs longer is shown by faulthandler, and fails.
SECONDS = 900

# Tests that are left out, by module: they hang without objcg as well.
LEFT_OUT = {
    # waits for ever for a client, where there is a device of virtual sockets but no way to itself
    "test_socket": "*.ThreadedVSOCKSocketStreamTest.*",
}


def regrtest(results: str, module: str) -> int:
    """Run a module of CPython's own tests, as `python -m test MODULE` does."""
    import runpy

    options = [f"--ignore={LEFT_OUT[module]}"] if module in LEFT_OUT else []
    sys.argv = ["test", f"--junit-xml={results}.xml", f"--timeout={SECONDS}", *options, module]
    try:
        runpy.run_module("test", run_name="__main__", alter_sys=False)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 0


def pytest(results: str, group: str, *files: str) -> int:
    """Run files with pytest, as far as they are not marked slow or to need a network."""
    import pytest

    class Groups:
        """Gives each test module a group."""

        @pytest.hookimpl(hookwrapper=True)
        def pytest_runtest_protocol(self, item):
            if objcg is None:
                yield
            else:
                with objcg.group(f"{group}/{os.path.basename(item.path).removesuffix('.py')}"):
                    yield

    root = os.getcwd()
    return int(
        pytest.main(
            [
                "-q",
                "--no-header",
                "--tb=short",
                "--continue-on-collection-errors",
                f"--junit-xml={results}.xml",
                f"--rootdir={root}",
                f"-c={os.devnull}",
                f"-o=faulthandler_timeout={SECONDS}",
                "-pno:cacheprovider",
                "-pno:randomly",
                "-m=not slow and not network and not db and not single_cpu",
                *files,
            ],
            plugins=[Groups()],
        )
    )


def audit() -> dict[str, object] | None:
    """Return what objcg says of itself at the end; None without it."""
    if objcg is None:
        return None
    gc.collect()
    result = objcg.audit()
    return {"drift": result.drift, "current": objcg.root.memory.current}


def main() -> None:
    kind, results, *rest = sys.argv[1:]
    status = {"regrtest": regrtest, "pytest": pytest}[kind](results, *rest)
    said = json.dumps({"status": status, "audit": audit()})
    with open(f"{results}.json", "w", encoding="utf-8") as file:
        file.write(said)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(status)


if __name__ == "__main__":
    main()
