"""Runs the migrations on the connection that `memory.database` (or a developer's command) hands over.

All revisions of one upgrade are one transaction, on SQLite too: a database is either at the old schema or at
the new.
"""

from __future__ import annotations

from alembic import context

from memory.database import VERSION_TABLE
from memory.tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise RuntimeError(
        "Migrations run when the studio opens its database; there is no separate command for them."
    )
context.configure(
    connection=connection, target_metadata=metadata, version_table=VERSION_TABLE, transactional_ddl=True
)
with context.begin_transaction():
    context.run_migrations()
