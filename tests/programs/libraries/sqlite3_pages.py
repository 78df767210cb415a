"""sqlite3: a database in memory has its pages, of 64 KiB here, and little for each beside it."""

import sqlite3

from holding import hold

ROWS, BLOB = 400, 60_000


def make():
    database = sqlite3.connect(":memory:", check_same_thread=False)
    database.execute("PRAGMA page_size = 65536")
    database.execute("CREATE TABLE t (data BLOB)")
    with database:
        database.executemany("INSERT INTO t VALUES (zeroblob(?))", ((BLOB,) for _ in range(ROWS)))
    return database


def expected(database):
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    (size,) = database.execute("PRAGMA page_size").fetchone()
    assert size == 65536
    return pages * size


hold(make, expected, needs="native", version=sqlite3.sqlite_version)
