"""`objcg web`: the server as users run it, and its page in a browser."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.parse

import pytest

from objcg import region
from objcg.cli import main

from .programs import PROGRAMS, environment, run_python
from .watched import watching

SCRIPT = "</script><img src=x onerror=alert(1)>$x$<script>alert(1)</script>".replace("/", "\u2215")
MIB = 1 << 20
PATIENCE = 60
"""Seconds for what takes one or two, on a machine that is at work."""


class Server:
    """``objcg web`` in a process of its own."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "objcg", "web", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        self.url = self.process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{43}/", self.url), (
            self.process.communicate()
        )
        parts = urllib.parse.urlsplit(self.url)
        self.port, self.path = parts.port, parts.path
        self.origin = f"http://127.0.0.1:{self.port}"

    def request(self, method, path, body=None, **headers):
        """Return the status and the text of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def set(self, uid, knob, value):
        body = json.dumps({"uid": str(uid), "knob": knob, "value": value})
        headers = {"Origin": self.origin, "Content-Type": "application/json"}
        status, text = self.request("POST", f"{self.path}set", body, **headers)
        return status, json.loads(text)

    @contextlib.contextmanager
    def events(self):
        """Have the events of a stream, as they come."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", f"{self.path}events")
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            yield (
                json.loads(line.removeprefix(b"data: "))
                for line in answer
                if line.startswith(b"data")
            )

    def end(self, number):
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE)
        # one line, and no complaint
        assert (out, err.count("\n")) == ("", 1), err
        assert err.startswith("objcg: who has this address can set limits")
        return self.process.returncode


@contextlib.contextmanager
def serving(*arguments):
    server = Server(*arguments)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.communicate()


def until(events, holds):
    """Return the first event of which something holds."""
    deadline = time.monotonic() + PATIENCE
    for shown in events:
        if holds(shown):
            return shown
        assert time.monotonic() < deadline, shown
    raise AssertionError("the stream has ended")


def row(shown, path):
    return next((row for row in shown["rows"] if row["path"] == path), {"offends": None})


def test_events_show_what_happens_and_limits_can_be_set():
    with watching() as program, serving(program.pid) as server, server.events() as events:
        first = next(events)
        assert (first["pid"], first["state"]) == (program.pid, "running")
        assert row(first, "/a/limited")["max"] == "8.0 MiB"
        assert not any(one["offends"] for one in first["rows"])
        # over its limit
        assert program(f"grow /a/limited {7 * MIB}") == "held"
        until(events, lambda shown: row(shown, "/a/limited")["current"].startswith("7."))
        assert program(f"grow /a/limited {7 * MIB}") == "full"
        shown = until(events, lambda shown: row(shown, "/a/limited")["offends"])
        assert [one["path"] for one in shown["rows"] if one["offends"]] == ["/a/limited"]
        assert [event["path"] for event in shown["events"]] == ["/a/limited"]
        # and then given more
        uid = row(shown, "/a/limited")["uid"]
        assert server.set(uid, "max", "32M") == (
            200,
            {"done": "memory.max of /a/limited is 32.0 MiB"},
        )
        until(events, lambda shown: row(shown, "/a/limited")["max"] == "32.0 MiB")
        assert program(f"grow /a/limited {7 * MIB}") == "held"
        (group,) = [one for one in region.read(program.path).groups if one.path == "/a/limited"]
        assert group.max == 32 * MIB
        assert server.set(uid, "max", "much")[0] == 400
        assert server.end(signal.SIGTERM) == 0


def test_who_has_no_token_or_comes_by_another_name_gets_nothing():
    with watching() as program, serving(program.pid) as server:
        good = {"Host": f"localhost:{server.port}"}
        assert server.request("GET", server.path, **good)[0] == 200
        for path in ("/", "/events", f"/{'A' * 43}/", server.path[:-2], f"/?t={server.path[1:-1]}"):
            status, text = server.request("GET", path)
            assert (status, server.path[1:-1] in text) == (403, False)
        for host in ("evil.example", f"evil.example:{server.port}", "127.0.0.1"):
            assert server.request("GET", server.path, Host=host)[0] == 403
        body = json.dumps({"uid": "1", "knob": "max", "value": "1"})
        for origin in ("null", "http://evil.example", f"http://127.0.0.1:{server.port + 1}"):
            headers = {"Origin": origin, "Content-Type": "application/json"}
            assert server.request("POST", f"{server.path}set", body, **headers)[0] == 403
        # garbage is no reason to end, or to complain
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"\x16\x03\x01 \xff\xfe / \r\n\r\n")
            connection.recv(100)
        (root,) = [one for one in region.read(program.path).groups if one.path == "/"]
        assert root.max is None
        assert server.end(signal.SIGINT) == 0


