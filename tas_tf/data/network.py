"""Finds out within seconds whether a download has any chance."""

import queue
import threading
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

import requests

# What a proxy answers when it can't, or may not, reach the host.
_GATEWAY_ERRORS = (407, 502, 503, 504)


def any_host_answers(urls: Iterable[str], *, timeout: float = 5.0) -> bool:
    """Whether at least one of the hosts of `urls` answers an HTTP request.

    Asked through `requests`, as TFDS downloads: the same proxies and certificates apply.

    Args:
        urls: Where files would be downloaded from; one request to each host.
        timeout: Seconds until the answer is no, whatever name resolution, connections or hosts are up to.
    """
    one_each = {urlsplit(url).netloc: url for url in urls if urlsplit(url).scheme in ("http", "https")}
    answers: queue.Queue[bool] = queue.Queue()
    for url in one_each.values():
        # A name look-up has no timeout of its own; daemon threads don't hold up the end of the process.
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
