"""Who is answered by ``objcg web``, and what; the process is made up."""

from __future__ import annotations

import asyncio
import json
import time

import httpx
import pytest
from unit.recorded import MIB, group, process

from objcg.region import RegionError
from objcg.views.watch import Sample, State
from objcg.views.web import app as web
from objcg.views.web.feed import Feed
from objcg.views.web.guard import new_token

PORT = 8123
TOKEN = new_token()
HERE = f"http://127.0.0.1:{PORT}"
ORDER = {"uid": "2", "knob": "max", "value": "64M"}


class Watched:
    """A watch of a process that stays as it is, for some samples, and is then killed."""

    def __init__(self, lives=10**6):
        self.lives = lives
        region = process()._replace(groups=[group("/", 1, 2 * MIB), group("/a", 2, MIB)])
        self.latest = Sample(1.7e9, State.RUNNING, region, {}, 5e3)

    def sample(self):
        self.lives -= 1
        if self.lives == 1:
            raise RegionError("it is being changed")
        state = State.RUNNING if self.lives else State.KILLED
        self.latest = self.latest._replace(
            at=self.latest.at + 1, state=state, clock=self.latest.clock + 1
        )
        return self.latest


class Client:
    """Asks the application, without a network; as what it is told it is called by."""

    def __init__(self, app, base_url=HERE):
        self.app = app
        self.base_url = base_url

    def request(self, method, path, **more):
        async def ask():
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url=self.base_url) as client:
                return await client.request(method, path, **more)

        return asyncio.run(ask())

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def post(self, path, **more):
        return self.request("POST", path, **more)


@pytest.fixture
def orders(monkeypatch):
    """What would have been set."""
    found = []

    def set_limit(region, one, knob, value):
        found.append((one.path, knob, value))
        if value == 1:
            return False
        if value == 2:
            raise RegionError("process 4242 has ended: nothing in it can be changed")
        return True

    monkeypatch.setattr(web.steering, "set_limit", set_limit)
    return found


@pytest.fixture
def client():
    return Client(web.make_app(Feed(Watched()), TOKEN, PORT))


