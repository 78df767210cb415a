"""What objcg has a program load: next to nothing, and what comes later is found all the same."""

from __future__ import annotations

from .programs import run_checked


def test_a_program_loads_no_module_of_the_library_for_objcg() -> None:
    """Each costs every program memory and time to start, whether it uses it or not."""
    loaded = run_checked("""
        import sys
        before = set(sys.modules)
        import objcg
        objcg.enable()
        group = objcg.group("/a/b", high="1.5 GiB")
        with group:
            objcg.current_task().move(objcg.group("/a"))
        group.remove()
        for name in sorted(set(sys.modules) - before):
            if getattr(sys.modules[name], "__file__", None) and not name.startswith("objcg"):
                print(name)
    """)
    # errors.removed() and the like need no more; `from __future__` loads its module
    assert set(loaded) - {"_tracemalloc"} == {"__future__"}


def test_threads_inherit_when_threading_is_imported_after_enable() -> None:
    words = run_checked("""
        import sys
        import objcg
        objcg.enable()
        assert "threading" not in sys.modules
        import threading
        def look():
            print(objcg.current_group().path)
        with objcg.group("/a"):
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
        print(threading.main_thread() is threading.current_thread())
    """)
    assert words == ["/a", "True"]


def test_the_main_thread_is_interrupted_when_another_thread_has_enabled_objcg() -> None:
    """A pending call runs on CPython's main thread only; asked for by others it helps nobody."""
    words = run_checked("""
        import _thread, threading
        import objcg
        done = _thread.allocate_lock()
        done.acquire()
        def enable():
            objcg.enable()
            done.release()
        _thread.start_new_thread(enable, ())
        done.acquire()
        group = objcg.group("/a", max="4M")
        def fill(most):
            held = []
            try:
                with group:
                    while True:
                        held.append(bytes(1000))
            except objcg.MemoryLimitExceeded as error:
                print(len(held) < most)
        fill(4500)  # exact: asked for in the allocation that went over
        thread = threading.Thread(target=fill, args=(10_000,))
        thread.start()
        thread.join()
    """)
    assert words == ["True", "True"]
