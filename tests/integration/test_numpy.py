"""NumPy's arrays: who is charged for their data, and with how many bytes."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import io
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from extensions.build import build

import objcg

from .charges import MIB, RESIDUE, charge, resident

if TYPE_CHECKING:
    import types
    from collections.abc import Callable
    from pathlib import Path

try:
    from numpy._core import _multiarray_umath as c_module
except ImportError:  # NumPy 1
    from numpy.core import _multiarray_umath as c_module

SIZES = (1, 8, 15, 16, 17, 100, 512, 513, 800, 1023, 1024, 4000, 8192, 8193, 32768, 99_999, 5 * MIB)
"""Around the bounds of all ways to a block: classes, NumPy's own cache, medium, large, huge."""


def data(group: objcg.Group) -> int:
    """Return the bytes of arrays' data that a group is charged with."""
    return group.memory.stat["numpy"]


def charge_of(array: np.ndarray[Any, Any]) -> int:
    """Return what an array with data of its own is charged with for that."""
    return charge(max(1, array.nbytes))


def in_thread(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


@pytest.fixture(scope="module")
def handlers(tmp_path_factory: pytest.TempPathFactory) -> types.ModuleType:
    """Build and import ``tests/extensions/numpy_handlers``."""
    return build("numpy_handlers", tmp_path_factory.mktemp("numpy_handlers"))


# ---- How many bytes ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", [np.empty, np.zeros, np.ones])
def test_an_array_is_charged_to_the_byte(
    fresh_group: objcg.Group, make: Callable[..., np.ndarray[Any, Any]], size: int
) -> None:
    with fresh_group:
        arrays = [make(size, dtype=np.uint8) for _ in range(5)]
    assert data(fresh_group) == 5 * charge(size)
    assert all(array.ctypes.data % 16 == 0 for array in arrays)
    if make is not np.empty:
        assert all((array == make(1)[0]).all() for array in arrays)
    del arrays[1:3]
    assert data(fresh_group) == 3 * charge(size)
    arrays.clear()
    assert data(fresh_group) == 0


def test_zeros_are_zeros_in_memory_that_was_used_before(fresh_group: objcg.Group) -> None:
    with fresh_group:
        for size in SIZES:
            used = [np.full(size, 255, dtype=np.uint8) for _ in range(20)]
            del used
            assert not any(np.zeros(size, dtype=np.uint8).any() for _ in range(20))


def test_all_ways_to_an_array_are_charged(fresh_group: objcg.Group) -> None:
    with fresh_group:
        a = np.arange(1000.0)
        b = a + a
        arrays = [
            a,
            b,
            a.copy(),
            a.astype(np.int16),
            np.array(list(range(300))),
            np.array(["text", "longer text"]),
            np.array([{}, None, "object"], dtype=object),
            np.zeros(10, dtype=[("x", np.int32), ("y", np.float64)]),
            np.concatenate([a, b]),
            np.sort(a[::-1]),
            np.outer(a[:50], b[:50]),
            np.fromiter(range(777), dtype=np.int64, count=777),
            np.where(a > 10)[0].copy(),
            np.pad(a, 5),
            np.array(7.0),
        ]
        assert all(array.flags.owndata for array in arrays)
    assert data(fresh_group) == sum(map(charge_of, arrays))
    arrays.clear()
    del a, b
    assert data(fresh_group) == 0


def test_a_large_payload_and_nothing_after(fresh_group: objcg.Group) -> None:
    with fresh_group:
        arrays = [np.ones(length) for length in (10, 100, 1000, 10_000) for _ in range(100)]
    expected = sum(array.nbytes for array in arrays)
    assert abs(data(fresh_group) - expected) <= expected // 50 + 64 * 1024
    assert fresh_group.memory.current >= data(fresh_group)
    arrays.clear()
    gc.collect()
    assert data(fresh_group) == 0
    assert 0 <= fresh_group.memory.current <= RESIDUE


@pytest.mark.parametrize("shape", [(0,), (0, 5), (3, 0, 2)])
def test_arrays_without_elements(fresh_group: objcg.Group, shape: tuple[int, ...]) -> None:
    with fresh_group:
        arrays = [np.zeros(shape), np.empty(shape, dtype="S0"), np.array([], dtype=np.uint8)]
    # NumPy takes one byte, or one element (older versions, and as if zeros in a shape were ones)
    assert 3 * 16 <= data(fresh_group) <= 3 * charge(6 * 8)
    arrays.clear()
    assert data(fresh_group) == 0


def test_what_has_no_data_of_its_own_is_not_charged(
    fresh_group: objcg.Group, tmp_path: Path
) -> None:
    held = np.arange(10_000.0)
    buffer = bytearray(80_000)
    (tmp_path / "data").write_bytes(bytes(800_000))
    with fresh_group:
        views = [held[10:], held[::2], held.reshape(100, 100).T, np.frombuffer(buffer)]
        mapped = np.memmap(tmp_path / "data", dtype=np.float64, mode="r")
    assert data(fresh_group) == 0
    assert fresh_group.memory.current <= RESIDUE
    del views, mapped


def test_a_view_keeps_the_data_charged(fresh_group: objcg.Group) -> None:
    with fresh_group:
        whole = np.zeros(10_000)
        view = whole[5:6]
        del whole
    assert data(fresh_group) == 80_000
    del view
    assert data(fresh_group) == 0


def test_loading_charges_who_loads(fresh_group: objcg.Group) -> None:
    saved = io.BytesIO()
    np.save(saved, np.arange(5000.0))
    saved.seek(0)
    picked = pickle.dumps(np.arange(5000.0), protocol=5)
    with fresh_group:
        loaded = np.load(saved)
        assert data(fresh_group) == 40_000
        unpickled = pickle.loads(picked)
        if unpickled.flags.owndata:
            assert data(fresh_group) == 80_000
        else:
            # the bytes that it is a view of are an object
            assert fresh_group.memory.current >= 80_000
    del loaded, unpickled
    assert data(fresh_group) == 0


def test_zeros_take_no_memory_before_they_are_written(fresh_group: objcg.Group) -> None:
    before = resident()
    with fresh_group:
        array = np.zeros(1 << 32, dtype=np.uint8)
    assert data(fresh_group) == 1 << 32
    assert resident() - before < 8 * MIB
    del array
    assert data(fresh_group) == 0


# ---- Resizing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [SIZES, SIZES[::-1], (1, 5 * MIB, 16, 8193, 8192, 40, 600, 520)])
def test_resizing_is_charged_to_the_byte_and_keeps_the_data(
    fresh_group: objcg.Group, sizes: tuple[int, ...]
) -> None:
    pattern = np.arange(max(sizes) + 1, dtype=np.uint32).astype(np.uint8)
    with fresh_group:
        array = pattern[: sizes[0]].copy()
        before = array.nbytes
        for size in sizes:
            array.resize(size, refcheck=False)
            kept = min(before, size)
            assert (array[:kept] == pattern[:kept]).all()
            assert not array[kept:].any()
            # a small block may stay where it is while three quarters of it are in use
            assert charge(size) <= data(fresh_group) <= max(charge(size), 4 * charge(size) / 3)
            array[:] = pattern[:size]
            before = size
        del array
    assert data(fresh_group) == 0


def test_an_array_that_grows_in_another_group_is_charged_once(fresh_group: objcg.Group) -> None:
    first, second = (objcg.group(f"{fresh_group.path}/{name}") for name in ("a", "b"))
    with first:
        array = np.ones(100)
    for length in (1000, 10_000, 1_000_000, 50, 2000):
        with second:
            array.resize(length, refcheck=False)
        assert (array[:50] == 1).all()
        assert data(first) + data(second) == data(fresh_group)
        assert array.nbytes <= data(fresh_group) <= 4 * charge(array.nbytes) / 3
    del array
    assert (data(first), data(second)) == (0, 0)


# ---- Who pays ------------------------------------------------------------------------------------


def test_contexts_and_threads_that_are_older_or_new_are_all_charged(
    fresh_group: objcg.Group,
) -> None:
    """The handler is the value of a context variable: ours must not depend on the context."""
    arrays: list[Any] = []
    older = contextvars.copy_context()

    def make() -> None:
        with fresh_group:
            arrays.append(np.ones(1000))

    contextvars.Context().run(make)
    older.run(make)
    in_thread(make)
    in_thread(lambda: contextvars.Context().run(make))
    asyncio.run(_make_in_task(make))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(make).result()
    assert data(fresh_group) == 6 * 8000
    arrays.clear()
    assert data(fresh_group) == 0


async def _make_in_task(make: Callable[[], None]) -> None:
    await asyncio.create_task(_call(make))


async def _call(function: Callable[[], None]) -> None:
    function()


@pytest.mark.parametrize("size", SIZES)
def test_the_owner_is_uncharged_whoever_frees(fresh_group: objcg.Group, size: int) -> None:
    owner, other = (objcg.group(f"{fresh_group.path}/{name}") for name in ("owner", "other"))
    with owner:
        arrays = [np.ones(size, dtype=np.uint8) for _ in range(10)]
    assert (data(owner), data(other)) == (10 * charge(size), 0)
    with other:
        del arrays[5:]
    in_thread(arrays.pop)
    assert (data(owner), data(other)) == (4 * charge(size), 0)
    arrays.clear()
    assert (data(owner), data(other)) == (0, 0)


def test_a_task_that_moves_and_a_group_that_is_removed(fresh_group: objcg.Group) -> None:
    first, second = (objcg.group(f"{fresh_group.path}/{name}") for name in ("a", "b"))
    with first:
        early = np.ones(1000)
        objcg.current_task().move(second)
        late = np.ones(1000)
    assert (data(first), data(second)) == (8000, 8000)
    first.remove(force=True)
    second.remove(force=True)
    assert data(fresh_group) == 16_000
    del early, late
    assert data(fresh_group) == 0


def test_threads_that_make_and_free_each_others_arrays(fresh_group: objcg.Group) -> None:
    groups = [objcg.group(f"{fresh_group.path}/{number}") for number in range(4)]
    shared: list[Any] = [None] * 64

    def churn(number: int) -> None:
        with groups[number]:
            for step in range(3000):
                size = SIZES[(step * 7 + number) % (len(SIZES) - 1)]
                array = np.full(size, number, dtype=np.uint8)
                slot = (step * 13 + number * 5) % len(shared)
                before, shared[slot] = shared[slot], array
                if before is not None:
                    assert before.min() == before.max() < 4

    with ThreadPoolExecutor(4) as pool:
        for job in [pool.submit(churn, number) for number in range(4)]:
            job.result()
    assert data(fresh_group) == sum(charge_of(array) for array in shared if array is not None)
    shared.clear()
    assert [data(group) for group in groups] == [0, 0, 0, 0]


def test_the_audit_finds_every_array(fresh_group: objcg.Group) -> None:
    with fresh_group:
        arrays = [np.ones(size, dtype=np.uint8) for size in SIZES]
    audit = objcg.audit()
    counted, recomputed = audit.groups[fresh_group.path]
    assert counted == recomputed >= sum(map(charge_of, arrays))
    assert audit.drift == 0


# ---- Limits --------------------------------------------------------------------------------------


def test_an_array_above_max_fails_at_once_and_takes_nothing(fresh_group: objcg.Group) -> None:
    fresh_group.memory.max = 4 * MIB
    before = resident("VmPeak")
    with fresh_group:
        with pytest.raises(MemoryError, match="Unable to allocate") as caught:
            np.ones((1 << 30,))
        assert type(caught.value).__qualname__ == "_ArrayMemoryError"
        assert not isinstance(caught.value, objcg.MemoryLimitExceeded)
        with pytest.raises(MemoryError):
            np.zeros(MIB)
        array = np.ones(MIB // 8)
        with pytest.raises(MemoryError):
            array.resize(MIB, refcheck=False)
        assert array.nbytes == MIB
        assert (array == 1).all()
    assert data(fresh_group) == MIB
    assert resident("VmPeak") - before < 64 * MIB
    assert fresh_group.memory.events["max"] >= 1
    del array
    assert data(fresh_group) == 0


def test_many_small_arrays_above_max_interrupt_the_task(fresh_group: objcg.Group) -> None:
    fresh_group.memory.max = 4 * MIB
    arrays: list[Any] = []

    def fill() -> None:
        with fresh_group:
            while len(arrays) < 100_000:
                arrays.append(np.ones(100))

    with pytest.raises(objcg.MemoryLimitExceeded):
        fill()
    assert 3_000_000 < data(fresh_group) <= 5 * MIB
    arrays.clear()
    gc.collect()
    assert data(fresh_group) == 0


def test_other_groups_are_not_hit_by_a_group_at_its_limit(fresh_group: objcg.Group) -> None:
    full, other = (objcg.group(f"{fresh_group.path}/{name}") for name in ("full", "other"))
    full.memory.max = 2 * MIB
    with full:
        held = np.ones(MIB // 8)
        with pytest.raises(MemoryError):
            np.ones(MIB // 4)
        with other:
            array = np.ones(MIB)
    assert (data(full), data(other)) == (MIB, 8 * MIB)
    del held, array


# ---- Handlers of the program, and calls without the GIL ------------------------------------------


def test_a_handler_that_the_program_sets_stays_its_own(
    handlers: types.ModuleType, fresh_group: objcg.Group
) -> None:
    api = c_module._ARRAY_API
    arrays: list[Any] = []

    def make() -> None:
        handlers.set_own(api)
        with fresh_group:
            arrays.append(np.ones(1000))
            arrays[0].resize(2000, refcheck=False)
        assert c_module.get_handler_name() == "own"
        in_thread(lambda: arrays.append(np.ones(10)))  # at root, by the default handler
        handlers.reset(api)
        with fresh_group:
            arrays.append(np.ones(3000))
            arrays[0].resize(500, refcheck=False)

    contextvars.copy_context().run(make)
    assert handlers.counts() == (1, 0)
    assert [c_module.get_handler_name(a) for a in arrays] == ["own"] + ["default_allocator"] * 2
    assert data(fresh_group) == 24_000
    assert c_module.get_handler_name() == "default_allocator"
    assert c_module.get_handler_version() == 1
    arrays.clear()
    assert handlers.counts() == (0, 0)
    assert data(fresh_group) == 0


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_blocks_made_and_freed_without_the_gil(
    handlers: types.ModuleType, fresh_group: objcg.Group, size: int, *, native: bool
) -> None:
    caller = handlers.Caller(c_module._ARRAY_API)
    root = data(objcg.root)
    payer = objcg.root if native else fresh_group
    with fresh_group:
        np.empty(1)
        before = data(payer)
        caller.allocate(20, size, native)
        assert data(payer) - before == 20 * charge(size)
        caller.resize(2 * size, native)
    in_group = data(payer) - before
    assert charge(2 * size) <= in_group / 20 <= 4 * charge(2 * size) / 3
    caller.free(not native)
    assert data(fresh_group) == 0
    assert data(objcg.root) == root


def test_many_threads_without_the_gil_beside_arrays_with_it(
    handlers: types.ModuleType, fresh_group: objcg.Group
) -> None:
    done = threading.Event()

    def churn(*, native: bool) -> None:
        with fresh_group:
            wrong.append(handlers.Caller(c_module._ARRAY_API).churn(40_000, native, True))

    def make() -> None:
        with fresh_group:
            held: list[Any] = [None] * 50
            for step in range(1_000_000):
                held[step % 50] = np.zeros(SIZES[step % 14], dtype=np.uint8)
                if done.is_set():
                    break

    root = data(objcg.root)
    wrong: list[int] = []
    kinds = (True, False, True, False)
    threads = [threading.Thread(target=churn, kwargs={"native": kind}) for kind in kinds]
    maker = threading.Thread(target=make)
    for thread in (*threads, maker):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    maker.join()
    assert wrong == [0, 0, 0, 0]
    assert data(fresh_group) == 0
    assert data(objcg.root) == root


# ---- Huge pages ----------------------------------------------------------------------------------


def asks_for_huge_pages(address: int) -> bool:
    """Say whether the mapping that this address is in was advised so (``hg`` in smaps)."""
    inside = False
    with open("/proc/self/smaps", encoding="utf-8") as smaps:
        for line in smaps:
            first, _, rest = line.partition(" ")
            begin, dash, end = first.partition("-")
            if dash:
                inside = int(begin, 16) <= address < int(end, 16)
            elif inside and first == "VmFlags:":
                return "hg" in rest.split()
    pytest.fail(f"{address:#x} is in no mapping")


@pytest.mark.skipif(
    not os.path.exists("/sys/kernel/mm/transparent_hugepage"), reason="a kernel without huge pages"
)
@pytest.mark.parametrize("make", [np.empty, np.zeros])
def test_large_arrays_ask_for_huge_pages_as_numpy_does(
    fresh_group: objcg.Group, make: Callable[[int], np.ndarray[Any, Any]]
) -> None:
    was = c_module._set_madvise_hugepage(True)
    try:
        with fresh_group:
            array = make(8 * MIB)
            assert asks_for_huge_pages(array.ctypes.data + 8 * MIB)
            c_module._set_madvise_hugepage(False)
            array = make(12 * MIB)
            assert not asks_for_huge_pages(array.ctypes.data + 8 * MIB)
    finally:
        c_module._set_madvise_hugepage(was)
