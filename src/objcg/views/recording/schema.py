"""The tables of a recording, and how a file is known to be one."""

from __future__ import annotations

import os
import stat
import struct

APPLICATION_ID = 0x4F434752  # "OCGR"
VERSION = 1

# Begun by no reader: what SQLite keeps at these places of every database (its file format, 1.3).
_MAGIC = b"SQLite format 3\0"
_HEADER = 100
_USER_VERSION = 60
_APPLICATION_ID = 68

TABLES = """
CREATE TABLE process (
    pid INTEGER NOT NULL,
    start_time INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    user INTEGER NOT NULL,
    created INTEGER NOT NULL,
    startup INTEGER NOT NULL,
    startup_shared INTEGER NOT NULL,
    python TEXT NOT NULL,
    command TEXT NOT NULL
);
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    began INTEGER NOT NULL,
    interval INTEGER NOT NULL,
    objcg TEXT NOT NULL,
    ended INTEGER,
    ending TEXT
);
CREATE TABLE samples (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL REFERENCES sessions,
    at INTEGER NOT NULL,
    clock INTEGER NOT NULL,
    rss INTEGER,
    rss_shared INTEGER,
    key INTEGER NOT NULL,
    frame BLOB NOT NULL
);
CREATE TABLE groups (
    id INTEGER PRIMARY KEY,
    uid INTEGER NOT NULL,
    parent INTEGER REFERENCES groups,
    name TEXT NOT NULL,
    first INTEGER NOT NULL REFERENCES samples,
    last INTEGER REFERENCES samples
);
CREATE TABLE events (
    sample INTEGER NOT NULL REFERENCES samples,
    "group" INTEGER NOT NULL REFERENCES groups,
    event TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (sample, "group", event)
) WITHOUT ROWID;
CREATE VIEW paths (id, path) AS
    WITH RECURSIVE below (id, path) AS (
        SELECT id, '' FROM groups WHERE parent IS NULL
        UNION ALL
        SELECT groups.id, below.path || '/' || groups.name
        FROM groups JOIN below ON groups.parent = below.id
    )
    SELECT id, CASE path WHEN '' THEN '/' ELSE path END FROM below;
CREATE VIEW happened (time, path, event, count) AS
    SELECT strftime('%Y-%m-%d %H:%M:%f', samples.at / 1e9, 'unixepoch'), path, event, count
    FROM events JOIN samples ON samples.id = sample JOIN paths ON paths.id = "group"
    ORDER BY sample;
"""


class RecordingError(Exception):
    """The file is no recording, or it cannot be read or written. The text names it."""


def is_recording(path: str, fd: int) -> bool:
    """Say whether the file open as `fd` is a recording; False: it is empty.

    It is looked at, and not opened by SQLite, which would repair what an interrupted program has
    left of a database: of somebody else's too. Raises RecordingError: it is something else.
    """
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise RecordingError(f"{path}: it is not a regular file")
    header = os.pread(fd, _HEADER, 0)
    if not header:
        return False
    if len(header) < _HEADER or not header.startswith(_MAGIC):
        raise RecordingError(f"{path}: it is not a recording of objcg")
    (version,) = struct.unpack_from(">I", header, _USER_VERSION)
    (application,) = struct.unpack_from(">I", header, _APPLICATION_ID)
    if application != APPLICATION_ID:
        raise RecordingError(f"{path}: it is an SQLite database, but not a recording of objcg")
    if version != VERSION:
        raise RecordingError(
            f"{path}: it is a recording of version {version}; this objcg knows version {VERSION}"
        )
    return True
