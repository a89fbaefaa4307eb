"""Who is visiting: a random id that the browser keeps, and the salted hash of it under which things are
remembered.

There is no account and no address. The browser makes 128 random bits and keeps them; the studio hashes them
with a salt that never leaves the data folder, so the ledger cannot be traced back to a browser and survives a
restart of the studio. The id is a secret of its browser: who knows it, sees its conversations. This module
knows no conversation and no page.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from studio.intake import ChatRefused

SALT_FILE = "visitors.salt"
_VISITOR = re.compile(r"[0-9a-f]{32}")
_SALT = re.compile(r"[0-9a-f]{64}")


class Visitors:
    """Turns a browser's id into the owner and rater that the ledger knows. `salt` is 64 hexadecimal digits."""

    def __init__(self, salt: str) -> None:
        if not _SALT.fullmatch(salt):
            raise ValueError(f"The salt has {len(salt)} characters; expected 64 hexadecimal digits.")
        self._salt = bytes.fromhex(salt)

    def owner(self, visitor: object) -> str:
        """The name under which this browser's conversations and judgements are kept: 32 hexadecimal digits.

        Raises `ChatRefused` for anything that is not an id made by the page.
        """
        if not isinstance(visitor, str) or not _VISITOR.fullmatch(visitor):
            raise ChatRefused("This page does not know who you are. Reload it; your conversations are kept.")
        return hmac.new(self._salt, visitor.encode("ascii"), hashlib.sha256).hexdigest()[:32]


def open_visitors(data_dir: Path) -> Visitors:
    """The visitors of this data folder. Raises `ValueError` with a sentence when its salt is damaged."""
    path = data_dir / SALT_FILE
    try:
        return Visitors(open_secret(path))
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged: {error} Restore it from a backup; if you delete it, visitors start without "
            "their "
            "conversations."
        ) from error


def open_secret(path: Path) -> str:
    """Read the 64 hexadecimal digits at `path`, making them on the first start. Two studios that start at once
    agree on them.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        draft.write_text(secrets.token_hex(32), encoding="ascii")
        draft.chmod(0o600)
        _move_unless_there(draft, path)
    return path.read_text(encoding="ascii").strip()


def _move_unless_there(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)
    except FileExistsError:
        pass  # The other studio that starts now was first; its salt counts.
    except OSError:  # A file system without hard links.
        os.replace(draft, path)
        return
    draft.unlink()
