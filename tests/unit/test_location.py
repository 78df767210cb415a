from __future__ import annotations

import errno
import os

import pytest
from unit.region_file import start_time

from objcg import _location


@pytest.fixture
def environment(monkeypatch, tmp_path):
    monkeypatch.delenv("OBJCG_DIR", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return monkeypatch


def test_the_chosen_folder_is_the_only_one(environment, tmp_path):
    environment.setenv("OBJCG_DIR", str(tmp_path))
    environment.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    assert _location.folders() == [str(tmp_path)]


def test_a_relative_folder_is_fixed_before_the_program_goes_elsewhere(environment, tmp_path):
    environment.chdir(tmp_path)
    environment.setenv("OBJCG_DIR", "regions")
    assert _location.folders() == [str(tmp_path / "regions")]


def test_the_runtime_folder_comes_before_shared_memory(environment):
    environment.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    assert _location.folders() == ["/run/user/1/objcg", f"/dev/shm/objcg-{os.geteuid()}"]


@pytest.mark.parametrize("value", [None, "", "relative/folder"])
def test_shared_memory_serves_where_there_is_no_runtime_folder(environment, value):
    if value is not None:
        environment.setenv("XDG_RUNTIME_DIR", value)
    assert _location.folders() == [f"/dev/shm/objcg-{os.geteuid()}"]


def test_the_folder_is_made_for_its_owner_only(environment, tmp_path):
    folder = tmp_path / "deep" / "regions"
    environment.setenv("OBJCG_DIR", str(folder))
    assert _location.make_folder() == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert _location.make_folder() == str(folder)


def test_a_runtime_folder_that_does_not_exist_is_passed_over(environment, tmp_path):
    good = tmp_path / "good"
    environment.setattr(_location, "folders", lambda: [str(tmp_path / "no" / "objcg"), str(good)])
    assert _location.make_folder() == str(good)


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o750, 0o755, 0o777])
def test_a_folder_that_others_can_enter_is_refused(environment, tmp_path, mode):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    environment.setenv("OBJCG_DIR", str(folder))
    with pytest.raises(OSError, match=f"{mode:04o}.; chmod it to 0700"):
        _location.make_folder()
    (folder / "1-1.region").touch()
    assert list(_location.files(str(folder))) == []


