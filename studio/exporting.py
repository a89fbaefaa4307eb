"""A conversation as a file that a person takes along: JSON with every branch, or Markdown with the path that is shown.

The JSON is what `studio.importing` reads back. Pure functions of what they are given.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from memory.schema import Conversation, Node

FORMAT = "thumbprint-conversation/1"
SPEAKERS = {"user": "You", "assistant": "Reply"}


def as_json(conversation: Conversation, nodes: Sequence[Node]) -> str:
    """Every message with its parent, and which one is shown last; the ids are those of the studio it came from."""
    return json.dumps(
        {
            "format": FORMAT,
            "title": conversation.title,
            "system_prompt": conversation.system_prompt,
            "created_at": conversation.created_at,
            "head": conversation.head,
            "messages": [
                {
                    "id": node.id,
                    "parent": node.parent,
                    "role": node.message.role,
                    "content": node.message.content,
                    "created_at": node.created_at,
                }
                for node in nodes
            ],
        },
        ensure_ascii=False,
        indent=1,
    )


def as_markdown(conversation: Conversation, path: Sequence[Node]) -> str:
    """The path that is shown, to be read."""
    begun = datetime.fromtimestamp(conversation.created_at, UTC).strftime("%Y-%m-%d")
    parts = [f"# {conversation.title or 'Conversation'}", f"*{begun}*"]
    if conversation.system_prompt:
        parts.append("\n".join(f"> {line}" for line in conversation.system_prompt.splitlines()))
    parts += [f"**{SPEAKERS[node.message.role]}**\n\n{node.message.content}" for node in path]
    return "\n\n".join(parts) + "\n"
