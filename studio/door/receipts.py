"""Receipts: proof that this studio gave this client this reply, and the names under which clients are remembered.

A receipt carries the turn, where it stands, its version and its fingerprint, signed (HMAC-SHA-256) together with the
client's id; so a forged one, one of another studio and one given to another client all fail alike. The same secret,
which never leaves the data folder, turns what clients say about their own users into salted hashes: no name that a
client sends is ever stored. This module knows no HTTP and no ledger.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from dataclasses import astuple, dataclass
from pathlib import Path

from studio.visitors import open_secret

SECRET_FILE = "door.secret"
_SECRET = re.compile(r"[0-9a-f]{64}")
_MARK = "tpr1"
"""First part of every receipt: what it is, and the version of its form."""


class ReceiptRefused(ValueError):
    """Not a receipt that this studio gave to this client."""


@dataclass(frozen=True)
class Receipt:
    """One reply: its turn, the message that it answers (a node), and the adapter that wrote it."""

    turn_id: str
    asked_node: str
    version: str
    fingerprint: str


class Receipts:
    """Signs and reads receipts. `secret` is 64 hexadecimal digits."""

    def __init__(self, secret: str) -> None:
        if not _SECRET.fullmatch(secret):
            raise ValueError(f"The secret has {len(secret)} characters; expected 64 hexadecimal digits.")
        self._secret = bytes.fromhex(secret)

    def sign(self, receipt: Receipt, *, client: str) -> str:
        """The receipt as `client` gets it: letters, digits, dots, dashes and underscores, below 400 of them."""
        said = json.dumps(astuple(receipt), separators=(",", ":")).encode()
        payload = _encoded(said)
        return f"{_MARK}.{payload}.{_encoded(self._hash('receipt', client, payload))}"

    def read(self, text: str, *, client: str) -> Receipt:
        """The receipt in `text`. Raises `ReceiptRefused` unless it was signed here, for `client`."""
        parts = text.split(".")
        if len(parts) == 3 and parts[0] == _MARK and text.isascii():
            signature = _encoded(self._hash("receipt", client, parts[1]))
            if hmac.compare_digest(signature, parts[2]):
                return Receipt(*json.loads(_decoded(parts[1])))
        raise ReceiptRefused(
            "This receipt was not given to you by this studio. Send one back as it came with a reply, "
            "with the key that you had then."
        )

    def owner(self, client: str, user: str) -> str:
        """The name under which the conversations of a client's `user` are kept (empty: the client's own)."""
        return self._hash("owner", client, user).hex()[:32]

    def rater(self, client: str, rater: str) -> str:
        """The name under which the judgements of a client's `rater` are kept (empty: the client's own)."""
        return self._hash("rater", client, rater).hex()[:32]

    def _hash(self, *parts: str) -> bytes:
        # JSON keeps ("a", "bc") and ("ab", "c") apart.
        return hmac.digest(self._secret, json.dumps(parts).encode(), hashlib.sha256)


def open_receipts(data_dir: Path) -> Receipts:
    """The receipts of this data folder. Raises `ValueError` with a sentence when its secret is damaged."""
    path = data_dir / SECRET_FILE
    try:
        return Receipts(open_secret(path))
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged: {error} Restore it from a backup; if you delete it, no receipt given before is good."
        ) from error


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
