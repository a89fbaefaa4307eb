"""A private PostgreSQL server for the tests, and fixtures that run a storage test on it and on SQLite alike.

Used as a plugin: ``pytest_plugins = ("tests.postgres",)``. Where there are no server binaries the PostgreSQL
half is skipped and says so. The server listens on a random loopback port, lives in a temporary folder, is run
by the ``postgres`` user when the tests are run by root (it refuses root), and is gone with the session.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from memory.database import Database, open_database


class Clock:
    """A clock that stands still until it is moved. Starts at 2026-01-01 12:00 UTC."""

    def __init__(self) -> None:
        self.now = 1_767_268_800.0

    def __call__(self) -> float:
        return self.now


def numbered_ids() -> Callable[[], str]:
    """Ids id1, id2, ... in order."""
    numbers = itertools.count(1)
    return lambda: f"id{next(numbers)}"


def _binaries() -> Path | None:
    """The folder of initdb and pg_ctl, or None."""
    asked = shutil.which("pg_config")
    if asked:
        folder = Path(
            subprocess.run([asked, "--bindir"], capture_output=True, text=True, check=True).stdout.strip()
        )
        if (folder / "initdb").exists() and (folder / "pg_ctl").exists():
            return folder
    found = shutil.which("initdb")
    return Path(found).parent if found else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class NoServer(RuntimeError):
    """PostgreSQL cannot be started here; the message says what is missing."""


@contextmanager
def private_server(*options: str) -> Iterator[str]:
    """The address of a running server, as ``host:port``; `options` are words for its command line. Raises
    `NoServer`."""
    binaries = _binaries()
    if binaries is None:
        raise NoServer("PostgreSQL is not installed (no initdb, no pg_config)")
    as_server: list[str] = []
    folder = Path(tempfile.mkdtemp(prefix="thumbprint-postgres-"))
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        shutil.chown(folder, "postgres")
        as_server = ["runuser", "-u", "postgres", "--"]
    port = _free_port()
    data, log = str(folder / "data"), str(folder / "log.txt")

    def control(*words: str) -> None:
        subprocess.run([*as_server, *words], check=True, cwd="/", stdout=subprocess.DEVNULL, timeout=60)

    settings = " ".join(
        [f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder}", *options]
    )
    try:
        control(
            str(binaries / "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"
        )
        control(str(binaries / "pg_ctl"), "-D", data, "-l", log, "-w", "-o", settings, "start")
        try:
            yield f"127.0.0.1:{port}"
        finally:
            control(str(binaries / "pg_ctl"), "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a running server, as ``host:port``."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: storage was tested on SQLite only")
    try:
        # The machine will not lose power; only clients are killed.
        with private_server("-c fsync=off", "-c full_page_writes=off") as address:
            yield address
    except NoServer as missing:
        pytest.skip(f"{missing}: storage was tested on SQLite only")


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The URL of an empty database on the server. Emptied, not made anew: a new one is 7 MB of files."""
    url = f"postgresql+psycopg://postgres@{postgres_server}/postgres"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a fresh database; the test runs once on each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'thumbprint.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def clock() -> Clock:
    """The clock of `database`."""
    return Clock()


@pytest.fixture
def database(database_url: str, clock: Clock) -> Iterator[Database]:
    """A fresh database with a clock that stands still and ids that count up."""
    opened = open_database(database_url, clock=clock, new_id=numbered_ids())
    yield opened
    opened.close()
