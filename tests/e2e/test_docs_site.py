"""The built documentation as a reader sees it, in a browser."""

from __future__ import annotations

import functools
import http.server
import posixpath
import re
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import expect, sync_playwright

from dev import browser

pytestmark = pytest.mark.e2e

DOCS = Path(__file__).parents[2] / "docs"
PHONE = {"width": 390, "height": 844}
PATIENCE = 60_000  # for a busy machine


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Log nothing."""


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    folder = tmp_path_factory.mktemp("html")
    command = [sys.executable, "-m", "sphinx", "-W", "--quiet", "-d", str(folder / "doctrees"), str(DOCS), str(folder)]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="module")
def site(html):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=html)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def chromium():
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright, browser.launch(playwright) as started:
        yield started


@pytest.fixture(scope="module")
def pages(html):
    return sorted(str(path.relative_to(html)) for path in html.rglob("*.html") if "_static" not in path.parts)


def test_no_page_scrolls_sideways_on_a_phone(chromium, site, pages):
    wide = []
    with chromium.new_page(viewport=PHONE) as page:
        for name in pages:
            page.goto(f"{site}/{name}", wait_until="domcontentloaded")
            if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
                wide.append(name)
    assert pages
    assert wide == []


def test_each_internal_link_leads_to_a_place_on_a_page(html, pages):
    texts = {name: (html / name).read_text() for name in pages}
    places = {(name, anchor) for name, text in texts.items() for anchor in ("", *re.findall(r'\bid="([^"]+)"', text))}
    broken = set()
    for name, text in texts.items():
        for link in re.findall(r'<a\b[^>]*\bhref="([^":]+)"', text):
            page, _, anchor = link.partition("#")
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), page)) if page else name
            if target.endswith(".html") and (target, anchor) not in places:
                broken.add((name, link))
    assert broken == set()


AWS_DEFAULT = (
    "[2026-01-31 12:00:00] WARNING - Connection 'aws_default' does not exist; using boto3's default credential chain. "
    "Create the connection, or set aws_conn_id=None"
)
THROTTLED = (
    "botocore.exceptions.ClientError: An error occurred (ThrottlingException) when calling the ListImageVersions "
    "operation (reached max retries: 2): Rate exceeded"
)
TIMED_OUT = "SageMaker image 'my-image': version 8 did not become CREATED within the timeout of 7200 seconds"


@pytest.mark.parametrize(
    ("pasted", "explained"),
    [
        (AWS_DEFAULT, "default credential chain"),
        (THROTTLED, "ThrottlingException"),
        (TIMED_OUT, "within the timeout"),
    ],
    ids=["warning", "error of AWS", "timeout"],
)
def test_a_pasted_message_is_found(chromium, site, pasted, explained):
    with chromium.new_page() as page:
        page.goto(f"{site}/search.html?q={quote(pasted)}")
        link = page.locator(".matching-messages a").first
        expect(link).to_contain_text(explained)
        link.click()
        expect(page.locator(":target")).to_contain_text(explained)


def test_nothing_is_suggested_for_other_words(chromium, site):
    with chromium.new_page() as page:
        page.goto(f"{site}/search.html?q=wait+for+a+version")
        expect(page.locator("#search-results li").first).to_be_visible()
        expect(page.locator(".matching-messages")).to_have_count(0)


def test_the_index_for_language_models_has_each_guide(html):
    index, guides = (html / "llms.txt").read_text(), (html / "llms-full.txt").read_text()
    assert "(waiting.html)" in index
    assert "# Wait for a version" in guides
    assert "literalinclude" not in guides
