"""The documentation pages in a real browser that reaches no other host."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from service.api import docs
from service.keys import add_key
from tests.end_to_end.process import PATIENCE, Running, running

ASSETS = Path(docs.__file__).parent / "assets"
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


class Watched:
    """A page, and everything that went wrong in it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.faults: list[str] = []
        page.set_default_timeout(PATIENCE * 1000)
        page.route("**/*", self._only_our_own)
        page.on("console", lambda message: self._note(message.text, message.type in ("error", "warning")))
        page.on("pageerror", lambda error: self._note(str(error)))
        page.on("requestfailed", lambda request: self._note(f"failed: {request.url}"))
        page.on("response", lambda response: self._note(f"{response.status}: {response.url}", response.status >= 400))

    def _note(self, fault: str, is_fault: bool = True) -> None:
        if is_fault:
            self.faults.append(fault)

    def _only_our_own(self, route: Route) -> None:
        address = urlsplit(route.request.url)
        if address.scheme == "data" or address.netloc == urlsplit(self.url).netloc:
            route.continue_()
        else:
            self._note(f"another host: {route.request.url}")
            route.abort()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser of this machine, without its own traffic."""
    executable = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip(f"no browser is installed: none of {', '.join(NAMES)} is found")
    expect.set_options(timeout=PATIENCE * 1000)  # milliseconds
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS.split(), timeout=PATIENCE * 1000)
        yield browser
        browser.close()


@pytest.fixture
def watched(browser: Browser, service: Running) -> Iterator[Watched]:
    """A fresh page that is watched."""
    page = browser.new_page(viewport={"width": 1280, "height": 1600})
    yield Watched(page, service.url)
    page.close()


def test_a_request_can_be_tried_out_on_the_docs_page(watched: Watched) -> None:
    page = watched.page
    page.goto(f"{watched.url}/docs", wait_until="networkidle")
    operation = page.locator("#operations-forecasts-forecastMultiStep")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute", exact=True).click()
    answer = operation.locator(".live-responses-table .response")
    expect(answer.locator(".response-col_status")).to_have_text("200")
    expect(answer.locator(".highlight-code").first).to_contain_text('"horizon": 3')
    assert watched.faults == []


def test_a_key_can_be_given_on_the_docs_page(browser: Browser, models: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    secret = add_key(keys, "person", ["metadata"])
    page = browser.new_page(viewport={"width": 1280, "height": 1600})
    with running(models, tmp_path / "log", keys=keys) as service:
        watched = Watched(page, service.url)
        page.goto(f"{service.url}/docs", wait_until="networkidle")
        page.locator(".auth-wrapper .authorize").first.click()
        page.locator("#auth-bearer-value").fill(secret)
        page.locator(".auth-btn-wrapper .authorize").first.click()
        page.locator(".auth-btn-wrapper .btn-done").first.click()
        operation = page.locator("#operations-models-listModels")
        operation.locator(".opblock-summary-control").click()
        operation.get_by_role("button", name="Try it out").click()
        operation.get_by_role("button", name="Execute", exact=True).click()
        expect(operation.locator(".live-responses-table .response-col_status").last).to_have_text("200")
        assert watched.faults == []
    page.close()


def test_the_docs_page_lists_every_operation(watched: Watched, client: httpx.Client) -> None:
    watched.page.goto(f"{watched.url}/docs", wait_until="networkidle")
    paths = client.get("/openapi.json").json()["paths"]
    expect(watched.page.locator(".opblock")).to_have_count(sum(map(len, paths.values())))
    expect(watched.page).to_have_title("Leadtime API")
    assert watched.faults == []


def test_redoc_shows_every_operation(watched: Watched, client: httpx.Client) -> None:
    page = watched.page
    page.goto(f"{watched.url}/redoc", wait_until="networkidle")
    expect(page.get_by_role("heading", name="Forecast several steps")).to_be_visible()
    expect(page.locator("[data-section-id^='tag/'][data-section-id*='/operation/']")).to_have_count(
        sum(map(len, client.get("/openapi.json").json()["paths"].values()))
    )
    assert watched.faults == []


def test_the_bare_address_leads_to_the_docs_page(client: httpx.Client) -> None:
    response = client.get("/")
    assert (response.status_code, response.headers["location"]) == (307, "docs")


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_a_page_is_served_under_a_strict_policy(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in str(policy)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "//" not in response.text, "the page names another host"


def test_the_assets_are_small_enough_and_bring_their_licences() -> None:
    files = [file for file in ASSETS.rglob("*") if file.is_file()]
    assert all(file.stat().st_size < 2_000_000 for file in files)
    for folder in (path for path in ASSETS.iterdir() if path.is_dir()):
        assert (folder / "LICENSE").is_file(), folder
        assert f"`{folder.name}/`" in (ASSETS / "README.md").read_text()
