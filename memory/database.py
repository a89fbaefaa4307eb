"""One database behind everything that is remembered: opening it, its transactions, and its failures in plain
words.

SQLite by default, PostgreSQL by URL; this is the only module that knows which one it is. A transaction is
either `Database.read` or `Database.write`; what a `with database.write()` block did is kept once the block
has been left, and not before. Driver errors leave here as `StorageError`. This module knows no table's
meaning, no conversation and no judgement.

SQLite runs in WAL mode, so readers never wait for a writer, with ``synchronous=NORMAL``: a commit is handed
to the operating system before it is acknowledged, so it survives the death of this process (SIGKILL
included), and the file stays whole through a power cut, which can take back at most the last moments before
it. ``FULL`` would buy those moments with a disk flush for every vote.
"""

from __future__ import annotations

import errno
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from threading import RLock
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

VERSION_TABLE = "thumbprint_version"
_MIGRATIONS = Path(__file__).with_name("migrations")
_BUSY_SECONDS = 20.0
_MIGRATION_LOCK = 0x7468756D62
"""PostgreSQL advisory lock held while migrating: any number will do, as long as all studios agree on it."""


class StorageError(OSError):
    """The database could not take or give data (disk full, read-only, locked, unreachable). The message says
    which."""


class NewerDatabaseError(RuntimeError):
    """The database was made by a newer Thumbprint than this one. It has not been changed."""


class UnknownRecord(KeyError):
    """Something was asked for by an id that is not remembered."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class Database:
    """An engine with a clock and a source of ids. Safe to share between threads; close it when done."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float], new_id: Callable[[], str]) -> None:
        self.engine = engine
        self.clock = clock
        self.new_id = new_id
        self._writing = engine.execution_options(thumbprint_writes=True)
        # SQLite takes one writer at a time and lets the others poll; threads of this process queue here.
        self._turnstile: AbstractContextManager[Any] = (
            RLock() if engine.dialect.name == "sqlite" else nullcontext()
        )

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only looks. Raises `StorageError`."""
        with _plain_errors(self.engine.url), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is kept when the block ends and undone when it raises.

        Raises `StorageError`, and `sqlalchemy.exc.IntegrityError` where a constraint says no.
        """
        with _plain_errors(self.engine.url), self._turnstile, self._writing.begin() as connection:
            yield connection

    def close(self) -> None:
        """Give all connections back. Connections still in use close when they are returned."""
        self.engine.dispose()


def open_database(
    url: str, *, clock: Callable[[], float] = time.time, new_id: Callable[[], str] = lambda: uuid.uuid4().hex
) -> Database:
    """Open the database at `url`, making it and its folder if need be, and bring it to this version's schema.

    Raises `ValueError` for a URL that cannot work, `NewerDatabaseError` for a database from the future (left
    as it was) and `StorageError` where the place cannot be used.
    """
    parsed = _checked_url(url)
    if parsed.get_backend_name() == "sqlite":
        if not str(parsed.database).startswith("file:"):
            _make_folder(Path(str(parsed.database)))
        engine = _sqlite_engine(parsed)
    else:
        engine = _postgresql_engine(parsed)
    database = Database(engine, clock=clock, new_id=new_id)
    try:
        _bring_up_to_date(database)
    except BaseException:
        database.close()
        raise
    return database


def put_latest(
    connection: Connection,
    table: Table,
    values: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    key: Sequence[str],
    order: str,
) -> None:
    """Insert `values`, or replace the row with the same `key` unless that one is later in `order`. Of several rows at
    once no two may have the same key.

    Two writers of the same key may commit in either order; the later one stands.
    """
    rows = [values] if isinstance(values, Mapping) else list(values)
    statement = _putting(connection.dialect.name, table, tuple(rows[0]), tuple(key), order)
    connection.execute(statement, rows if len(rows) > 1 else rows[0])


@lru_cache
def _putting(dialect: str, table: Table, names: tuple[str, ...], key: tuple[str, ...], order: str) -> Any:
    """The statement of `put_latest`. Kept, because making one costs more than running it."""
    statement = (postgresql if dialect == "postgresql" else sqlite).insert(table)
    return statement.on_conflict_do_update(
        index_elements=list(key),
        set_={name: statement.excluded[name] for name in names if name not in key},
        where=statement.excluded[order] > table.c[order],
    )


