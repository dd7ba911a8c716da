"""Screenshots of pages in a headless Chromium: `make screenshots`.

Usage: python docs/screenshots.py PICTURE.png WIDTH HEIGHT PAGE.html [PICTURE.png WIDTH HEIGHT PAGE.html ...]

HEIGHT 0 takes the whole page. Needs selenium and Chromium with its driver (Debian: apt-get install chromium
chromium-driver). A page of plots is taken when all of them are drawn, in the light scheme.
"""

from __future__ import annotations

import base64
import io
import shutil
import sys
from pathlib import Path

N_COLOURS = 128  # in a picture: a few hundred kilobytes instead of a megabyte


def main(arguments: list[str]) -> None:
    """Take what the arguments name, in their order."""
    from PIL import Image
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    if not arguments or len(arguments) % 4:
        sys.exit(__doc__)
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        sys.exit("Chromium or its driver is not installed (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--force-color-profile=srgb", "--hide-scrollbars"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    browser.command_executor.client_config.timeout = 600  # seconds, for a machine with much else to do
    browser.set_page_load_timeout(500)
    try:
        for picture, width, height, page in zip(*[iter(arguments)] * 4, strict=True):
            _set_size(browser, int(width), int(height) or 900)
            scheme = [{"name": "prefers-color-scheme", "value": "light"}]
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
            browser.get(Path(page).resolve().as_uri())
            WebDriverWait(browser, 500).until(
                lambda shown: shown.execute_script(
                    "return document.readyState === 'complete' && (!document.getElementById('figures') "
                    "|| 'drawn' in document.documentElement.dataset)"
                )
            )
            if not int(height):
                _set_size(browser, int(width), browser.execute_script("return document.documentElement.scrollHeight"))
            taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": False})
            image = Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB")
            Path(picture).parent.mkdir(parents=True, exist_ok=True)
            image.quantize(N_COLOURS, dither=Image.Dither.NONE).save(picture, optimize=True)
            print(f"{picture}: {image.width} x {image.height}, {Path(picture).stat().st_size / 1000:.0f} kB")
    finally:
        browser.quit()


def _set_size(browser: object, width: int, height: int) -> None:
    browser.execute_cdp_cmd(  # type: ignore[attr-defined]
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
    )


if __name__ == "__main__":
    main(sys.argv[1:])
