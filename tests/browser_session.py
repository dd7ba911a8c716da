"""A headless Chromium for tests of the reports, and a page opened in it."""

from __future__ import annotations

import shutil

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="Chromium or chromedriver is not installed (Debian: apt-get install chromium chromium-driver)",
    ),
]

WIDE, PHONE = (1280, 900), (390, 844)


def opened(browser, report, *, size, dark=False):
    from selenium.webdriver.support.ui import WebDriverWait

    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 600},
    )
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(report.as_uri())
    WebDriverWait(browser, 30).until(lambda page: page.find_element("css selector", "html").get_attribute("data-drawn"))
