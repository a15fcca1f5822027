"""A headless Chromium that watches what a page does, and a server that notes what is asked for."""

from __future__ import annotations

import http.server
import shutil
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

#: Flags, beside Playwright's own, with which Chromium works as root and keeps to itself.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-sync"]

_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.effectiveDirective} ${event.blockedURI}`));
window.dialogs = [];
for (const name of ["alert", "confirm", "prompt", "print", "open"])
  window[name] = (...args) => { window.dialogs.push(`${name}(${args})`); return null; };
"""


@dataclass
class Visit:
    """A page that is open, and all that it did."""

    page: Any
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def wait_for(self, condition, *, seconds=20):
        """Wait until an expression is true; a strict page forbids Playwright's own way to wait."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, f"not true within {seconds} s: {condition}"
            self.page.wait_for_timeout(20)

    def wait_for_figures(self, count=1):
        """Wait until so many figures are drawn, and say why if they are not."""
        states = "[...document.querySelectorAll('figure.headgrid')].map(f => f.dataset.state)"
        self.wait_for(f"{states}.every(s => s === 'drawn' || s === 'failed')")
        views = self.page.locator(".headgrid-view")
        assert self.page.evaluate(states) == ["drawn"] * count, views.all_inner_texts()

    def assert_harmless(self, *allowed):
        """Nothing ran, nothing was fetched but what is allowed, and nothing was complained of."""
        self.page.wait_for_timeout(50)
        assert self.page.evaluate("window.canary") is None
        assert self.page.evaluate("window.dialogs") == []
        assert self.page.evaluate("window.violations") == []
        assert self.console == []
        others = [url for url in self.requests if not url.startswith(("data:", "blob:"))]
        assert sorted(set(others)) == sorted({self.page.url.partition("#")[0], *allowed})

    def hover(self, x, y):
        """Move the mouse and return the rows of the tooltip, by name; None where there is none."""
        self.page.mouse.move(x, y)
        tooltip = self.page.locator("#vg-tooltip-element.visible")
        if not tooltip.count():
            return None
        cells = tooltip.locator("td").all_inner_texts()
        return dict(zip(cells[::2], cells[1::2], strict=True))


@contextmanager
def start_chromium():
    """Start Debian's Chromium, or whichever is on the path; skip where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def open_visits(browser):
    """Yield a function that opens a page and watches it."""
    contexts = []

    def visit(target, *, width=1280, height=900, init="", **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.add_init_script(_WATCH + init)
        page = context.new_page()
        seen = Visit(page)
        page.on("console", lambda message: seen.console.append(message.text))
        page.on("pageerror", lambda error: seen.console.append(str(error)))
        page.on("request", lambda request: seen.requests.append(request.url))
        page.goto(target if ":" in str(target) else Path(target).resolve().as_uri())
        return seen

    try:
        yield visit
    finally:
        for context in contexts:
            context.close()


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serve a folder, with headers of its own, and note every request."""

    def __init__(self, *args, headers, asked, **extra):
        self.extra_headers, self.asked = headers, asked
        super().__init__(*args, **extra)

    def do_GET(self):
        if self.path == "/favicon.ico":  # browsers ask every site for it
            self.send_response(204)
            self.end_headers()
            return
        self.asked.append(self.path)
        super().do_GET()

    def end_headers(self):
        for name, value in self.extra_headers.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def serve(folder, headers=None):
    """Serve a folder on localhost; yield its address and the list of paths that are asked for."""
    asked = []
    handler = partial(_Handler, directory=str(folder), headers=headers or {}, asked=asked)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
