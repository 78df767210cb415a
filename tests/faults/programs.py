"""Small programs that use much of the library, to be run with one of their allocations failing.

Each can be run again and again in one process, leaves nothing behind, and makes some hundred
allocations to a few thousand. None of them handles a MemoryError, unless the library does.
"""

from __future__ import annotations

import array
import ast
import asyncio
import collections
import contextlib
import contextvars
import csv
import dataclasses
import datetime as dt
import decimal
import email
import email.message
import email.policy
import enum
import functools
import gc
import importlib
import io
import itertools
import json
import os
import pickle
import queue
import re
import shutil
import sqlite3
import struct
import sys
import tempfile
import threading
import traceback
import weakref

DOCUMENT = {"name": "é" * 20, "list": [1, 2.5, None, True, "x" * 40], "nested": {"a": {"b": []}}}
PROGRAMS = {}


def program(function):
    PROGRAMS[function.__name__] = function
    return function


# ---- data ----------------------------------------------------------------------------------------


@program
def containers():
    table = {str(number): [number] for number in range(60)}
    table.update(dict.fromkeys(range(60), "value"))
    ordered = collections.OrderedDict(zip("abcdef", range(6), strict=True))
    ordered.move_to_end("a")
    counted = collections.Counter("abracadabra" * 3) + collections.Counter("xyz")
    line = collections.deque(range(200), maxlen=150)
    line.extend([1] * 20)
    both = set(map(str, range(50))) | frozenset(map(str, range(40, 90)))
    chain = collections.ChainMap({"a": 1}, ordered, counted)
    point = collections.namedtuple("Point", "x y")(1, 2)._replace(x=3)  # noqa: PYI024
    items = sorted(both, key=len, reverse=True)
    assert len(items) == 90
    assert chain["a"] == 1
    assert point.x == 3
    assert len(table) == 120


