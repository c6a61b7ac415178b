"""A real browser for tests of pages; it reaches this machine and nothing beyond."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tests.components import need_command, need_module


@contextlib.contextmanager
def chromium(width: int = 1300, height: int = 900) -> Iterator[Any]:
    """Open a headless Chromium whose names resolve nowhere; skip where there is none."""
    need_command("chromium", "chromedriver", install="apt-get install chromium chromium-driver")
    need_module("selenium", install="pip install selenium")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    # WebGL without a graphics card.
    options.add_argument("--use-angle=swiftshader")
    options.add_argument("--enable-unsafe-swiftshader")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    options.add_argument(f"--window-size={width},{height}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        yield driver
    finally:
        driver.quit()


def complaints(driver: Any) -> list[str]:
    """Return what pages have complained of since the last time."""
    return [line["message"] for line in driver.get_log("browser") if line["level"] != "INFO"]
