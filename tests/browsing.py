"""A real Chromium for tests of the page: visitors, and the few things that every visitor does.

A test module says ``pytest_plugins = ("browsing",)`` and has a fixture `studio`, whose page is served here, or an
`address` of its own. Skips, saying why, where there is no Chromium. After each test there must have been no error in
the browser's console and no request to anywhere but the studio.
"""

from __future__ import annotations

import shutil
import socket
import threading
import time

import pytest

from studio.launch import create_app
from studio.opening import opened

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def address(studio):
    """A server for the page of the module's `studio`."""
    import uvicorn

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = create_app(studio.settings, opened(studio))
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.05)
    assert server.started
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        pytest.skip("There is no Chromium on the PATH; install it to run the browser tests.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, address):
    """Open the page as a new visitor; afterwards there must have been no error and no request to anywhere
    else.
    """
    contexts, wrong = [], []

    def open_page(**options):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 800}} | options)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(20_000)
        tab.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("dialog", lambda dialog: wrong.append(f"a dialog: {dialog.message}"))
        inside = (address, "data:", "blob:")
        tab.on(
            "request", lambda request: None if request.url.startswith(inside) else wrong.append(request.url)
        )
        tab.goto(address)
        tab.wait_for_selector("#transcript .empty")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong, wrong


def say(tab, text):
    tab.fill("#composer", text)
    tab.press("#composer", "Enter")


def settled(tab, replies):
    """Wait until so many replies stand in the conversation and none is being written."""
    tab.wait_for_function(
        "n => document.querySelectorAll('.entry.reply:not(.live)[data-node]').length === n"
        " && !document.querySelector('.entry.live, .echo')",
        arg=replies,
    )


def vote(tab, key):
    tab.wait_for_selector("#pair .skip:not([hidden])")
    tab.keyboard.press(key)
    tab.wait_for_selector(".entry.reply:last-of-type .compared")