@program
def buffers():
    data = bytearray()
    for number in range(40):
        data += bytes([number]) * (number * 30)  # grows small, medium and large
    del data[100:]
    numbers = array.array("q", range(300))
    numbers.extend(numbers[:100])
    view = memoryview(numbers).cast("B")[8:800].tobytes()
    packed = struct.pack("<10sIQd", b"name", 1, 2, 3.0) * 50
    assert len(list(struct.iter_unpack("<10sIQd", packed))) == 50
    grown = []
    for number in range(2000):
        grown.append(number)
    while len(grown) > 10:
        del grown[len(grown) // 2 :]
    assert bytes(100_000).count(0) == 100_000
    assert len(view) == 792


@program
def text():
    line = "".join(chr(65 + number % 26) for number in range(300))
    line += "é" * 30 + "\U0001f600" * 10
    for name in ("utf-8", "utf-16", "utf-7", "raw_unicode_escape"):
        assert line.encode(name).decode(name) == line
    words = (line + " tail ").replace("A", "<>").split("B")
    assert "B".join(words).strip().lower().title().casefold().partition("x")[0]
    "%s %r %10.3f %(a)s".replace("%(a)s", "") % ("a", "b", 2.0)
    f"{line!r:>500} {2**200:,} {3.14:e} {dt.date(2020, 1, 1):%A}"
    line.translate({65: "ab", 66: None})
    assert int("9" * 100) ** 3
    assert str(2**500)
    assert complex("1+2j")
    assert float("1e300")


@program
def numbers():
    with decimal.localcontext() as context:
        context.prec = 60
        assert (decimal.Decimal(2).sqrt() ** 3 / decimal.Decimal("7.1")).quantize(
            decimal.Decimal("0.01")
        )
    moment = dt.datetime(2024, 2, 29, tzinfo=dt.timezone.utc)
    later = [moment + dt.timedelta(days=day) for day in range(20)]
    assert dt.datetime.fromisoformat(later[3].isoformat()) == later[3]
    assert sum(number**17 // 3 for number in range(50))
    assert pow(3, 1000, 10**30)


# ---- formats -------------------------------------------------------------------------------------


@program
def json_():
    for indent in (None, 2):
        assert json.loads(json.dumps(DOCUMENT, indent=indent, sort_keys=True)) == DOCUMENT
    with contextlib.suppress(ValueError):
        json.loads('{"a": [1, 2, }')


@program
def regular_expressions():
    re.purge()
    found = re.findall(r"(?P<word>\w+)[:=]\s*(\d{1,4}|\"[^\"]*\")", 'a: 1, b=22, c: "three" ' * 5)
    assert len(found) == 15
    assert re.sub(r"(a)(b)?", lambda match: match.group(1) * 2, "ab ac" * 10)


@dataclasses.dataclass
class Record:
    name: str
    values: list = dataclasses.field(default_factory=list)

    def __reduce__(self):
        return Record, (self.name, self.values)


@program
def pickles():
    records = [Record(f"name{number}", [number, float(number), None]) for number in range(10)]
    records.append({"again": records[0], "all": (records, b"x" * 300, {1, 2})})
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(records, protocol))[0] == records[0]


@program
def tables():
    out = io.StringIO()
    writer = csv.DictWriter(out, ["a", "b", "c"], dialect="excel")
    writer.writeheader()
    for number in range(20):
        writer.writerow({"a": number, "b": 'with "quotes"', "c": "x" * number})
    out.seek(0)
    assert len(list(csv.DictReader(out))) == 20


@program
def messages():
    message = email.message.EmailMessage(policy=email.policy.SMTP)
    message["Subject"] = "Grüße"
    message["To"] = "someone@example.org"
    message.set_content("text\n" * 3)
    parsed = email.message_from_bytes(message.as_bytes(), policy=email.policy.default)
    assert parsed["Subject"] == "Grüße"


@program
def databases():
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.row_factory = sqlite3.Row
        database.create_function("twice", 1, lambda value: value * 2)
        database.execute("create table t (a integer primary key, b text)")
        database.executemany("insert into t (b) values (?)", [("x" * n,) for n in range(20)])
        rows = database.execute("select twice(b) as c from t where a > ?", (5,)).fetchall()
        assert len(rows) == 15
        assert rows[3]["c"]
        with contextlib.suppress(sqlite3.Error):
            database.execute("select nothing from nowhere")


@program
def files():
    folder = tempfile.mkdtemp()
    try:
        name = os.path.join(folder, "file")
        with open(name, "w", encoding="utf-8") as file:
            file.writelines(f"line {number}\n" for number in range(50))
        with open(name, encoding="utf-8") as file:
            assert sum(1 for _ in file) == 50
        with open(name, "rb", buffering=0) as file:
            assert len(file.read()) > 300
        assert os.listdir(folder) == ["file"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---- the language --------------------------------------------------------------------------------


@program
def classes():
    class Meta(type):
        def __new__(cls, name, bases, namespace):
            return super().__new__(cls, name, bases, {**namespace, "made": True})

    class Base(metaclass=Meta):
        __slots__ = ("__weakref__", "value")

        def __init__(self, value):
            self.value = value

        @property
        def twice(self):
            return self.value * 2

        @functools.cached_property
        def cached(self):
            return self

    class Derived(Base):
        def __del__(self):
            self.value = None

    class Colour(enum.Enum):
        RED = 1
        GREEN = 2

    @dataclasses.dataclass(frozen=True, order=True)
    class Point:
        x: int
        y: int = 0

    held = [Derived(number) for number in range(20)]
    held[0].cycle = held
    noted = weakref.WeakValueDictionary(enumerate(held))
    assert held[3].twice == 6
    assert len(noted) == 20
    assert Colour(2) is Colour.GREEN
    assert Point(1) < Point(2)
    assert held[5].cached is held[5]


@program
def generators():
    def numbers(count):
        try:
            for number in range(count):
                yield str(number)
        finally:
            held.append("closed")

    def delegating():
        result = yield from numbers(5)
        return result

    async def pause():
        return [number async for number in asynchronous()]

    async def asynchronous():
        for number in range(5):
            yield number

    held = []
    assert len(list(delegating())) == 5
    early = numbers(10)
    next(early)
    early.close()
    thrown = numbers(10)
    next(thrown)
    with contextlib.suppress(KeyError):
        thrown.throw(KeyError("x"))
    awaited = pause()
    with contextlib.suppress(StopIteration):
        awaited.send(None)
    pairs = itertools.product(numbers(4), itertools.chain("ab", numbers(3)))
    assert len(list(itertools.islice(pairs, 15))) == 15
    assert functools.reduce(lambda a, b: a + b, map(str, range(20)))
    assert len(held) == 5


@program
def contexts():
    @contextlib.contextmanager
    def managed(name):
        entered.append(name)
        try:
            yield name
        finally:
            entered.pop()

    entered = []
    variable = contextvars.ContextVar("variable", default=0)
    with contextlib.ExitStack() as stack:
        for number in range(10):
            stack.enter_context(managed(str(number)))
        stack.callback(variable.set, 3)
        with contextlib.suppress(ZeroDivisionError), contextlib.redirect_stdout(io.StringIO()):
            print(1 // 0)
    copy = contextvars.copy_context()
    assert copy.run(variable.get) == 3
    assert not entered
    variable.set(0)


@program
def tracebacks():
    def fails(depth):
        if depth:
            fails(depth - 1)
        try:
            raise ValueError("inner" * 10)
        except ValueError as error:
            raise KeyError("outer") from error

    try:
        fails(4)
    except KeyError as error:
        assert "inner" in "".join(traceback.format_exception(error))
        assert len(traceback.extract_tb(error.__traceback__)) == 6
    with contextlib.suppress(RecursionError):
        recurse()


def recurse():
    return [recurse()]


# Text, since 3.10 cannot read it.
EXCEPTION_GROUPS = """
def exception_groups():
    try:
        try:
            raise ExceptionGroup("several", [ValueError(1), TypeError(2), KeyError(3)])
        except* ValueError as group:
            group.add_note("note")
            raise
        except* TypeError:
            pass
    except BaseExceptionGroup as group:
        rest, found = group.split(KeyError)
        assert rest and found
        "".join(traceback.format_exception(group))
"""
if sys.version_info >= (3, 11):
    exec(EXCEPTION_GROUPS)
    program(exception_groups)  # noqa: F821


SOURCE = """
import sys
def outer(a, *b, c=1, **d):
    x = [i for i in range(a) if i % 2]
    class Inner:
        y: int = 3
        def method(self): return lambda: (x, self)
    try:
        with Inner() as z: pass
    except (TypeError, AttributeError) as error: return f"{error!r} {c:>10}"
    match a:
        case [1, {"k": v}]: return v
        case _: return None
RESULT = outer(10)
"""


@program
def compiling():
    tree = ast.parse(SOURCE)
    assert sum(1 for _ in ast.walk(tree)) > 90
    namespace = {}
    exec(compile(tree, "<program>", "exec"), namespace)
    assert namespace["RESULT"]
    with contextlib.suppress(SyntaxError):
        compile("def f(:\n", "<program>", "exec")
    namespace.clear()


MODULE_FOLDER = ""


@program
def imports():
    global MODULE_FOLDER
    if not MODULE_FOLDER:
        MODULE_FOLDER = tempfile.mkdtemp()
        os.mkdir(os.path.join(MODULE_FOLDER, "fault_package"))
        for name, source in (
            ("__init__", "from . import part\nfrom .part import RESULT\n"),
            ("part", SOURCE),
            ("broken", "1 // 0\n"),
        ):
            with open(os.path.join(MODULE_FOLDER, "fault_package", name + ".py"), "w") as file:
                file.write(source)
    sys.path.insert(0, MODULE_FOLDER)
    try:
        assert importlib.import_module("fault_package").RESULT
        with contextlib.suppress(ZeroDivisionError):
            importlib.import_module("fault_package.broken")
        with contextlib.suppress(ImportError):
            importlib.import_module("fault_package.missing")
    finally:
        sys.path.remove(MODULE_FOLDER)
        for name in list(sys.modules):
            if name.startswith("fault_package"):
                del sys.modules[name]


@program
def collecting():
    class Node:
        def __init__(self, other):
            self.other = other

        def __del__(self):
            ended.append(str(self))

    ended = []
    for _ in range(10):
        first = Node(None)
        first.other = Node(first)
        weakref.finalize(first, ended.append, "finalised")
    del first
    gc.collect()
    assert len(ended) <= 30  # what fails in a finaliser goes to sys.unraisablehook


# ---- threads and tasks ---------------------------------------------------------------------------


@program
def threads():
    def work(jobs):
        while (job := jobs.get()) is not None:
            results.append("x" * job)

    results = []
    queues = [queue.SimpleQueue() for _ in range(3)]
    workers = [threading.Thread(target=work, args=(jobs,), daemon=True) for jobs in queues]
    started = []
    try:
        for worker in workers:
            worker.start()
            started.append(worker)
        for number, jobs in enumerate(queues * 5):
            jobs.put(number)
    finally:
        for jobs in queues:
            put_until_taken(jobs)
        for worker in started:
            worker.join(2)
    assert len(results) <= 15  # a thread that failed has said so by threading.excepthook


def put_until_taken(jobs):
    for _ in range(100):
        try:
            jobs.put(None)
            return
        except MemoryError:
            pass


async def echo(reader, writer):
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()


async def ask(port, words):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(words + b"\n")
        return await reader.readline()
    finally:
        writer.close()


async def serve():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        return await asyncio.wait_for(
            asyncio.gather(*(ask(port, b"words" * number) for number in range(2))), 2
        )


@program
def server():
    assert len(asyncio.run(serve())) == 2


@program
def tasks():
    async def step(number):
        await asyncio.sleep(0)
        return str(number)

    async def all_of():
        lock = asyncio.Lock()
        async with lock:
            made = [asyncio.ensure_future(step(number)) for number in range(5)]
            await asyncio.wait(made)
        stopped = asyncio.ensure_future(asyncio.sleep(10))
        await asyncio.sleep(0)
        stopped.cancel()
        await asyncio.gather(stopped, return_exceptions=True)
        return [task.result() for task in made]

    assert len(asyncio.run(asyncio.wait_for(all_of(), 5))) == 5