def order(client, content=None, token=TOKEN, **headers):
    sent = {"Origin": HERE, "Content-Type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps(ORDER) if content is None else content
    sent = {name: value for name, value in sent.items() if value is not None}
    return client.post(f"/{token}/set", content=body, headers=sent)


FILES = ["", "page.js", "page.css", "report.css", "plotly.js"]


def test_with_the_token_all_that_the_page_is_made_of_is_there(client):
    types = {}
    for name in FILES:
        answer = client.get(f"/{TOKEN}/{name}")
        assert answer.status_code == 200
        types[name] = answer.headers["content-type"].partition(";")[0]
    assert types == {
        "": "text/html",
        "page.js": "text/javascript",
        "page.css": "text/css",
        "report.css": "text/css",
        "plotly.js": "text/javascript",
    }
    # nothing that the policy forbids, nor anything from elsewhere
    page = client.get(f"/{TOKEN}/").text
    assert page.count("<script") == page.count('.js" defer></script>') == 2
    assert "http" not in page
    assert " style=" not in page
    assert "<style" not in page


@pytest.mark.parametrize(
    "path",
    [
        *("/", "", "/page.js", "/events", "/set", "/favicon.ico", "//", "/%00/", "/\u00e9/"),
        *(f"/{TOKEN[:-1]}/", f"/{TOKEN}x/", f"/{TOKEN.swapcase()}/", f"/?token={TOKEN}"),
        *(f"/x/{TOKEN}/", f"/x/../{TOKEN}x/page.js"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_without_the_token_every_path_is_403(client, orders, path, method):
    answer = client.request(method, path, headers={"Origin": HERE}, json=ORDER)
    assert answer.status_code == 403
    assert TOKEN not in answer.text
    assert answer.headers["x-frame-options"] == "DENY"
    assert orders == []


def test_every_answer_has_the_headers(client, orders):
    answers = [client.get(f"/{TOKEN}/{name}") for name in (*FILES, "no-such")]
    answers += [client.get("/"), order(client), order(client, "{"), client.get(f"/{TOKEN}/set")]
    assert [answer.status_code for answer in answers[5:]] == [404, 403, 200, 400, 405]
    for answer in answers:
        headers = answer.headers
        policy = dict(
            part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'self'"
        assert "script-src" not in policy
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
        assert "set-cookie" not in headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((f"{host}:{PORT}", 200) for host in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]")),
        *((host, 403) for host in ("127.0.0.1", "localhost", "", f"127.0.0.1:{PORT + 1}")),
        *((host, 403) for host in (f"evil.example:{PORT}", f"localhost.evil.example:{PORT}")),
        *((host, 403) for host in (f"127.0.0.2:{PORT}", f"0.0.0.0:{PORT}", f"x@localhost:{PORT}")),
    ],
)
def test_only_names_of_this_machine_are_answered_to(client, orders, host, status):
    assert client.get(f"/{TOKEN}/", headers={"Host": host}).status_code == status
    assert order(client, Host=host).status_code == status
    assert len(orders) == (status == 200)


def test_two_hosts_are_none(client):
    headers = [("Host", f"127.0.0.1:{PORT}"), ("Host", "evil.example")]
    assert client.get(f"/{TOKEN}/", headers=headers).status_code == 403


def test_port_80_is_left_out_by_browsers():
    feed = Feed(Watched())
    for port, status in ((80, 200), (81, 403)):
        client = Client(web.make_app(feed, TOKEN, port), "http://localhost")
        assert client.get(f"/{TOKEN}/").status_code == status


@pytest.mark.parametrize(
    "origin",
    [
        *("null", "", "http://evil.example", f"https://127.0.0.1:{PORT}", "http://127.0.0.1"),
        *(f"http://127.0.0.1:{PORT + 1}", f"http://localhost:{PORT}.evil.example"),
    ],
)
def test_a_page_of_elsewhere_gets_and_changes_nothing(client, orders, origin):
    assert order(client, Origin=origin).status_code == 403
    assert client.get(f"/{TOKEN}/events", headers={"Origin": origin}).status_code == 403
    assert orders == []


def test_a_change_needs_an_origin(client, orders):
    assert order(client, Origin=None).status_code == 403
    assert orders == []
    assert order(client, Origin=f"http://localhost:{PORT}").status_code == 200
    assert len(orders) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_only_post_changes_something(client, orders, method):
    answer = client.request(method, f"/{TOKEN}/set", headers={"Origin": HERE}, json=ORDER)
    assert (answer.status_code, orders) == (405, [])
    for name in FILES:
        assert order(client).status_code == 200
        answer = client.post(f"/{TOKEN}/{name}", headers={"Origin": HERE})
        assert answer.status_code == 405


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "text/json"]
)
def test_only_json_is_accepted(client, orders, content_type):
    # what a form of another page can send is none
    answer = order(client, Content_Type=content_type)
    assert (answer.status_code, orders) == (415, [])
    assert order(client, Content_Type="application/json; charset=utf-8").status_code == 200


@pytest.mark.parametrize(
    ("content", "status", "told"),
    [
        ("", 400, "no JSON"),
        ("{", 400, "no JSON"),
        (b"\xff\xfe", 400, "no JSON"),
        ("[" * 4000, 400, "no JSON"),
        ("[]", 400, 'accepted is an object with "uid", "knob" and "value"'),
        ({"uid": "2", "knob": "max"}, 400, "accepted is an object"),
        ({**ORDER, "path": "/"}, 400, "accepted is an object"),
        ({**ORDER, "uid": 2}, 400, "have to be text"),
        ({**ORDER, "value": None}, 400, "have to be text"),
        ({**ORDER, "value": ["1"]}, 400, "have to be text"),
        ({**ORDER, "uid": "-2"}, 400, "'-2' is the number of no group"),
        ({**ORDER, "uid": "\u0662"}, 400, "is the number of no group"),
        ({**ORDER, "uid": "9" * 3000}, 400, "is the number of no group"),
        ({**ORDER, "knob": "min"}, 400, "'min' is no knob; accepted are max, high, low"),
        ({**ORDER, "value": "64Q"}, 400, "memory.max: '64Q' is not a size; accepted are"),
        ({**ORDER, "value": "-1"}, 400, "accepted are"),
        ({**ORDER, "knob": "low", "value": "max"}, 400, "memory.low: 'max' is not a size"),
        ({**ORDER, "uid": "3"}, 409, "the group has ended: nothing was set"),
        ({**ORDER, "value": "x" * 5000}, 413, "more than 4096 bytes"),
    ],
)
def test_an_order_that_is_wrong_is_told_why(client, orders, content, status, told):
    answer = order(client, json.dumps(content) if isinstance(content, dict) else content)
    assert (answer.status_code, told in answer.json()["error"]) == (status, True), answer.text
    assert orders == []


def test_an_order_that_cannot_be_carried_out_is_told(client, orders):
    for value, told in (("1", "/a has ended: nothing was set"), ("2", "process 4242 has ended")):
        answer = order(client, json.dumps({**ORDER, "value": value}))
        assert (answer.status_code, told in answer.json()["error"]) == (409, True)
    assert len(orders) == 2


@pytest.mark.parametrize(
    ("asked", "meant", "done"),
    [
        (("max", "64M"), 64 * MIB, "memory.max of /a is 64.0 MiB"),
        (("max", "max"), None, "memory.max of /a is unset"),
        (("high", "1.5 GiB"), 3 << 29, "memory.high of /a is 1.5 GiB"),
        (("low", "0"), 0, "memory.low of /a is 0 B"),
    ],
)
def test_an_order_is_carried_out(client, orders, asked, meant, done):
    knob, value = asked
    answer = order(client, json.dumps({"uid": "2", "knob": knob, "value": value}))
    assert (answer.status_code, answer.json()) == (200, {"done": done})
    assert orders == [("/a", knob, meant)]


def test_websockets_are_refused(client):
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message["type"])

    scope = {"type": "websocket", "path": f"/{TOKEN}/events", "headers": []}
    asyncio.run(client.app(scope, receive, send))
    assert sent == ["websocket.close"]


