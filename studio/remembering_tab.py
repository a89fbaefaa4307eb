"""What a person may do about memory, as plain functions: see the context, choose how the model is reminded, search,
pin, branch, share, export and import conversations, and keep facts.

Each handler takes the studio, the owner and what the browser sent, and returns what to show; the chat's `call` is the
door to them. What is refused is refused in a sentence. Nothing is kept here.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from memory.facts import Facts, UnknownFact
from memory.search import Search
from memory.strategies.choosing import checked
from memory.transplanting import branch_off, plant, tree_of
from studio import chat_view
from studio.chat_view import View
from studio.context_bar import context
from studio.exporting import as_json, as_markdown
from studio.importing import Unreadable, conversations_in
from studio.intake import ChatRefused, clean_message

if TYPE_CHECKING:
    from studio.build import Studio

Sent = Mapping[str, Any]
LONGEST_QUERY = 200
SHOWN_AROUND = 90


def look(studio: Studio, owner: str, sent: Sent) -> View:
    """The context as it is now."""
    return {"context": context(studio, owner, _conversation(sent))}


def earlier(studio: Studio, owner: str, sent: Sent) -> View:
    """The messages before the first one that the page has."""
    node = studio.chat.owned.node(owner, str(sent.get("node")))
    place = node.conversation_id
    if node.parent is None:
        return {"entries": []}
    path = studio.conversations.path(place, leaf=node.parent, last=chat_view.SHOWN_AT_ONCE)
    return {"entries": chat_view.entries(studio, owner, path, conversation_id=place)}


def remember_by(studio: Studio, owner: str, sent: Sent) -> View:
    """Choose how the model is reminded of this conversation; an empty name: as the studio is set."""
    conversation = studio.chat.owned.get(owner, str(sent.get("conversation")))
    try:
        name = checked(str(sent["memory"])) if sent.get("memory") else ""
    except ValueError as error:
        raise ChatRefused(str(error)) from error
    studio.conversations.remember_by(conversation.id, name, elsewhere=bool(sent.get("elsewhere")))
    studio.reminder.keep_up(conversation.id)
    return {"context": context(studio, owner, conversation.id), "say": "Kept. The next reply follows it."}


def search(studio: Studio, owner: str, sent: Sent) -> View:
    """Where in one's conversations these words were said."""
    query = str(sent.get("query", ""))[:LONGEST_QUERY]
    found = Search(studio.database).find(owner, query)
    return {
        "found": [
            {
                "conversation": one.conversation_id,
                "title": one.title or "New conversation",
                "node": one.node_id,
                "role": one.message.role,
                "text": _around(one.message.content, query),
            }
            for one in found
        ]
    }


def pin(studio: Studio, owner: str, sent: Sent) -> View:
    """Keep a conversation at the top of the list, or let it go."""
    conversation = studio.chat.owned.get(owner, str(sent.get("conversation")))
    studio.conversations.pin(conversation.id, bool(sent.get("pinned")))
    return {"conversations": chat_view.conversations(studio, owner)}


def branch(studio: Studio, owner: str, sent: Sent) -> View:
    """The conversation up to this message as one of its own. Replies keep their turns, and so their ratings."""
    node = studio.chat.owned.node(owner, str(sent.get("node")))
    source = studio.chat.owned.get(owner, node.conversation_id)
    made = branch_off(studio.database, source.id, node.id, title=f"{source.title} (branch)"[:120])
    return {
        "room": chat_view.room(studio, owner, made.id),
        "say": "This branch is a conversation of its own now.",
    }


def share(studio: Studio, owner: str, sent: Sent) -> View:
    """Make a read-only link to the conversation, or take it back."""
    conversation = studio.chat.owned.get(owner, str(sent.get("conversation")))
    if sent.get("shared"):
        if not studio.settings.share_links:
            raise ChatRefused("This studio makes no links to conversations (--share-links turns them on).")
        studio.conversations.share(conversation.id, conversation.shared or secrets.token_urlsafe(24))
        return {"context": context(studio, owner, conversation.id), "say": "Who has the link can read it."}
    studio.conversations.share(conversation.id, None)
    return {"context": context(studio, owner, conversation.id), "say": "The link shows nothing any more."}


