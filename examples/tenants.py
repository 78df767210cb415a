"""A multi-tenant HTTP service in one process, in which a tenant can exhaust only its own memory.

Six tenants share one asyncio event loop. Four are well behaved. ``leaky`` has lost the bound on
its undo history, so that each store leaks a little; ``bulky`` asks for an export that does not
fit. Each has a memory control group with a limit. The two run into theirs and are answered HTTP
507 (Insufficient Storage); nobody else notices anything.

    python examples/tenants.py [--seconds 20] [--port 8080] [--quiet]

The load comes from a child process, so that all the memory shown is the service's. The program
ends with 1, and says why, if a neighbour failed, an offender was not stopped, or a byte is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import objcg

MIB = 1 << 20
EXPORT_BYTES = 400 * MIB
STEADY = ("acme", "globex", "initech", "umbrella")
LIMITS = {**dict.fromkeys(STEADY, "64M"), "leaky": "8M", "bulky": "32M"}
FULL = HTTPStatus.INSUFFICIENT_STORAGE


# ---- The service ---------------------------------------------------------------------------------


@dataclass
class Tenant:
    """What the service keeps for one tenant between requests, and the group it is charged to."""

    name: str
    group: objcg.Group
    history: deque[Any]
    documents: dict[str, Any] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    last_refusal: str = ""


Response = tuple[int, "bytes | bytearray"]


def open_tenants() -> dict[str, Tenant]:
    """Create the group of every tenant, with its limit."""
    return {
        name: Tenant(
            name,
            objcg.group(f"/tenants/{name}", max=limit),
            # The bug of this tenant: an undo history without a bound.
            history=deque(maxlen=None if name == "leaky" else 20),
        )
        for name, limit in LIMITS.items()
    }


async def handle(tenant: Tenant, method: str, target: str, body: bytes) -> Response:
    """Answer one request. This runs inside the tenant's group: what it allocates is charged there.

    MemoryLimitExceeded can come out of any line, as KeyboardInterrupt can. Hence new state is
    built completely before it is put in place, and each step that puts it in place is atomic.
    """
    resource, _, query = target.partition("?")
    kind, _, key = resource.partition("/")
    if (method, kind) == ("PUT", "docs"):
        document = json.loads(body)
        tenant.history.append((key, tenant.documents.get(key)))
        tenant.documents[key] = document
        return 201, b""
    if (method, kind) == ("GET", "docs") and key in tenant.documents:
        return 200, json.dumps(tenant.documents[key]).encode()
    if (method, kind) == ("DELETE", "docs") and tenant.documents.pop(key, None) is not None:
        return 204, b""
    if (method, kind) == ("GET", "search"):
        found = []
        for number, (name, document) in enumerate(list(tenant.documents.items())):
            if query in document["words"]:
                found.append(name)
            if number % 10 == 9:
                await asyncio.sleep(0)  # Others run here, and are charged to their own groups.
        return 200, json.dumps(found).encode()
    if (method, kind) == ("GET", "export"):
        rows = json.dumps(tenant.documents).encode()
        export = bytearray(int(query))  # Over the limit this fails at once, before it takes memory.
        export[: len(rows)] = rows
        return 200, export
    return 404, b""


async def answer(tenant: Tenant, method: str, target: str, body: bytes) -> Response:
    """Run the handler in the tenant's group, and turn a refusal of memory into a 507."""
    if (method, target) == ("DELETE", "history"):
        # The operator's request, not the tenant's: in the group of a tenant that is at its limit
        # there may be no byte left, not even for the work that would free some.
        tenant.history.clear()
        return 204, b""
    try:
        # Only what may be abandoned at any point belongs in here. The bytes of the connection are
        # read and written outside: an exception in the middle of that would garble it.
        with tenant.group:
            return await handle(tenant, method, target, body)
    except MemoryError as error:  # MemoryLimitExceeded is one.
        # Keep the text, not the exception: its traceback would keep the handler's locals alive.
        tenant.refused[type(error).__name__] += 1
        tenant.last_refusal = str(error) or tenant.last_refusal
        return FULL, b""