def _checked_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ValueError(
            f"Database URL is {url!r}; expected something like sqlite:///folder/thumbprint.db or "
            "postgresql+psycopg://user@host/name. Correct THUMBPRINT_DATABASE_URL."
        ) from error
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise ValueError(f"Database URL names {backend!r}; expected sqlite or postgresql.")
    in_memory = not parsed.database or parsed.database == ":memory:" or parsed.query.get("mode") == "memory"
    if backend == "sqlite" and in_memory:
        raise ValueError(
            f"Database URL is {url!r}, which is gone when the process ends; expected a file, such as "
            "sqlite:///folder/thumbprint.db."
        )
    return parsed


def _make_folder(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            error.errno or errno.EIO,
            f"The data folder {file.parent} cannot be made ({error.strerror}). "
            "Choose another with THUMBPRINT_DATA_DIR.",
        ) from error


def _sqlite_engine(url: URL) -> Engine:
    """An engine whose transactions begin when ours begin: a writer takes its place in line at once, so that a
    transaction that reads before it writes cannot be refused half-way."""
    engine = create_engine(
        url, connect_args={"timeout": _BUSY_SECONDS, "isolation_level": None}, max_overflow=35
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("thumbprint_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql_engine(url: URL) -> Engine:
    try:
        # Pings before use, so that a restarted server costs a reconnection, not an error on somebody's page.
        return create_engine(url, pool_pre_ping=True, max_overflow=15)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"Database URL needs the Python package {error.name!r}, which is not installed. "
            'Run: pip install "psycopg[binary]".'
        ) from error


def _bring_up_to_date(database: Database) -> None:
    """Migrate under a lock, so that of two studios that open a fresh database one waits for the other."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    with database.read() as connection:
        found = _revision(connection, scripts)
    if database.engine.dialect.name == "sqlite":
        _switch_to_wal(database)
    if found == scripts.get_current_head():
        return
    with database.write() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        _revision(connection, scripts)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _revision(connection: Connection, scripts: ScriptDirectory) -> str | None:
    """The revision found in the database (None: fresh). Raises `NewerDatabaseError` for one unknown here."""
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    found = context.get_current_revision()
    known = {script.revision for script in scripts.walk_revisions()}
    if found is not None and found not in known:
        raise NewerDatabaseError(
            f"The database {connection.engine.url.render_as_string(hide_password=True)} is at revision "
            f"{found!r}; this Thumbprint knows up to {scripts.get_current_head()!r}. Nothing was changed. "
            "Update Thumbprint, or point THUMBPRINT_DATA_DIR at another folder."
        )
    return found


def _switch_to_wal(database: Database) -> None:
    """Turn on WAL (it stays on in the file). SQLite does not wait for other processes here, so this does."""
    give_up = time.monotonic() + _BUSY_SECONDS
    with _plain_errors(database.engine.url):
        connection = database.engine.raw_connection()
        try:
            while True:
                try:
                    connection.cursor().execute("PRAGMA journal_mode = WAL")
                    return
                except database.engine.dialect.loaded_dbapi.OperationalError as error:
                    if "locked" not in str(error) or time.monotonic() > give_up:
                        raise StorageError(*_explain(error, database.engine.url)) from error
                    time.sleep(0.02)
        finally:
            connection.close()


@contextmanager
def _plain_errors(url: URL) -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise
    except PoolTimeoutError as error:
        raise StorageError(
            errno.EBUSY, "The database is busy: no connection became free. Try again in a moment."
        ) from error
    except (DatabaseError, InterfaceError) as error:
        raise StorageError(*_explain(error.orig or error, url)) from error


def _explain(error: BaseException, url: URL) -> tuple[int, str]:
    """An errno and a sentence for what the driver said: SQLite's primary result code, or PostgreSQL's
    SQLSTATE."""
    place = url.render_as_string(hide_password=True)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    state = getattr(error, "sqlstate", None) or ""
    if code == 13 or state == "53100":
        return errno.ENOSPC, (
            f"The disk is full: {place} could not take this and was left as it was. "
            "Everything saved before is there. Free some space and try again."
        )
    if code == 8 or state == "25006":
        return errno.EROFS, f"{place} is read-only. Make it writable, or choose another THUMBPRINT_DATA_DIR."
    if code in (5, 6):
        return errno.EBUSY, (
            f"{place} has been locked by another process for more than {_BUSY_SECONDS:.0f} s. "
            "Close what holds it and try again."
        )
    if code == 14:
        return errno.EACCES, f"{place} cannot be opened. Check that the folder exists and may be written to."
    if code in (11, 26):
        return errno.EIO, f"{place} is damaged or not a SQLite database ({error}). Restore it from a backup."
    return errno.EIO, f"{place} failed: {str(error).strip()}. Check that the database can be reached."
