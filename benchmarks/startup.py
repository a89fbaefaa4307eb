"""How long until a stranger can talk: ``python app.py`` to a page, to a studio that can chat, to the first words.

Starts the real program on a free port with an empty data folder, several times, and asks in a real Chromium (the wait
is from pressing Enter to the first words on the page). Where there is no Chromium the last two rows say so. Runs as
``python -m benchmarks.startup [--rounds 5] [--json]``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
QUESTIONS = (
    "What is green tea?",
    "How do bees make honey?",
    "Tell me a short story.",
    "Any tips for baking bread?",
)
FIRST_WORDS = "() => document.querySelector('.reply.live .words')?.textContent.trim().length > 0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how many times to start (default 5)")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    options = parser.parse_args()
    rounds = [measure_once() for _ in range(options.rounds)]
    result = {key: summarise([r[key] for r in rounds if r[key] is not None]) for key in rounds[0]}
    if not options.json:
        print(f"{'':28}{'median':>9}{'least':>9}{'most':>9}")
        for key, figures in result.items():
            shown = "   not measured (no Chromium)"
            if figures:
                shown = "".join(f"{value:9.2f}" for value in figures.values())
            print(f"{key.replace('_', ' '):28}{shown}")
    print(json.dumps({"benchmark": "startup", "rounds": options.rounds, **result}))


def summarise(values: list[float]) -> dict[str, float] | None:
    """Median and range in seconds; None without a value."""
    if not values:
        return None
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def measure_once() -> dict[str, float | None]:
    """Seconds from one start: page, chat ready, first words of the first chat, and of the chats after it (median)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="thumbprint-startup-") as folder:
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
        command = [
            sys.executable,
            "app.py",
            "--port",
            str(port),
            "--data-dir",
            folder,
            "--compare-every",
            "0",
        ]
        begun = time.perf_counter()
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        try:
            page = wait_for(f"http://127.0.0.1:{port}/", begun=begun)
            ready = wait_for(f"http://127.0.0.1:{port}/healthz", begun=begun)
            first, later = ask_in_browser(f"http://127.0.0.1:{port}/")
        finally:
            server.terminate()
            server.wait(timeout=30)
    return {
        "page_seconds": page,
        "chat_ready_seconds": ready,
        "first_words_seconds": first,
        "later_first_words_seconds": later,
    }


def wait_for(url: str, *, begun: float, limit: float = 120.0) -> float:
    """Seconds since `begun` until `url` answers 200. Raises `TimeoutError` after `limit` seconds."""
    while time.perf_counter() - begun < limit:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return time.perf_counter() - begun
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        time.sleep(0.02)
    raise TimeoutError(f"{url} did not answer within {limit:g} s.")


def ask_in_browser(url: str) -> tuple[float | None, float | None]:
    """Seconds from Enter to the first words: of the first chat, and the median of the following ones."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        return None, None
    from playwright.sync_api import sync_playwright

    waits = []
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page()
        page.goto(url)
        box = page.locator(".composer textarea")
        for question in QUESTIONS:
            box.fill(question)
            begun = time.perf_counter()
            box.press("Enter")
            page.wait_for_function(FIRST_WORDS, polling=10)
            waits.append(time.perf_counter() - begun)
            page.wait_for_selector(".composer .send:not(.stop):visible")
        browser.close()
    return waits[0], statistics.median(waits[1:])


if __name__ == "__main__":
    main()