def test_a_link_to_a_folder_is_refused(environment, tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    environment.setenv("OBJCG_DIR", str(tmp_path / "link"))
    with pytest.raises(OSError, match="not a directory"):
        _location.make_folder()


def test_a_folder_of_somebody_else_is_refused(environment, tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    environment.setattr(os, "geteuid", lambda: 12345)
    environment.setenv("OBJCG_DIR", str(folder))
    with pytest.raises(OSError, match=r"belongs to user \d+, not to 12345"):
        _location.make_folder()


def test_the_file_is_named_after_the_process(environment, tmp_path):
    environment.setenv("OBJCG_DIR", str(tmp_path / "regions"))
    path = _location.new_file()
    pid = os.getpid()
    assert path == str(tmp_path / "regions" / f"{pid}-{start_time(pid)}.region")


def test_the_file_of_this_process_before_it_called_exec_is_replaced(environment, tmp_path):
    environment.setenv("OBJCG_DIR", str(tmp_path / "regions"))
    path = _location.new_file()
    with open(path, "x"):
        pass
    assert _location.new_file() == path
    assert not os.path.exists(path)


def test_the_file_of_a_forked_child_is_named_alike(tmp_path):
    pid = os.getpid()
    path = _location.child_file(str(tmp_path), 77)
    assert path == str(tmp_path / f"{pid}-77.region")
    assert _location.RegionFile.named(path) is not None


def test_only_names_of_regions_are_listed(tmp_path):
    folder = tmp_path / "regions"
    folder.mkdir(mode=0o700)
    names = ["12-34.region", "notes.txt", "12.region", "0-1.region", "-1-2.region", "1-2.region~"]
    names += ["1-.region", "-1.region", "1-2-3.region", "12345678901-1.region", "1-2", "²-1.region"]
    for name in names:
        (folder / name).touch()
    found = [(file.pid, file.start_time) for file in _location.files(str(folder))]
    assert found == [(12, 34)]
    assert list(_location.files(str(tmp_path / "none"))) == []


def test_files_are_kept_by_when_their_process_charged_last(tmp_path):
    folder = tmp_path / "regions"
    folder.mkdir(mode=0o700)
    for age in range(8):
        path = folder / f"{4_000_000 + age}-1.region"
        path.write_bytes(bytes(192) + (1000 + age).to_bytes(8, "little"))
        os.utime(path, (1000 - age, 1000 - age))
    _location.prune(str(folder), kept=2)
    assert sorted(path.name for path in folder.iterdir()) == [
        "4000006-1.region",
        "4000007-1.region",
    ]


def test_the_newest_files_of_dead_processes_are_kept(tmp_path):
    folder = tmp_path / "regions"
    folder.mkdir(mode=0o700)
    for age in range(8):
        path = folder / f"{4_000_000 + age}-1.region"
        path.touch()
        os.utime(path, (1000 - age, 1000 - age))
    (folder / "keep.me").touch()
    _location.prune(str(folder), kept=3)
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["4000000-1.region", "4000001-1.region", "4000002-1.region", "keep.me"]


def test_the_file_of_a_running_process_is_not_pruned(tmp_path, monkeypatch):
    folder = tmp_path / "regions"
    folder.mkdir(mode=0o700)
    for pid in range(4_000_000, 4_000_004):
        (folder / f"{pid}-1.region").touch()
    monkeypatch.setattr(_location, "is_running", lambda file: file.pid == 4_000_001)
    _location.prune(str(folder), kept=0)
    assert [path.name for path in folder.iterdir()] == ["4000001-1.region"]


def test_nothing_is_pruned_when_it_cannot_be_known_who_lives(tmp_path, monkeypatch):
    folder = tmp_path / "regions"
    folder.mkdir(mode=0o700)
    (folder / f"{os.getpid()}-1.region").touch()

    def no_descriptor_is_left(*_args, **_kwargs):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(_location._core, "read_now", no_descriptor_is_left)
        _location.prune(str(folder), kept=0)
    assert len(list(folder.iterdir())) == 1
    _location.prune(str(folder), kept=0)
    assert list(folder.iterdir()) == []


def test_the_start_time_is_that_of_the_kernel():
    assert _location.start_time(os.getpid()) == start_time(os.getpid())
    assert _location.start_time(2**22 + 1) is None


def test_the_start_time_is_found_whatever_the_command_is_called(monkeypatch):
    line = b"1 (a) b (c)) S " + b" ".join(b"%d" % field for field in range(4, 53))
    opened = []

    def read_now(path):
        opened.append(path)
        return line

    monkeypatch.setattr(_location._core, "read_now", read_now)
    assert _location.start_time(1) == 22
    assert opened == ["/proc/1/stat"]


def test_a_file_is_read_at_once_up_to_16_kib(tmp_path):
    read_now = _location._core.read_now
    file = tmp_path / "file"
    for size in (0, 1, 16384, 20000):
        file.write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
        assert read_now(str(file)) == file.read_bytes()[:16384]
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_now(str(tmp_path / "nothing"))
    with pytest.raises(IsADirectoryError):
        read_now(str(tmp_path))
    link = tmp_path / "link"
    link.symlink_to(file)
    with pytest.raises(OSError, match="symbolic links"):
        read_now(str(link))
    # nobody writes into it, and nobody waits for that
    os.mkfifo(tmp_path / "fifo")
    assert read_now(str(tmp_path / "fifo")) == b""
    with pytest.raises(TypeError):
        read_now(3.5)
