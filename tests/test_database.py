"""Opening, migrating, running two at once, and every way in which a disk can fail."""

from __future__ import annotations

import errno
import hashlib
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import IntegrityError

import memory.database
from memory.conversations import Conversations
from memory.database import (
    VERSION_TABLE,
    Database,
    NewerDatabaseError,
    StorageError,
    open_database,
    put_latest,
)
from memory.ledger import Ledger
from memory.runs import Runs
from memory.schema import Message, Occurrence, Promotion, Rating
from memory.tables import escape, judgements, metadata, unescape

pytest_plugins = ("tests.postgres",)

ROOT = Path(__file__).parents[1]
MIGRATIONS = Path(memory.database.__file__).with_name("migrations")


def sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'deep' / 'folder' / 'thumbprint.db'}"


def python(*words: str) -> subprocess.Popen[str]:
    """A child Python that can import the project."""
    return subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def revisions() -> list[str]:
    """Every revision, oldest first."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()][::-1]


def move_to(database: Database, revision: str, *, down: bool = False) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.write() as connection:
        config.attributes["connection"] = connection
        (command.downgrade if down else command.upgrade)(config, revision)


# What revision 0001 wrote, in the words of its own columns, so that every later reader is held to it.
FIRST_DATA = """
INSERT INTO conversations (id, owner, title, system_prompt, head, hidden, created_at, updated_at)
    VALUES ('k', 'me', 'Tea', 'Be brief.', 'n2', false, 10.0, 12.0);
INSERT INTO nodes (id, conversation_id, parent, role, content, turn_id, created_at)
    VALUES ('n1', 'k', NULL, 'user', 'How long?', NULL, 11.0);
INSERT INTO nodes (id, conversation_id, parent, role, content, turn_id, created_at)
    VALUES ('n2', 'k', 'n1', 'assistant', 'Four minutes.', 't1', 12.0);
INSERT INTO turns (id, conversation_id, prompt, completion, policy_version, fingerprint, sampling,
    prompt_tokens, completion_tokens, finish, created_at)
    VALUES ('t1', 'k', '[["user","How long?"]]', 'Four minutes.', 'base', 'ab12cd34', '{"seed":7}', 5, 3,
    'stop', 12.0);
INSERT INTO events (category, kind, target, criterion, rater, created_at, payload)
    VALUES ('judgement', 'rating', 't1', '', 'me', 13.0,
    '{"value":1,"reasons":["clear"],"comment":""}');
INSERT INTO judgements (kind, target, criterion, rater, sequence, standing, value, day, conversation_id)
    VALUES ('rating', 't1', '', 'me', 1, true, '1', 0, 'k');
