import http.server
import socket
import threading
import time

import pytest

from tas_tf.data import network


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
    assert network.any_host_answers([f"{server}/file"])
    assert not network.any_host_answers([f"{server}/gateway"])


def test_refused_connection():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        assert not network.any_host_answers([url])


def test_a_request_that_hangs_does_not_hang_us(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(network, "_answers", lambda url, timeout: release.wait(30))
    start = time.monotonic()
    assert not network.any_host_answers(["http://a.invalid/", "http://b.invalid/"], timeout=0.3)
    assert time.monotonic() - start < 2
    release.set()


def test_one_of_several_hosts_is_enough(server):
    assert network.any_host_answers(["http://127.0.0.1:1/", f"{server}/file"])
    assert not network.any_host_answers([])
