"""A real headless Chromium: Debian's packages, driven by Selenium; one for all tests."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--force-device-scale-factor=1",
    "--force-prefers-reduced-motion",
)  # fmt: skip
DESKTOP = (1280, 900)
PIXELS = """
    const image = document.querySelector(arguments[0]);
    image.decode().then(() => {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
      canvas.getContext("2d").drawImage(image, 0, 0);
      done(canvas.toDataURL());
    });"""


class Browser:
    """One Chromium: what the tests ask it, in their own words."""

    def __init__(self, driver: webdriver.Chrome, downloads: Path) -> None:
        self.driver = driver
        self.downloads = downloads

    def open(self, page: Path, fragment: str = "") -> None:
        """Open a file from disk, as a double click would; what was logged before is forgotten."""
        self.driver.get("about:blank")
        self.errors(), self.requests()
        self.driver.get(page.absolute().as_uri() + fragment)

    def wait(self, condition: str, *arguments: Any) -> None:
        """Wait until a JavaScript expression is true; ``arguments[0]`` and so on are the arguments."""
        self.wait_js(f"const look = () => {condition} ? done() : setTimeout(look, 10); look();", *arguments)

    def find(self, selector: str) -> WebElement:
        """Return the first element that a CSS selector names."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def set(self, selector: str, value: str) -> None:
        """Give a field a value as a person does, events included."""
        self.js(
            "arguments[0].value = arguments[1]; for (const name of ['input', 'change'])"
            "arguments[0].dispatchEvent(new Event(name, {bubbles: true}))",
            self.find(selector), value,
        )  # fmt: skip

    def js(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page and return its value."""
        return self.driver.execute_script(script, *arguments)

    def wait_js(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript that hands its value to ``done``."""
        wrapped = f"const done = arguments[arguments.length - 1];\n{script}"
        return self.driver.execute_async_script(wrapped, *arguments)

    def pixels(self, selector: str) -> Image.Image:
        """Return what an image element holds, at its natural size."""
        url = self.wait_js(PIXELS, selector)
        return Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB")

    def errors(self) -> list[str]:
        """Return what the console logged as an error since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def requests(self) -> list[str]:
        """Return the addresses asked for since the last call, less those inside the page itself (data:, blob:)."""
        events = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(("data:", "blob:"))]

    def screen(self, size: tuple[int, int], colours: str = "light", touch: bool = False) -> None:
        """Become a screen of ``size`` (width, height) in CSS pixels, in ``"light"`` or ``"dark"``."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        feature = {"name": "prefers-color-scheme", "value": colours}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def _programs() -> tuple[str, str]:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        reason = "Chromium or its driver is not installed: `make browser` as root (Debian's chromium, chromium-driver)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return browser, driver


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A fresh Chromium with its own profile, which saves downloads in a folder of its own."""
    program, driver_program = _programs()
    profile, downloads = tmp_path_factory.mktemp("profile"), tmp_path_factory.mktemp("downloads")
    options = Options()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_program))
    driver.set_script_timeout(120)  # many minutes of other work may share these cores
    try:
        yield Browser(driver, downloads)
    finally:
        driver.quit()


@pytest.fixture
def browser(chromium: Browser) -> Browser:
    """The Chromium on a light desktop screen."""
    chromium.screen(DESKTOP)
    return chromium
