import http.server
import socket
import threading
from types import SimpleNamespace

import pytest
import requests

from tas_tf.data import reachable


@pytest.fixture
def server():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(502 if "gateway" in self.path else 404)
            self.end_headers()

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http_server.server_port}"
        http_server.shutdown()
        thread.join()


def test_any_answer_counts_but_a_gateways(server):
    assert reachable.any_host_answers([f"{server}/file"])
    assert not reachable.any_host_answers([f"{server}/gateway"])


def test_refused_connection():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        assert not reachable.any_host_answers([url])


@pytest.fixture
def hanging(monkeypatch):
    """Requests that hang until the test is over; holds the URL of each that is asked for."""
    asked, release, threads = [], threading.Event(), set()

    def hang(url, **options):
        threads.add(threading.current_thread())
        asked.append(url)
        release.wait()
        raise requests.ConnectionError("Released.")

    monkeypatch.setattr(reachable.requests, "head", hang)
    yield asked
    release.set()
    for thread in threads:
        thread.join()


def test_a_request_that_hangs_does_not_hang_us(hanging):
    # Would hang here if it waited for an answer.
    assert not reachable.any_host_answers(["http://a.invalid/", "http://b.invalid/"], timeout=0.05)


def test_all_hosts_share_one_timeout(monkeypatch):
    """The clock is made up: each wait for an answer takes all that it may, and less is left for the next."""
    now, waits = [100.0], []

    class Answers:
        def put(self, answer):
            pass

        def get(self, *, timeout):
            waits.append(timeout)
            now[0] += 2.0
            return False

    monkeypatch.setattr(reachable, "_answers", lambda url, timeout: False)
    monkeypatch.setattr(reachable, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(reachable.queue, "Queue", Answers)
    hosts = [f"http://{name}.invalid/" for name in "abcd"]
    assert not reachable.any_host_answers(hosts, timeout=5.0)
    assert waits == [5.0, 3.0, 1.0, 0.0]


def test_one_of_several_hosts_is_enough(server):
    assert reachable.any_host_answers(["http://127.0.0.1:1/", f"{server}/file"])
    assert not reachable.any_host_answers([])