def read_shared(studio: Studio, owner: str, sent: Sent) -> View:
    """What a read-only link shows: the path, without owner, ids or judgements."""
    try:
        conversation = studio.conversations.shared_by(str(sent.get("word", "")))
    except KeyError as error:
        raise ChatRefused(str(error)) from error
    if not studio.settings.share_links:
        raise ChatRefused("This studio makes no links to conversations.")
    said = [
        {"role": node.message.role, "text": node.message.content}
        for node in studio.conversations.path(conversation.id)
    ]
    return {"shared": {"title": conversation.title or "A conversation", "said": said}}


def export(studio: Studio, owner: str, sent: Sent) -> View:
    """The conversation as a file: JSON with all its branches, or Markdown with the path that is shown."""
    conversation = studio.chat.owned.get(owner, str(sent.get("conversation")))
    if sent.get("format") == "json":
        text = as_json(conversation, tree_of(studio.database, conversation.id))
        return {"file": {"name": f"conversation-{conversation.id[:8]}.json", "text": text}}
    text = as_markdown(conversation, studio.conversations.path(conversation.id))
    return {"file": {"name": f"conversation-{conversation.id[:8]}.md", "text": text}}


def import_file(studio: Studio, owner: str, sent: Sent) -> View:
    """Conversations out of a file of ours, of ChatGPT's or of Open WebUI's."""
    try:
        found = conversations_in(str(sent.get("text", "")))
    except Unreadable as error:
        raise ChatRefused(str(error)) from error
    for one in found:
        plant(
            studio.database, owner, one.said, title=one.title, system_prompt=one.system_prompt, head=one.head
        )
    say = (
        f"{len(found)} conversations are in your list."
        if len(found) != 1
        else "The conversation is in your list."
    )
    return {"conversations": chat_view.conversations(studio, owner), "say": say}


def facts(studio: Studio, owner: str, sent: Sent) -> View:
    """What one asked to be remembered."""
    _require_facts(studio)
    return {"facts": [{"id": fact.id, "text": fact.text} for fact in Facts(studio.database).list(owner)]}


def keep_fact(studio: Studio, owner: str, sent: Sent) -> View:
    """Remember a sentence, or change one that is remembered."""
    _require_facts(studio)
    kept = Facts(studio.database)
    text = clean_message(str(sent.get("text", "")), limit=studio.settings.max_message_chars)
    try:
        if sent.get("fact"):
            kept.change(owner, str(sent["fact"]), text)
        else:
            kept.add(owner, text)
    except (ValueError, UnknownFact) as error:
        raise ChatRefused(str(error)) from error
    return facts(studio, owner, sent)


def delete_fact(studio: Studio, owner: str, sent: Sent) -> View:
    """Forget a sentence."""
    try:
        Facts(studio.database).delete(owner, str(sent.get("fact")))
    except UnknownFact as error:
        raise ChatRefused(str(error)) from error
    return facts(studio, owner, sent) | {"say": "Forgotten. Replies from now on do not know it."}


ACTIONS: dict[str, Callable[[Studio, str, Sent], View]] = {
    "context": look,
    "earlier": earlier,
    "remember_by": remember_by,
    "search": search,
    "pin": pin,
    "branch": branch,
    "share": share,
    "shared": read_shared,
    "export": export,
    "import": import_file,
    "facts": facts,
    "keep_fact": keep_fact,
    "delete_fact": delete_fact,
}
"""What the browser may ask about memory, by name."""


def _conversation(sent: Sent) -> str | None:
    return str(sent["conversation"]) if sent.get("conversation") else None


def _require_facts(studio: Studio) -> None:
    if not studio.settings.remember_facts:
        raise ChatRefused("This studio remembers nothing about people (--remember-facts turns it on).")


def _around(text: str, query: str) -> str:
    """The part of `text` around the first word looked for."""
    words = [word.casefold() for word in query.split()]
    places = [place for place in (text.casefold().find(word) for word in words) if place >= 0]
    begin = max(0, min(places, default=0) - SHOWN_AROUND // 3)
    shown = " ".join(text[begin : begin + SHOWN_AROUND].split())
    return f"{'…' if begin else ''}{shown}{'…' if begin + SHOWN_AROUND < len(text) else ''}"
