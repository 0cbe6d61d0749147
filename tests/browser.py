"""The page as tests read it: its data, and a headless Chromium that shows it."""

import base64
import json
import re
import shutil
import tempfile
import time
import zlib

import pytest


def unpacked(found: str) -> dict:
    """The data of a page."""
    packed = re.search(r'id="data">(.*?)</script>', found, re.DOTALL)[1]
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def browser(width: int, height: int):
    """A headless Chromium that notes every request and every line of its console."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with its driver: install the packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"),
        *("disable-background-networking", "disable-component-update", "disable-dev-shm-usage"),
        f"user-data-dir={tempfile.mkdtemp()}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    light = {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", light)
    return browser


def wait(page, condition: str, seconds: float = 60):
    """Wait until a JavaScript expression is true. Returns its value."""
    end = time.monotonic() + seconds
    while not (found := page.execute_script(f"return {condition}")):
        assert time.monotonic() < end, f"never true: {condition}"
        time.sleep(0.05)
    return found


DRAWN = "document.documentElement.dataset.drawn === 'yes' && document.querySelectorAll('.chart svg').length"
