"""Starts Debian's Chromium without a window: for tests of pages and for screenshots."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from selenium import webdriver

_PROGRAMS = {"chromium": "chromium", "chromedriver": "chromium-driver"}
_OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    # Nothing but this machine can be reached.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
    # Containers often have little shared memory.
    *("--disable-dev-shm-usage", "--disable-default-apps", "--no-default-browser-check"),
)
DESKTOP, PHONE = (1280, 900), (390, 844)


def missing() -> str | None:
    """Says which of the programs isn't installed; `None` if all are."""
    absent = [package for program, package in _PROGRAMS.items() if shutil.which(program) is None]
    return f"needs {' and '.join(absent)}: apt-get install {' '.join(absent)}" if absent else None


@contextlib.contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """Yields a browser with a new profile, which notes what pages write to the console and which URLs they load."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Given both paths, Selenium doesn't look for programs to download.
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for option in (*_OPTIONS, f"--user-data-dir={profile}", "about:blank"):
            options.add_argument(option)
        driver = webdriver.Chrome(options=options, service=service)
        try:
            driver.get("about:blank")
            requests(driver)  # those of the browser's own start
            yield driver
        finally:
            driver.quit()


def view(driver: webdriver.Chrome, size: tuple[int, int], *, dark: bool = False, printed: bool = False) -> None:
    """Sets how pages are shown.

    Args:
        driver: The browser.
        size: Width and height in CSS pixels; a narrow one is a phone's.
        dark: Whether the user prefers dark colours.
        printed: Whether pages look as on paper.
    """
    width, height = size
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print" if printed else "", "features": features})


def requests(driver: webdriver.Chrome) -> list[str]:
    """URLs requested since the last call, without those inside the page."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith(("data:", "blob:", "about:"))]


def screenshot(driver: webdriver.Chrome, path: str | Path, *, top: int = 0, height: int | None = None) -> None:
    """Writes a PNG of a part of the page.

    Args:
        driver: The browser.
        path: File to write.
        top: Upper edge in CSS pixels from the top of the page.
        height: Height in CSS pixels; by default down to the end of the page.
    """
    width, whole = driver.execute_script(
        "return [document.documentElement.clientWidth, document.documentElement.scrollHeight]"
    )
    clip = {"x": 0, "y": top, "width": width, "height": min(height or whole, whole - top), "scale": 1}
    options = {"format": "png", "clip": clip, "captureBeyondViewport": True}
    content = driver.execute_cdp_cmd("Page.captureScreenshot", options)["data"]
    Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB").save(path, optimize=True)