async def converse(
    tenants: dict[str, Tenant], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Serve the requests of one connection, one after the other."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            request_line, *headers = head.rstrip().split("\r\n")
            method, target, _ = request_line.split(" ")
            fields = dict(line.lower().split(": ", 1) for line in headers)
            body = await reader.readexactly(int(fields.get("content-length", "0")))
            name, _, rest = target.lstrip("/").partition("/")
            if name in tenants:
                status, content = await answer(tenants[name], method, rest, body)
            else:
                status, content = 404, b""
            length = "" if status == 204 else f"Content-Length: {len(content)}\r\n"
            writer.write(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{length}\r\n".encode())
            writer.write(content)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # The client has closed.
    finally:
        writer.close()


def resident_bytes(name: str) -> int:
    """Read VmRSS (resident now) or VmHWM (the most ever) of this process, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.partition(name + ":")[2].split()[0])


async def show_progress(tenants: dict[str, Tenant], load: dict[str, Any], seconds: float) -> None:
    """Show how it goes: a line that is rewritten on a terminal, else a new line now and then."""
    tty = sys.stderr.isatty()
    start = time.monotonic()
    while True:
        leaky = tenants["leaky"].group.memory
        line = (
            f"{time.monotonic() - start:4.0f}/{seconds:.0f} s"
            f"  {load.get('requests', 0):7,} requests, {load.get('failures', 0)} failed"
            f"  507: leaky {load.get('leaky', 0)}, bulky {load.get('bulky', 0)}"
            f"  leaky {leaky.current / MIB:.1f}/{(leaky.max or 0) / MIB:.0f} MiB"
            f"  RSS {resident_bytes('VmRSS') / MIB:.0f} MiB"
        )
        start_of_line, end = ("\r\x1b[K", "") if tty else ("", "\n")
        print(start_of_line + line, end=end, file=sys.stderr, flush=True)
        await asyncio.sleep(0.2 if tty else 2)


async def serve(tenants: dict[str, Tenant], options: argparse.Namespace) -> dict[str, Any]:
    """Serve the tenants while a child process sends requests; return what the child counted."""
    load: dict[str, Any] = {}
    server = await asyncio.start_server(
        lambda reader, writer: converse(tenants, reader, writer), "127.0.0.1", options.port
    )
    port = server.sockets[0].getsockname()[1]
    command = [sys.executable, __file__, f"--load-on={port}", f"--seconds={options.seconds}"]
    child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    progress = None
    if not options.quiet:
        print(f"serving {len(tenants)} tenants on http://127.0.0.1:{port}/", file=sys.stderr)
        progress = asyncio.create_task(show_progress(tenants, load, options.seconds))
    try:
        assert child.stdout is not None
        async for line in child.stdout:
            load.update(json.loads(line))
        load["exit"] = await child.wait()
    finally:
        if progress is not None:
            progress.cancel()
        if child.returncode is None:
            child.kill()
        server.close()
    if not options.quiet and sys.stderr.isatty():
        print(file=sys.stderr)
    return load


# ---- The load: runs in the child process, knows nothing of objcg -------------------------------


class Client:
    """One connection to the service, which counts what it is answered."""

    def __init__(self, port: int, tenant: str, until: float) -> None:
        self.port, self.tenant, self.until = port, tenant, until
        self.statuses: Counter[int] = Counter()
        self.latencies: list[float] = []
        self.failures: list[str] = []

    async def request(
        self, method: str, resource: str, expect: int, document: object = None
    ) -> Any:
        """Send a request; return its status and body. Note a status that is not as expected."""
        body = b"" if document is None else json.dumps(document).encode()
        start = time.perf_counter()
        head = f"{method} /{self.tenant}/{resource} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        answer = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status = int(answer.split(" ", 2)[1])
        length = int(answer.partition("Content-Length: ")[2].partition("\r\n")[0] or 0)
        content = await self.reader.readexactly(length)
        self.latencies.append(time.perf_counter() - start)
        self.statuses[status] += 1
        if status != expect:
            self.failures.append(f"{method} /{self.tenant}/{resource}: {status}, not {expect}")
        return status, content

    async def work(self, number: int) -> None:
        """Store, read, search and delete, so that what the tenant keeps is bounded."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        turn = 0
        next_export = time.monotonic()
        while time.monotonic() < self.until:
            turn += 1
            key = f"docs/{number}-{turn % 50}"
            words = [f"word{turn * 7 + i:08}" for i in range(64)]
            status, _ = await self.request("PUT", key, 201, {"turn": turn, "words": words})
            if status == FULL:
                await asyncio.sleep(0.05)  # As a client should: Retry-After.
                continue
            _, content = await self.request("GET", key, 200)
            if self.tenant in STEADY and json.loads(content)["words"] != words:
                self.failures.append(f"GET /{self.tenant}/{key}: not the document stored")
            if turn % 10 == 0 and self.tenant != "leaky":
                await self.request("GET", f"search?{words[3]}", 200)
                await self.request("DELETE", key, 204)
            if self.tenant == "bulky" and time.monotonic() >= next_export:
                await self.request("GET", f"export?{EXPORT_BYTES}", FULL)
                next_export = time.monotonic() + 0.5
            await asyncio.sleep(0.002)


async def generate_load(port: int, seconds: float) -> None:
    """Run three clients per tenant, and print the counts as lines of JSON as it goes."""
    until = time.monotonic() + seconds
    clients = [Client(port, name, until) for name in LIMITS for _ in range(3)]

    def count() -> dict[str, Any]:
        by_tenant = {name: Counter[int]() for name in LIMITS}
        for client in clients:
            by_tenant[client.tenant].update(client.statuses)
        failures = [text for c in clients if c.tenant != "leaky" for text in c.failures]
        return {
            "requests": sum(sum(counter.values()) for counter in by_tenant.values()),
            "failures": len(failures),
            "first_failures": failures[:3],
            "leaky": by_tenant["leaky"][FULL],
            "bulky": by_tenant["bulky"][FULL],
            "statuses": {name: dict(sorted(by_tenant[name].items())) for name in LIMITS},
        }

    work = asyncio.gather(*(client.work(number) for number, client in enumerate(clients)))
    while not work.done():
        print(json.dumps(count()), flush=True)
        await asyncio.wait([work], timeout=0.2)
    await work
    quantiles = {}
    for name in LIMITS:
        times = sorted(t for c in clients if c.tenant == name for t in c.latencies)
        quantiles[name] = [1000 * times[int(len(times) * part)] for part in (0.5, 0.99)]
    result = {**count(), "latency_ms": quantiles}
    # The operator drops the history that leaks: the tenant can store again.
    leaky = next(client for client in clients if client.tenant == "leaky")
    await leaky.request("DELETE", "history", 204)
    result["after_reset"], _ = await leaky.request("PUT", "docs/again", 201, {"words": []})
    print(json.dumps(result), flush=True)


# ---- What it must show ---------------------------------------------------------------------------


def print_summary(tenants: dict[str, Tenant], load: dict[str, Any]) -> None:
    """Print the tree as ``objcg tree`` shows it from outside, and a line per tenant."""
    sys.stdout.flush()
    subprocess.run([sys.executable, "-m", "objcg", "tree", str(os.getpid())], check=False)
    print(f"\n{'tenant':10}{'max':>9}{'peak':>10}{'over':>9}{'p50 ms':>8}{'p99 ms':>8}  answers")
    for name, tenant in tenants.items():
        limit, peak = tenant.group.memory.max or 0, tenant.group.memory.peak
        p50, p99 = load["latency_ms"][name]
        answers = "  ".join(f"{status}: {n:,}" for status, n in load["statuses"][name].items())
        print(
            f"{name:10}{limit / MIB:8.0f}M{peak / MIB:9.2f}M{max(0, peak - limit) / 1024:8.0f}K"
            f"{p50:8.2f}{p99:8.2f}  {answers}"
        )
    print()
    for tenant in tenants.values():
        for error, times in tenant.refused.items():
            print(f"{tenant.name}: {error} {times} times, at its limit of {LIMITS[tenant.name]}")
        if tenant.last_refusal:
            print(f"{tenant.name}: the last refusal says: {tenant.last_refusal}")
    print(
        f"{load['requests']:,} requests; audit drift {objcg.audit().drift} bytes; "
        f"most resident memory {resident_bytes('VmHWM') / MIB:.0f} MiB"
    )


def unmet_expectations(tenants: dict[str, Tenant], load: dict[str, Any]) -> list[str]:
    """Say what is not as this example claims; nothing when all is."""
    if load.get("exit") != 0 or "latency_ms" not in load:
        return [f"the load generator failed with exit status {load.get('exit')}"]
    unmet = list(load["first_failures"])
    unmet += [f"{name} was not served" for name in STEADY if not load["statuses"][name]]
    for name, error in (("leaky", "MemoryLimitExceeded"), ("bulky", "MemoryError")):
        if not tenants[name].refused[error]:
            unmet.append(f"{name} did not hit its limit: no {error} was raised")
        if not load[name]:
            unmet.append(f"{name} was never answered 507")
    for name, tenant in tenants.items():
        limit, peak = tenant.group.memory.max or 0, tenant.group.memory.peak
        if peak > limit + limit // 8 + 4 * MIB:  # There even small allocations fail.
            unmet.append(f"{name} was charged {peak} bytes, over the ceiling of its limit {limit}")
    if load["after_reset"] != 201:
        unmet.append(f"leaky could not store after its history was dropped: {load['after_reset']}")
    if resident_bytes("VmHWM") > EXPORT_BYTES:
        unmet.append("the process took the memory of an export that was refused")
    if objcg.audit().drift != 0:
        unmet.append(f"the audit found a drift of {objcg.audit().drift} bytes")
    return unmet


def main() -> int:
    """Run the demonstration; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to send requests")
    parser.add_argument("--port", type=int, default=0, help="port to serve on; 0: a free one")
    parser.add_argument("--quiet", action="store_true", help="print only what went wrong")
    parser.add_argument("--load-on", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load_on:
        asyncio.run(generate_load(options.load_on, options.seconds))
        return 0
    objcg.enable()
    tenants = open_tenants()
    load = asyncio.run(serve(tenants, options))
    unmet = unmet_expectations(tenants, load)
    if not options.quiet and "latency_ms" in load:
        print_summary(tenants, load)
    for reason in unmet:
        print(f"tenants: {reason}", file=sys.stderr)
    if not unmet and not options.quiet:
        print("both offenders hit their own limit; every request of the others succeeded")
    return 1 if unmet else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
