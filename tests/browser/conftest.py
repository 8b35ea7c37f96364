"""A real Chromium without a window, driven by Playwright. What is missing is an error that says what to install, never a skip."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshot", metavar="FOLDER", help="also take a picture of FOLDER/report.html, into FOLDER/figures/report.png")


def chromium() -> str:
    """Where it is; ISOFORM_CHROMIUM names another."""
    wanted = (os.environ["ISOFORM_CHROMIUM"],) if "ISOFORM_CHROMIUM" in os.environ else NAMES
    for name in wanted:
        if found := shutil.which(name):
            return found
    pytest.fail(
        f"the browser tests found no {', '.join(wanted)}\n"
        "  install it:  sudo apt-get update && sudo apt-get install -y chromium\n"
        "  or name one: ISOFORM_CHROMIUM=/path/to/chromium nox -s browser",
        pytrace=False,
    )


@pytest.fixture(name="browser", scope="session")
def browser_fixture() -> Iterator:
    path = chromium()
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        pytest.fail("the browser tests need Playwright\n  run them with:  nox -s browser", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


class Watched:
    """A page, and what went wrong on it: requests for anything but the file itself, and errors."""

    def __init__(self, browser, path: Path, **context: object):
        self.address = path.as_uri()
        self.context = browser.new_context(offline=True, **context)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(self.address)

    def close(self) -> None:
        asked_for = {address.split("#")[0] for address in self.requests}
        self.context.close()
        assert asked_for <= {self.address, "data:,"}, asked_for
        assert self.errors == []


@pytest.fixture(name="visit")
def visit_fixture(browser) -> Iterator:
    """visit(path, **options of a context): the page. At the end nothing but its file was asked for, and it had no errors."""
    opened: list[Watched] = []

    def visit(path: Path, **context: object):
        opened.append(Watched(browser, path, **context))
        return opened[-1].page

    yield visit
    for one in opened:
        one.close()