def stream(feed, most):
    """Return the first events of a stream, by a reader that reads all."""

    async def read():
        sampling = asyncio.create_task(feed.run())
        found = []
        async for text in web._events(feed):
            found.append(text)
            if len(found) == most:
                feed.close()
        sampling.cancel()
        return found

    return asyncio.run(read())


def test_events_come_until_the_process_has_ended_and_tell_of_that():
    found = stream(Feed(Watched(lives=3), interval=0.001), 4)
    assert all(text.startswith("data: {") and text.endswith("}\n\n") for text in found)
    shown = [json.loads(text.removeprefix("data: ")) for text in found]
    assert [one["state"] for one in shown] == ["running", "running", "running", "killed"]
    # one that could not be read is no end
    assert [one["problem"] for one in shown] == [None, None, "it is being changed", None]


def test_who_comes_late_gets_the_last_state_and_a_stream_without_news_is_alive(monkeypatch):
    monkeypatch.setattr(web, "_BEAT", 0.01)

    async def read():
        feed = Feed(Watched(lives=1), interval=0.001)
        await feed.run()
        found = []
        async for text in web._events(feed):
            found.append(text)
            if len(found) == 3:
                feed.close()
        return found

    last, *beats = asyncio.run(read())
    assert json.loads(last.removeprefix("data: "))["state"] == "killed"
    assert beats == [": still here\n\n"] * 2


def test_a_slow_reader_skips_to_the_latest():
    async def read():
        feed = Feed(Watched(lives=6), interval=0)
        await feed.run()
        number, text = await feed.after(1)
        return number, json.loads(text)["state"]

    assert asyncio.run(read()) == (7, "killed")


def test_samples_that_take_long_leave_as_much_time_to_others():
    class Slow(Watched):
        def __init__(self):
            super().__init__(lives=4)
            self.idle = []
            self.ended = None

        def sample(self):
            began = time.monotonic()
            if self.ended is not None:
                self.idle.append(began - self.ended)
            time.sleep(0.2)
            self.ended = time.monotonic()
            return super().sample()

    watched = Slow()
    asyncio.run(Feed(watched, interval=0.01).run())
    # a pause begins when the sample has come out of its thread, and so a moment later
    assert len(watched.idle) == 3
    assert min(watched.idle) >= 0.2
