"""Event loops that are not CPython's: uvloop's tasks and gevent's greenlets have groups as well."""

from __future__ import annotations

import importlib.util
import textwrap

import pytest

from .programs import run_checked

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gevent") is None or importlib.util.find_spec("uvloop") is None,
    reason="needs gevent and uvloop, of the extra 'libraries' (make .venv/.libraries)",
)

# A server, each of whose requests runs in the group of its tenant, and keeps what it was sent.
SERVER = """
import asyncio, gc
import uvloop
import objcg

objcg.enable()
TENANTS = 5
held = {n: [] for n in range(TENANTS)}
stopped = []

async def serve(reader, writer):
    while line := await reader.readline():
        tenant, size = map(int, line.split())
        try:
            with objcg.group(f"/tenant/{tenant}"):
                for _ in range(10):
                    held[tenant].append([bytes(100) for _ in range(size // 10)])
                    await asyncio.sleep(0)
            writer.write(b"kept\\n")
        except MemoryError:
            held[tenant].clear()
            stopped.append(tenant)
            writer.write(b"stopped\\n")
        await writer.drain()
    writer.close()

async def ask(port, tenant, size):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = set()
    for _ in range(20):
        writer.write(b"%d %d\\n" % (tenant, size))
        answers.add(await asyncio.wait_for(reader.readline(), 30))
    writer.close()
    return answers

async def main():
    assert type(asyncio.get_running_loop()).__module__ == "uvloop"
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    answers = await asyncio.gather(*(ask(port, n, 500) for n in range(TENANTS)))
    server.close()
    return answers

for n in range(TENANTS):
    objcg.group(f"/tenant/{n}")
"""


def run_loop(code: str) -> list[str]:
    return run_checked(textwrap.dedent(code))


def test_requests_on_uvloop_are_charged_to_their_tenants() -> None:
    words = run_loop(
        SERVER
        + """
answers = uvloop.run(main())
gc.collect()
# 20 requests of 500 blocks of 144 bytes, and the lists' pointers
expected = 20 * (500 * 144 + 10 * (8 * 50 + 72))
for n in range(TENANTS):
    current = objcg.group(f"/tenant/{n}").memory.current
    print(answers[n] == {b"kept\\n"}, abs(current - expected) < 0.03 * expected)
print(objcg.audit().drift)
"""
    )
    assert words == ["True"] * 10 + ["0"]


def test_a_limit_stops_one_tenant_on_uvloop_and_no_other() -> None:
    words = run_loop(
        SERVER
        + """
objcg.group("/tenant/3", max="400K")
answers = uvloop.run(main())
gc.collect()
print(sorted(set(stopped)), b"stopped\\n" in answers[3], end=" ")
print(all(answers[n] == {b"kept\\n"} for n in range(TENANTS) if n != 3), objcg.audit().drift)
"""
    )
    assert words == ["[3]", "True", "True", "0"]


GREENLETS = """
from gevent import monkey
monkey.patch_all()
import gc
import gevent
from gevent.pool import Pool
import objcg

objcg.enable()

def work(group, size):
    held = []
    with group:
        for _ in range(10):
            held.append([bytes(100) for _ in range(size // 10)])
            gevent.sleep(0)
            assert objcg.current_group() == group
    return held

groups = [objcg.group(f"/greenlets/{n}") for n in range(5)]
"""


def test_greenlets_of_gevent_are_charged_to_their_groups() -> None:
    words = run_loop(
        GREENLETS
        + """
lets = [gevent.spawn(work, group, 10_000) for group in groups]
gevent.joinall(lets, raise_error=True)
assert objcg.current_group() == objcg.root
gc.collect()
expected = 10_000 * 144 + 10 * (8 * 1000 + 72)
for group in groups:
    print(abs(group.memory.current - expected) < 0.03 * expected)
del lets
gevent.sleep(0.01)  # until then the hub has the last one
gc.collect()
print(all(group.memory.current <= 16 * 1024 for group in groups), objcg.audit().drift)
"""
    )
    assert words == ["True"] * 6 + ["0"]


def test_a_greenlet_begins_in_root_and_a_thread_in_the_group_of_who_started_it() -> None:
    """gevent gives a greenlet an empty context; under it, threads are greenlets too."""
    words = run_loop(
        GREENLETS
        + """
import threading
seen = []
def see():
    gevent.sleep(0)
    seen.append(objcg.current_group().path)
with groups[1]:
    greenlet = gevent.spawn(see)
    greenlet.join()
    thread = threading.Thread(target=see)
    thread.start()
    thread.join()
    print(objcg.current_group().path)
print(*seen, objcg.audit().drift)
"""
    )
    assert words == ["/greenlets/1", "/", "/greenlets/1", "0"]


def test_a_limit_stops_one_greenlet_and_no_other() -> None:
    words = run_loop(
        GREENLETS
        + """
groups[2].memory.max = "500K"
gevent.get_hub().NOT_ERROR += (MemoryError,)  # not to be printed
lets = [gevent.spawn(work, group, 10_000) for group in groups]
gevent.joinall(lets)
print([n for n, let in enumerate(lets) if isinstance(let.exception, MemoryError)])
print(sum(let.successful() for let in lets), objcg.audit().drift)
"""
    )
    assert words == ["[2]", "4", "0"]
