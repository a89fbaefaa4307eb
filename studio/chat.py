"""The chat: a message goes in, a reply or a blind pair of replies comes back while it is being written.

Every call names the owner and the conversation; nothing about a visitor is kept here but the exchanges
under way. The adapter is an argument of each reply, so replies under way keep the version they began with
whatever is served next. What ends is written down by `studio.recording` even when nobody is watching any
more. This module knows no page, no model and no training; it never turns a retry, a stop or an error into a
judgement.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from memory.conversations import Conversations
from memory.database import StorageError
from memory.ledger import Ledger
from memory.past import Followed
from memory.schema import LABELS, Label, Message
from memory.stored_past import StoredPast
from studio.exchange import Exchange, Reveal, Vote
from studio.exchanges import MOVED_ON, Exchanges
from studio.intake import ChatRefused, clean_message, title_of
from studio.owned import NOT_HERE, OwnedConversations
from studio.policy.interface import Policy
from studio.recording import Recorder
from studio.reminding import Reminder
from studio.replying import Replies
from studio.serving import Serving
from studio.settings import StudioSettings
from studio.settling import Settling

__all__ = ["ChatRefused", "ChatService", "Exchange", "Reveal"]

UNDER_WAY = (
    "A reply is still being written in this conversation, perhaps in another tab. "
    "Wait for it to end, or stop it."
)
VOTE_FIRST = (
    "Two replies wait for your choice. Choose one, call it a tie, or skip; then send your message again."
)
NOTHING_TO_COMPARE = (
    "There are no two replies to choose between here. Reload the page to see the conversation as it is."
)


class ChatService:
    """Sends messages, keeps track of replies under way, takes votes. Thread-safe.

    `rng` tosses the coins (letters, places, whether to compare with the version before, seeds); `clock`
    gives Unix seconds. All methods raise `ChatRefused` for what cannot be done; then nothing was changed.
    `owned` is the same person's shelf of conversations: begin, list, show another branch, rename, hide.
    """

    def __init__(
        self,
        settings: StudioSettings,
        *,
        policy: Policy,
        serving: Serving,
        conversations: Conversations,
        ledger: Ledger,
        reminder: Reminder,
        new_id: Callable[[], str],
        rng: random.Random,
        clock: Callable[[], float] = time.time,
        retry_seconds: float = 2.0,
    ) -> None:
        self._settings = settings
        self._conversations = conversations
        self._ledger = ledger
        self._reminder = reminder
        self._clock = clock
        self._new_id = new_id
        self.owned = OwnedConversations(conversations, system_prompt=settings.system_prompt)
        self._replies = Replies(settings, policy=policy, serving=serving, new_id=new_id, rng=rng)
        self._exchanges = Exchanges(ledger, conversations, self.owned, clock=clock)
        self._recorder = Recorder(Settling(ledger, conversations, clock=clock), retry_seconds=retry_seconds)
        self._lock = threading.Lock()
        self._busy: set[str] = set()

    def send(self, owner: str, conversation_id: str, text: str) -> Exchange:
        """Say `text` at the end of what is shown, and return the exchange that answers it, at once."""
        self.owned.get(owner, conversation_id)
        cleaned = clean_message(text, limit=self._settings.max_message_chars)
        with self._turn_in(conversation_id):
            self._refuse_undecided(owner, conversation_id)
            past = self._conversations.past(conversation_id)
            return self._answer(owner, conversation_id, past, said=cleaned)

    def retry(self, owner: str, conversation_id: str, node_id: str) -> Exchange:
        """Another reply beside the assistant's message `node_id`, or the missing one to a user's message."""
        node = self.owned.node(owner, node_id)
        if node.conversation_id != conversation_id:
            raise ChatRefused(NOT_HERE)
        with self._turn_in(conversation_id):
            self._refuse_undecided(owner, conversation_id)
            leaf = node.parent if node.message.role == "assistant" else node.id
            if leaf is None:
                raise ChatRefused("There is no message here to reply to again. Send one first.")
            past = self._conversations.past(conversation_id, leaf=leaf)
            exchange = self._answer(owner, conversation_id, past, said=None)
            self._recorder.note(exchange, "retry", node.turn_id or node.id, actor=owner)
            return exchange

    def edit_user(self, owner: str, node_id: str, text: str) -> Exchange:
        """Say something else in place of the user's message `node_id`: a branch beside it, with its own
        reply.
        """
        node = self.owned.node(owner, node_id)
        if node.message.role != "user":
            raise ChatRefused("Only your own messages can be edited this way; edit a reply to correct it.")
        cleaned = clean_message(text, limit=self._settings.max_message_chars)
        with self._turn_in(node.conversation_id):
            self._refuse_undecided(owner, node.conversation_id)
            past = self._conversations.past_above(node)
            return self._answer(owner, node.conversation_id, past, said=cleaned)

    def stop(self, exchange_id: str, *, owner: str) -> None:
        """End the replies being written; what is there already is kept. Says nothing about their quality."""
        exchange = self._exchanges.find(exchange_id, owner)
        running = [side for side in exchange.sides if not side.stream.done]
        for side in running:
            side.stream.cancel()
        if running:
            self._recorder.note(exchange, "stop", running[0].turn_id, actor=owner)

    def vote(self, exchange_id: str, label: Label, rater: str, *, owner: str, guidelines: str = "") -> Reveal:
        """Judge a pair, before or after its replies have ended, and go on with the chosen one.

        After "tie" and "both_bad" the conversation goes on with the side shown first. Until the next
        message the vote may be changed: the last one counts.
        """
        if label not in LABELS:
            raise ChatRefused(f"The choice is {label!r}; expected one of {', '.join(LABELS)}.")
        exchange = self._exchanges.find(exchange_id, owner)
        with self._turn_in(exchange.conversation_id, joining=exchange):
            self._refuse_closed(exchange)
            earlier = self._earlier_label(exchange, rater)
            if earlier == label and not exchange.asks:
                return _reveal(exchange, label, "Your choice was recorded already; nothing changed.")
            now = self._clock()
            early = not all(side.stream.done for side in exchange.sides)
            cast = Vote(label, rater, now - exchange.started_at, now, early, guidelines)
            written = self._recorder.cast(exchange, cast)
            said = "Recorded." if earlier in (None, label) else "Recorded; it replaces your earlier choice."
            if label == "both_bad":
                said += " The conversation goes on with the first reply; retry for another one."
            return _reveal(exchange, label, said if written else f"{said} {exchange.unsaved}")

    def skip(self, exchange_id: str, *, owner: str) -> Exchange:
        """Go on with the side shown first, without any judgement. A pair that was judged already stays as
        it is.
        """
        exchange = self._exchanges.find(exchange_id, owner)
        with self._turn_in(exchange.conversation_id):
            self._refuse_closed(exchange)
            if exchange.asks:
                self._recorder.skip(exchange, actor=owner)
        return exchange

    def pending(self, conversation_id: str, *, owner: str) -> Exchange | None:
        """What a page that opens this conversation must show below the path; None: nothing.

        That is a reply being written or not saved yet, or a pair that waits for its vote, also one from
        before the studio was restarted.
        """
        self.owned.get(owner, conversation_id)
        live = self._exchanges.latest(conversation_id)
        if live is not None and (live.under_way or live.writes):
            return live
        return self._exchanges.undecided(owner, conversation_id)

    def exchange(self, exchange_id: str, *, owner: str) -> Exchange:
        """The exchange with this id."""
        return self._exchanges.find(exchange_id, owner)

    def close(self, *, timeout: float = 5.0) -> None:
        """Stop what is being written, keep what is there, write it down. `timeout` seconds in all for the
        streams.
        """
        deadline = time.monotonic() + timeout
        running = [
            side for exchange in self._exchanges.all() for side in exchange.sides if not side.stream.done
        ]
        for side in running:
            side.stream.cancel()
        for side in running:
            side.stream.wait(max(0.0, deadline - time.monotonic()))
        self._recorder.close()

    @contextmanager
    def _turn_in(self, conversation_id: str, *, joining: Exchange | None = None) -> Iterator[None]:
        """Be the only one who starts or judges in this conversation; refuse while a reply is under way there.

        `joining` is the exchange that may be under way: the one that the caller came to judge.
        """
        with self._lock:
            live = self._exchanges.latest(conversation_id)
            running = live is not None and live is not joining and live.under_way
            if conversation_id in self._busy or running:
                raise ChatRefused(UNDER_WAY)
            self._busy.add(conversation_id)
        try:
            if live is not None and live is not joining and not self._recorder.flush(live):
                raise ChatRefused(live.unsaved)
            yield
        finally:
            with self._lock:
                self._busy.discard(conversation_id)

    def _answer(self, owner: str, conversation_id: str, past: StoredPast, *, said: str | None) -> Exchange:
        """Start the replies to `past` (and to `said` after it), then write the message, then let pages
        watch.

        The streams start first: when the line is full or the message does not fit, nothing has been
        written. A retry (`said` is None) is a single reply: who asks again wants an answer, not a question.
        """
        whole = past if said is None else Followed(past, Message("user", said))
        prompt = self._reminder.prepare(self._conversations.get(conversation_id), whole).messages
        compare = said is not None and self._replies.should_compare(past.length)
        sides = self._replies.start(prompt, owner=owner, compare=compare)
        try:
            user_node = self._write_message(conversation_id, past, said)
        except StorageError as error:
            for side in sides:
                side.stream.cancel()
            raise ChatRefused(f"Your message was not sent, because it cannot be saved: {error}") from error
        exchange = Exchange(
            id=self._new_id(),
            owner=owner,
            conversation_id=conversation_id,
            user_node=user_node,
            prompt=prompt,
            sides=sides,
            started_at=self._clock(),
        )
        self._exchanges.remember(exchange)
        for side in sides:
            side.stream.add_done_callback(lambda _stream: self._recorder.submit(exchange))
        self._reminder.keep_up(conversation_id)
        return exchange

    def _write_message(self, conversation_id: str, past: StoredPast, said: str | None) -> str:
        """The person's message that is answered, written down if it is new; returns its node."""
        if said is None:
            assert past.leaf is not None, "a retry answers a message that stands"
            return past.leaf
        if not self._conversations.get(conversation_id).title:
            self._conversations.rename(conversation_id, title_of(said))
        return self._conversations.append(conversation_id, Message("user", said), parent=past.leaf).id

    def _refuse_undecided(self, owner: str, conversation_id: str) -> None:
        if self._exchanges.undecided(owner, conversation_id) is not None:
            raise ChatRefused(VOTE_FIRST)

    def _refuse_closed(self, exchange: Exchange) -> None:
        """Refuse a judgement of something that is no pair, or that the conversation has left behind."""
        with exchange.lock:
            if exchange.kind == "single" or (exchange.settled and exchange.comparison is None):
                raise ChatRefused(exchange.notice or NOTHING_TO_COMPARE)
        if self._exchanges.is_left_behind(exchange):
            raise ChatRefused(MOVED_ON)

    def _earlier_label(self, exchange: Exchange, rater: str) -> Label | None:
        with exchange.lock:
            if exchange.vote is not None and exchange.vote.rater == rater:
                return exchange.vote.label
            if not exchange.settled:
                return None
        labeled = self._ledger.label_of(exchange.id, rater)
        return labeled.label if labeled is not None else None


def _reveal(exchange: Exchange, label: Label, message: str) -> Reveal:
    side_A, side_B = exchange.side("A"), exchange.side("B")
    chosen = exchange.side(label) if label in ("A", "B") else exchange.first
    return Reveal(
        label=label,
        version_A=side_A.served.version,
        fingerprint_A=side_A.served.fingerprint,
        version_B=side_B.served.version,
        fingerprint_B=side_B.served.fingerprint,
        chosen_side=chosen.letter,
        chosen_node=exchange.nodes.get(chosen.letter),
        message=message,
    )