INSERT INTO promotions (version, actor, reason, created_at) VALUES ('v0001', 'gate', 'better', 14.0)
"""


def test_a_database_of_the_first_revision_opens_with_its_data(database: Database, database_url: str) -> None:
    move_to(database, "base", down=True)
    move_to(database, revisions()[0])
    with database.write() as connection:
        for statement in FIRST_DATA.split(";"):
            connection.exec_driver_sql(statement)
    database.close()

    opened = open_database(database_url)
    conversations, ledger = Conversations(opened), Ledger(opened)
    assert [kept.title for kept in conversations.list("me")] == ["Tea"]
    assert [node.message for node in conversations.path("k")] == [
        Message("user", "How long?"),
        Message("assistant", "Four minutes."),
    ]
    assert ledger.turn("t1").prompt == (Message("user", "How long?"),)
    assert ledger.turn("t1").sampling == {"seed": 7}
    assert ledger.ratings() == [Rating("t1", 1, "me", 13.0, reasons=("clear",))]
    assert Runs(opened).served() == Promotion(1, "v0001", "gate", "better", 14.0)
    ledger.retract("rating", "t1", "me")
    assert ledger.last_sequence() == 2
    opened.close()


def test_the_migrations_make_exactly_the_tables_that_queries_use(database: Database) -> None:
    with database.read() as connection:
        # The index of words is each database's own kind of table, so `memory.tables` does not describe it.
        described = {
            "version_table": VERSION_TABLE,
            "include_name": lambda name, *_: "said_words" not in str(name),
        }
        context = MigrationContext.configure(connection, opts=described)
        assert compare_metadata(context, metadata) == []


def test_every_downgrade_undoes_its_upgrade(database: Database) -> None:
    move_to(database, "base", down=True)
    assert set(inspect(database.engine).get_table_names()) == {VERSION_TABLE}
    move_to(database, "head")
    assert Conversations(database).create("me").owner == "me"


def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    database = open_database(url)
    Conversations(database).create("me")
    with database.write() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9042'"))
    database.close()
    file = tmp_path / "deep" / "folder" / "thumbprint.db"
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(NewerDatabaseError, match=r"revision '9042'.*Nothing was changed.*Update Thumbprint"):
        open_database(url)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == before


def test_a_newer_database_is_refused_on_any_server(database: Database, database_url: str) -> None:
    with database.write() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9042'"))
    with pytest.raises(NewerDatabaseError, match="9042"):
        open_database(database_url)


OPENER = """
import sys, time
from memory.conversations import Conversations
from memory.database import open_database
print("ready", flush=True)
sys.stdin.readline()
database = open_database(sys.argv[1])
print(Conversations(database).create(sys.argv[2]).owner, flush=True)
"""


@pytest.mark.parametrize(
    "database_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)
def test_processes_that_open_a_fresh_database_at_once_all_succeed(database_url: str) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, database_url, f"owner{number}"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    outcomes = [child.communicate(timeout=60) for child in children]
    assert [(out, error) for out, error in outcomes] == [(f"owner{number}\n", "") for number in range(4)]
    database = open_database(database_url)
    assert [len(Conversations(database).list(f"owner{number}")) for number in range(4)] == [1, 1, 1, 1]
    database.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("not a url", "expected something like sqlite:///folder"),
        ("mysql://somebody@somewhere/thing", "'mysql'; expected sqlite or postgresql"),
        ("sqlite://", "gone when the process ends"),
        ("sqlite:///:memory:", "gone when the process ends"),
        ("postgresql+pg8000://somebody@somewhere/thing", "package 'pg8000', which is not installed"),
    ],
)
def test_a_url_that_cannot_work_is_refused(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        open_database(url)


def test_an_unreachable_server_is_named_without_its_password() -> None:
    with pytest.raises(StorageError) as caught:
        open_database("postgresql+psycopg://me:secret@127.0.0.1:1/thing")
    assert "127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "deep").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match=r"data folder .*deep/folder cannot be made.*THUMBPRINT_DATA_DIR"):
        open_database(sqlite_url(tmp_path))


def test_a_file_that_is_no_database_is_named_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "thumbprint.db"
    file.write_text("Dear diary, " * 1000)
    with pytest.raises(StorageError, match="damaged or not a SQLite database"):
        open_database(f"sqlite:///{file}")
    assert file.read_text() == "Dear diary, " * 1000


def test_a_read_only_database_reads_and_refuses_to_write(tmp_path: Path) -> None:
    open_database(f"sqlite:///{tmp_path / 'thumbprint.db'}").close()
    database = open_database(f"sqlite:///file:{tmp_path / 'thumbprint.db'}?mode=ro&uri=true")
    assert Conversations(database).list("me") == []
    with pytest.raises(StorageError, match="read-only") as caught:
        Conversations(database).create("me")
    assert caught.value.errno == errno.EROFS
    database.close()


def test_a_database_locked_by_another_process_is_an_error_in_words(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'thumbprint.db'}")
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(tmp_path / "thumbprint.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="locked by another process") as caught:
        Conversations(database).create("me")
    assert caught.value.errno == errno.EBUSY
    other.execute("ROLLBACK")
    other.close()
    assert Conversations(database).create("me").owner == "me"
    database.close()


def test_a_full_disk_loses_nothing_and_writing_goes_on_afterwards(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'thumbprint.db'}")
    conversations = Conversations(database)
    conversation = conversations.create("me")
    with database.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 20}")
    acknowledged: list[str] = []
    with pytest.raises(StorageError, match=r"disk is full.*Everything saved before is there") as caught:
        for _ in range(1000):
            parent = acknowledged[-1] if acknowledged else None
            node = conversations.append(conversation.id, Message("user", "word " * 400), parent=parent)
            acknowledged.append(node.id)
    assert caught.value.errno == errno.ENOSPC
    assert len(acknowledged) > 3
    assert [node.id for node in conversations.path(conversation.id)] == acknowledged

    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    last = conversations.append(conversation.id, Message("user", "back again"), parent=acknowledged[-1])
    database.close()
    opened = open_database(f"sqlite:///{tmp_path / 'thumbprint.db'}")
    assert [node.id for node in Conversations(opened).path(conversation.id)] == [*acknowledged, last.id]
    opened.close()


def test_opening_waits_for_a_writer_that_came_first(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "thumbprint.db", isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE somebody_elses (x)")  # not yet in WAL mode, where SQLite would not wait
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.3, lambda: other.execute("COMMIT"))
    release.start()
    database = open_database(f"sqlite:///{tmp_path / 'thumbprint.db'}")
    release.join()
    other.close()
    with database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
    assert Conversations(database).create("me").owner == "me"
    database.close()


def test_what_raises_in_the_middle_is_undone(database: Database) -> None:
    Conversations(database).create("me", title="before")
    with pytest.raises(RuntimeError, match="on purpose"), database.write() as connection:
        connection.execute(text("UPDATE conversations SET title = 'half'"))
        raise RuntimeError("on purpose")
    assert [kept.title for kept in Conversations(database).list("me")] == ["before"]


def test_readers_do_not_wait_for_a_writer_and_see_only_what_was_kept(database: Database) -> None:
    conversations = Conversations(database)
    with database.write() as connection:
        connection.execute(
            text(
                "INSERT INTO conversations (id, owner, title, system_prompt, hidden, created_at, updated_at) "
                "VALUES ('k', 'me', '', '', false, 1.0, 1.0)"
            )
        )
        assert conversations.list("me") == []
    assert [kept.id for kept in conversations.list("me")] == ["k"]


@pytest.mark.parametrize("change", ["UPDATE events SET rater = 'you'", "DELETE FROM events"])
def test_the_database_itself_refuses_to_rewrite_the_log(database: Database, change: str) -> None:
    ledger = Ledger(database)
    ledger.note(Occurrence("stop", "t1", "me", 1.0))
    with pytest.raises(IntegrityError, match="never changed"), database.write() as connection:
        connection.execute(text(change))
    assert ledger.occurrences() == [Occurrence("stop", "t1", "me", 1.0)]


def test_a_message_that_does_not_exist_cannot_be_a_parent(database: Database) -> None:
    conversation = Conversations(database).create("me")
    with pytest.raises(IntegrityError), database.write() as connection:
        connection.execute(
            text(
                "INSERT INTO nodes (id, conversation_id, parent, role, content, created_at) "
                f"VALUES ('n', '{conversation.id}', 'nobody', 'user', 'x', 1.0)"
            )
        )


def test_the_later_of_two_writers_stands_in_whatever_order_they_commit(database: Database) -> None:
    ledger = Ledger(database)
    for _ in range(3):
        ledger.note(Occurrence("stop", "t1", "me", 1.0))
    key = {"target": "t1", "rater": "me", "kind": "rating", "criterion": ""}
    for sequence, value in ((1, "1"), (3, "-1"), (2, "1")):
        with database.write() as connection:
            rest = {"standing": True, "value": value, "day": 0, "conversation_id": "k"}
            put_latest(
                connection, judgements, {**key, **rest, "sequence": sequence}, key=list(key), order="sequence"
            )
    with database.read() as connection:
        rows = connection.execute(select(judgements.c.sequence, judgements.c.value)).all()
    assert [tuple(row) for row in rows] == [(3, "-1")]


WRITER = """
import sys
from memory.database import open_database
from memory.ledger import Ledger
from memory.schema import Occurrence
ledger = Ledger(open_database(sys.argv[1]))
for number in range(1_000_000):
    ledger.note(Occurrence("stop", str(number), "me", float(number)))
    print(number, flush=True)