def test_only_this_machine_is_listened_to():
    with watching() as program, serving(program.pid) as server:
        with open("/proc/net/tcp", encoding="ascii") as file:
            rows = [line.split() for line in file][1:]
        # local address and state: 0A is LISTEN
        listening = [one[1] for one in rows if one[3] == "0A"]
        assert [one for one in listening if one.endswith(f":{server.port:04X}")] == [
            f"0100007F:{server.port:04X}"
        ]
        # 127.0.0.1 alone, of all that are this machine's
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", server.port))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_though_streams_are_open_and_one_is_not_read(number):
    with watching() as program, serving(program.pid) as server, server.events() as events:
        next(events)
        deaf = socket.create_connection(("127.0.0.1", server.port))
        with deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            request = (
                f"GET {server.path}plotly.js HTTP/1.1\r\nHost: localhost:{server.port}\r\n\r\n"
            )
            deaf.sendall(request.encode())
            select.select([deaf], [], [], PATIENCE)
            began = time.monotonic()
            server.process.send_signal(number)
            assert server.process.wait(PATIENCE) == 0
            assert time.monotonic() - began < 20


def test_who_goes_away_in_the_middle_of_something_is_no_error():
    with watching() as program, serving(program.pid) as server:
        about = f"HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nOrigin: {server.origin}\r\n"
        order = 'Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"uid": '
        requests = [
            f"POST {server.path}set {about}{order}",
            f"GET {server.path}events {about}\r\n",
            f"GET {server.path}pl",
            "\x16\x03\x01\r\n\r\n",
        ]
        for request in requests * 3:
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(request.encode())
                time.sleep(0.1)
        assert server.request("GET", server.path)[0] == 200
        assert server.end(signal.SIGINT) == 0


def test_who_only_connects_takes_no_descriptors_that_others_need():
    """Anybody on the machine can, without the token."""
    with watching() as program, serving(program.pid) as server, server.events() as events:
        next(events)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (200, 200))
        connections = []
        for _ in range(250):
            connections.append(socket.create_connection(("127.0.0.1", server.port)))
        program("grow /b 3000000")
        # it is read all the same, and shown to who is there already
        shown = until(events, lambda shown: row(shown, "/b").get("current") == "2.9 MiB")
        assert shown["problem"] is None
        for connection in connections:
            connection.close()
        assert server.request("GET", server.path)[0] == 200
        assert server.end(signal.SIGINT) == 0


@pytest.mark.parametrize(("ending", "state"), [("close", "exited"), ("kill", "killed")])
def test_of_a_process_that_ended_the_last_state_stays(ending, state):
    with watching() as program, serving(program.pid) as server:
        assert program(f"grow /b {5 * MIB}") == "held"
        with server.events() as events:
            until(events, lambda shown: row(shown, "/b")["current"].startswith("5."))
            if ending == "kill":
                program.process.kill()
            else:
                program.process.stdin.close()
            program.process.wait(PATIENCE)
            shown = until(events, lambda shown: shown["state"] != "running")
            assert shown["state"] == state
        # also for who comes now
        with server.events() as events:
            shown = next(events)
            assert (shown["state"], row(shown, "/b")["current"][:2]) == (state, "5.")
        status, told = server.set(row(shown, "/b")["uid"], "max", "1M")
        assert (status, "has ended" in told["error"]) == (409, True)
        assert server.end(signal.SIGTERM) == 0


