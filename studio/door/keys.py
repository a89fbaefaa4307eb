"""Keys of clients: made once, shown once, kept as a hash, and void the moment they are revoked.

A key is ``tp-<id>-<secret>`` with a secret of 256 random bits, so a plain SHA-256 of it is safe to keep. Every key has
a file of its own under ``door_keys`` in the data folder; revoking renames the file. So no two commands get in each
other's way, and a running studio, which looks at the file for every request, follows at once. This module knows no
HTTP.

    python -m studio.door.keys add NAME     python -m studio.door.keys list     python -m studio.door.keys revoke ID
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import re
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from memory.settings import load_settings
from studio.settings import StudioSettings
from studio.wording import day

FOLDER = "door_keys"
PREFIX = "tp-"
_KEY = re.compile(r"tp-([0-9a-f]{12})-([0-9a-f]{64})")
_LIVE, _REVOKED = ".json", ".revoked"


class KeyRefused(ValueError):
    """The key cannot be made or revoked; the message says why."""


@dataclass(frozen=True)
class Key:
    """What is kept of a key. `secret_hash` is SHA-256 in hexadecimal; the limits are per minute, None: the studio's."""

    id: str
    name: str
    secret_hash: str
    created_at: float
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class Keys:
    """The keys of one data folder. Safe to use from several processes."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / FOLDER

    def add(
        self,
        name: str,
        *,
        created_at: float,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        new_hex: Callable[[int], str] = secrets.token_hex,
    ) -> str:
        """Make a key and return it; it cannot be had again. Raises `KeyRefused` for a name in use."""
        if not name.strip() or not name.isprintable():
            raise KeyRefused(f"The name is {name!r}; expected something that you will recognise in the list.")
        if any(key.name == name for key, revoked in self.all() if not revoked):
            raise KeyRefused(
                f"There is a key named {name!r} already. Choose another name, or revoke that one."
            )
        id, secret = new_hex(6), new_hex(32)
        key = Key(id, name, _hash(secret), created_at, requests_per_minute, tokens_per_minute)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{id}{_LIVE}"
        with path.open("x", encoding="utf-8") as file:
            path.chmod(0o600)
            json.dump(asdict(key), file)
        return f"{PREFIX}{id}-{secret}"

    def find(self, text: str) -> Key | None:
        """The key that `text` is; None for anything that is no key, unknown or revoked."""
        parts = _KEY.fullmatch(text)
        if parts is None:
            return None
        try:
            key = _read(self._folder / f"{parts[1]}{_LIVE}")
        except FileNotFoundError:
            return None
        return key if hmac.compare_digest(key.secret_hash, _hash(parts[2])) else None

    def any(self) -> bool:
        """Was a key ever made here, revoked ones included? Revoking the last one must not open the door."""
        return self._folder.is_dir() and any(self._folder.iterdir())

    def all(self) -> list[tuple[Key, bool]]:
        """Every key, oldest first, and whether it was revoked."""
        live = [(_read(path), False) for path in self._folder.glob(f"*{_LIVE}")]
        revoked = [(_read(path), True) for path in self._folder.glob(f"*{_REVOKED}")]
        return sorted([*live, *revoked], key=lambda found: found[0].created_at)

    def revoke(self, id_or_name: str) -> Key:
        """Make a key void from now on. Raises `KeyRefused` when no live key has this id or name."""
        for key, revoked in self.all():
            if not revoked and id_or_name in (key.id, key.name):
                (self._folder / f"{key.id}{_LIVE}").rename(self._folder / f"{key.id}{_REVOKED}")
                return key
        raise KeyRefused(f"No live key has the id or name {id_or_name!r}. `list` shows them.")


def _read(path: Path) -> Key:
    return Key(**json.loads(path.read_text(encoding="utf-8")))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("ascii")).hexdigest()


def main(words: Sequence[str], *, data_dir: Path, now: float) -> int:
    """The command. `data_dir` is where keys are kept unless the words name another folder. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m studio.door.keys", description="Keys of the HTTP door.")
    parser.add_argument(
        "--data-dir", type=Path, default=data_dir, help="the studio's data folder (%(default)s)"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add", help="make a key and show it, once")
    add.add_argument("name")
    add.add_argument("--requests-per-minute", type=int, help="instead of the studio's limit; 0: none")
    add.add_argument("--tokens-per-minute", type=int, help="instead of the studio's limit; 0: none")
    commands.add_parser("list", help="the keys, without their secrets")
    commands.add_parser("revoke", help="make a key void").add_argument("key", help="its id or name")
    chosen = parser.parse_args(words)
    keys = Keys(chosen.data_dir)
    try:
        if chosen.command == "add":
            limits = (chosen.requests_per_minute, chosen.tokens_per_minute)
            print(
                keys.add(
                    chosen.name, created_at=now, requests_per_minute=limits[0], tokens_per_minute=limits[1]
                )
            )
            print("Keep it: only its hash is stored, so it cannot be shown again.", file=sys.stderr)
        elif chosen.command == "revoke":
            print(f"Revoked {keys.revoke(chosen.key).name}. A running studio refuses it from now on.")
        else:
            for key, revoked in keys.all():
                print(f"{key.id}  {key.name}  made {day(key.created_at)}{'  revoked' if revoked else ''}")
    except KeyRefused as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], data_dir=load_settings(StudioSettings).data_dir, now=time.time()))