"""


def test_what_was_acknowledged_survives_sigkill(database: Database, database_url: str) -> None:
    child = python("-c", WRITER, database_url)
    assert child.stdout is not None
    acknowledged = [int(child.stdout.readline()) for _ in range(200)]
    child.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in child.stdout.read().splitlines()]
    child.wait(timeout=30)
    child.communicate()
    kept = [int(event.target) for event in Ledger(database).occurrences(limit=1_000_000)][::-1]
    assert kept[: len(acknowledged)] == acknowledged
    assert len(kept) - len(acknowledged) in (0, 1)  # one may have been kept and not yet acknowledged


def test_many_threads_lose_nothing(database: Database) -> None:
    ledger = Ledger(database)
    failures: list[BaseException] = []

    def write(thread: int) -> None:
        try:
            for number in range(100):
                ledger.note(Occurrence("stop", f"{thread}/{number}", "me", 1.0))
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    kept = [event.target for event in ledger.occurrences(limit=10_000)]
    assert sorted(kept) == sorted(f"{thread}/{number}" for thread in range(8) for number in range(100))
    assert ledger.last_sequence() >= 800


any_text = st.text(st.characters(exclude_categories=()), max_size=50) | st.text(
    "\x00\ufdd0\ud800\udfff0da", max_size=9
)


@settings(derandomize=True, deadline=None)
@given(any_text)
def test_escaped_text_is_storable_and_comes_back(value: str) -> None:
    stored = escape(value)
    stored.encode("utf-8")
    assert "\x00" not in stored
    assert unescape(stored) == value


def test_ordinary_text_is_stored_as_it_is() -> None:
    for value in ("", "Grüße, 世界 👩‍👩‍👧 שלום\r\n\t", "back\\slash \\u0000 'quoted' \"twice\" %s :name"):
        assert escape(value) == value
