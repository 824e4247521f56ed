"""Finds out within seconds whether a download is possible."""

import queue
import threading
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

import requests

# Status codes of proxies that can't, or may not, reach the host.
_GATEWAY_ERRORS = (407, 502, 503, 504)


def any_host_answers(urls: Iterable[str], *, timeout: float = 5.0) -> bool:
    """Whether at least one of the hosts of `urls` answers an HTTP request.

    The check uses `requests`, like TFDS's downloads, so the same proxies and certificates apply.

    Args:
        urls: URLs of files to download; each host gets one request.
        timeout: Seconds until the result is `False`, including name resolution and connections.
    """
    one_each = {urlsplit(url).netloc: url for url in urls if urlsplit(url).scheme in ("http", "https")}
    answers: queue.Queue[bool] = queue.Queue()
    for url in one_each.values():
        # Name look-ups have no timeout of their own, so they run in daemon threads, which don't block exit.
        threading.Thread(target=lambda url=url: answers.put(_answers(url, timeout)), daemon=True).start()
    deadline = time.monotonic() + timeout
    for _ in one_each:
        try:
            if answers.get(timeout=max(0.0, deadline - time.monotonic())):
                return True
        except queue.Empty:
            return False
    return False


def _answers(url: str, timeout: float) -> bool:
    try:
        response = requests.head(url, timeout=timeout, allow_redirects=False)
    except requests.RequestException:
        return False
    return response.status_code not in _GATEWAY_ERRORS