def test_without_a_process_it_is_the_only_one_or_they_are_listed(capsys, folder):
    code = f"""
        import os, sys
        os.environ["OBJCG_DIR"] = {str(folder)!r}
        from objcg.cli import main
        sys.exit(main(["web"]))
    """
    result = run_python(code)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "objcg: no process of this user runs with objcg on\n"
    # this process and that one
    with watching() as program:
        assert main(["web"]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert re.match(r"objcg: \d+ processes run with objcg on; name one by its PID: ", error)
        assert f"{program.pid} (" in error


def test_what_cannot_be_served_is_one_line(capsys, tmp_path):
    with watching() as program, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, status, told in (
            (
                [str(program.pid), "--port", str(port)],
                1,
                f"port {port} of 127.0.0.1: Address already",
            ),
            ([str(program.pid), "--port", "65536"], 2, "'65536' is not a port, a number from 0 to"),
            ([str(program.pid), "--port", "x"], 2, "'x' is not a port"),
            (["4194303"], 1, "no region of process 4194303"),
            ([str(tmp_path / "none")], 1, "No such file"),
        ):
            assert main(["web", *arguments]) == status
            captured = capsys.readouterr()
            assert (captured.out, captured.err.count("\n")) == ("", 1)
            assert told in captured.err


@pytest.mark.parametrize("missing", ["starlette", "uvicorn", "plotly"])
def test_a_missing_extra_is_named(missing):
    with watching() as program:
        result = run_python(
            f"""
            import sys
            sys.modules[{missing!r}] = None
            from objcg.cli import main
            sys.exit(main(["web", "{program.pid}"]))
            """
        )
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
        assert 'pip install "objcg[web]"' in result.stderr


class Browser:
    """tests/programs/browse_web.py, told what to do."""

    def __init__(self, url):
        self.process = subprocess.Popen(
            [sys.executable, PROGRAMS / "browse_web.py", url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        answer = self.process.stdout.readline()
        if answer != '"ready"\n':
            self.process.communicate()
            if self.process.returncode == 3:
                pytest.skip(answer.strip())
            raise AssertionError(answer)

    def __call__(self, order, *words):
        if words:
            order += f" {json.dumps(words[0] if len(words) == 1 else words)}"
        print(order, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, f"the browser failed at {order!r}"
        return json.loads(answer)


@contextlib.contextmanager
def browsing(url):
    browser = Browser(url)
    try:
        yield browser
    finally:
        browser.process.stdin.close()
        try:
            browser.process.wait(30)
        finally:
            browser.process.kill()
            browser.process.wait()
            browser.process.stdout.close()


def test_the_page_shows_what_happens_sets_limits_and_loads_nothing_from_elsewhere():
    with watching() as program, serving(program.pid) as server, browsing(server.url) as browser:
        assert program(f"group {SCRIPT!r}") == "done"
        browser("open")
        seen = browser("shown")
        assert (seen["state"], seen["title"]) == ("running", f"objcg: pid {program.pid}")
        assert f"/{SCRIPT}" in seen["groups"]
        assert (seen["scripts"], seen["foreign"], seen["offenders"]) == (2, 0, [])
        # it grows, and is stopped at its limit
        assert program(f"grow /a/limited {6 * MIB}") == "held"
        browser("wait", "6.0 MiB")
        assert program(f"grow /a/limited {6 * MIB}") == "full"
        browser("wait", "/a/limited: 6.0 MiB of memory.max 8.0 MiB")
        seen = browser("shown")
        assert seen["offenders"] == ["/a/limited"]
        assert seen["colours"] == ["rgb(198, 32, 38)"]
        assert seen["red"] == ["limited"]
        assert seen["events"] == ["/a/limited"]
        assert any(text.startswith("limited") for text in seen["tree"])
        assert "/a/limited" in seen["legend"]
        # a limit that is none, and one that is
        told = browser("set", "/a/limited", "max", "much")
        assert told.startswith("memory.max: 'much' is not a size; accepted are")
        told = browser("set", "/a/limited", "max", "48M")
        assert told == "memory.max of /a/limited is 48.0 MiB"
        browser("wait", "48.0 MiB")
        assert program(f"grow /a/limited {6 * MIB}") == "held"
        # of a group with such a name, too
        assert browser("set", f"/{SCRIPT}", "high", "96M").endswith("is 96.0 MiB")
        browser("wait", "96.0 MiB")
        browser("scheme dark")
        points = browser("shown")["points"]
        program.process.kill()
        program.process.wait()
        browser("wait", "killed: this is its last state")
        seen = browser("shown")
        assert seen["points"] >= points > 2
        assert "48.0 MiB" in seen["max"]
        assert not seen["alerted"]
        noted = browser("end")
        assert noted["errors"] == []
        # of the size that was none; nothing that the policy had to forbid
        (refused,) = noted["console"]
        assert "the server responded with a status of 400" in refused
        names = {url.removeprefix(server.url) for url in noted["requests"]}
        files = {"", "page.js", "page.css", "report.css", "plotly.js", "events", "set"}
        # the icon is none
        assert names - {"data:,"} == files


def test_the_page_says_that_the_server_has_ended():
    with watching() as program, serving(program.pid) as server, browsing(server.url) as browser:
        browser("open")
        assert server.end(signal.SIGINT) == 0
        browser("wait", "no connection: objcg web has ended")
        assert browser("shown")["groups"][0] == "/"
