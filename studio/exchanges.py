"""All exchanges that pages may still ask about: those under way, those that ended lately, and pairs from
the ledger.

A pair's exchange, its comparison and its question are one id, so a pair that waits for a vote can be read
back after the studio was restarted. What waits is told by the conversation's head alone: while it stands at
the person's message, the pair below is undecided; a vote or a skip moves it to one of the replies. This
module starts and writes nothing.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from memory.conversations import Conversations
from memory.ledger import Ledger
from memory.schema import Node, Side
from studio.exchange import Exchange, RecordedStream, SideView
from studio.intake import ChatRefused
from studio.owned import NOT_HERE, OwnedConversations

MOVED_ON = (
    "The conversation has gone on since these replies, so the choice between them can no longer be changed."
)


class Exchanges:
    """The exchanges by id, and the latest of each conversation. Thread-safe.

    Of the ended ones the last `keep` are remembered; older pairs are read back from the ledger when asked
    for.
    """

    def __init__(
        self,
        ledger: Ledger,
        conversations: Conversations,
        owned: OwnedConversations,
        *,
        clock: Callable[[], float],
        keep: int = 512,
    ) -> None:
        self._ledger = ledger
        self._conversations = conversations
        self._owned = owned
        self._clock = clock
        self._keep = keep
        self._lock = threading.Lock()
        self._latest: dict[str, Exchange] = {}
        self._by_id: OrderedDict[str, Exchange] = OrderedDict()

    def remember(self, exchange: Exchange) -> None:
        """Let pages find `exchange`, and make it the latest of its conversation."""
        with self._lock:
            self._by_id[exchange.id] = exchange
            self._latest[exchange.conversation_id] = exchange
            if len(self._by_id) > self._keep:
                self._forget_ended()

    def latest(self, conversation_id: str) -> Exchange | None:
        """The exchange begun last in this conversation, if it is remembered."""
        with self._lock:
            return self._latest.get(conversation_id)

    def all(self) -> list[Exchange]:
        """Every exchange that is remembered."""
        with self._lock:
            return list(self._by_id.values())

    def find(self, exchange_id: str, owner: str) -> Exchange:
        """The exchange, when it is the owner's. Raises `ChatRefused`."""
        with self._lock:
            exchange = self._by_id.get(exchange_id)
        if exchange is None:
            return self._read_back(exchange_id, owner)
        if exchange.owner != owner:
            raise ChatRefused(NOT_HERE)
        return exchange

    def undecided(self, owner: str, conversation_id: str) -> Exchange | None:
        """The pair below the message at the head, which waits for a vote or a skip."""
        head = self._conversations.get(conversation_id).head
        if head is None:
            return None
        live = self.latest(conversation_id)
        if live is not None and live.user_node == head and live.asks:
            return live
        for node in reversed(self._conversations.children(conversation_id, head)):
            comparison = self._ledger.comparison_of_turn(node.turn_id) if node.turn_id else None
            if comparison is not None:
                return self.find(comparison.id, owner)
        return None

    def is_left_behind(self, exchange: Exchange) -> bool:
        """Does the conversation show something else than this message and its replies?"""
        head = self._conversations.get(exchange.conversation_id).head
        with exchange.lock:
            return head not in {exchange.user_node, *exchange.nodes.values()}

    def _forget_ended(self) -> None:
        surplus = len(self._by_id) - self._keep
        for old in [old for old in self._by_id.values() if old.done and not old.writes][:surplus]:
            del self._by_id[old.id]
            if self._latest.get(old.conversation_id) is old:
                del self._latest[old.conversation_id]

    def _read_back(self, comparison_id: str, owner: str) -> Exchange:
        """A pair from the ledger as an ended exchange. Its clock starts now: that is when it is shown
        again.
        """
        try:
            comparison = self._ledger.comparison(comparison_id)
        except KeyError as error:
            raise ChatRefused(NOT_HERE) from error
        conversation = self._owned.get(owner, comparison.conversation_id)
        nodes = self._replies_at(conversation.id, conversation.head)
        if comparison.turn_A not in nodes or comparison.turn_B not in nodes:
            raise ChatRefused(MOVED_ON)
        user_node = nodes[comparison.turn_A].parent
        assert user_node is not None, "a reply always stands below a message"
        turns: dict[Side, str] = {"A": comparison.turn_A, "B": comparison.turn_B}
        order: tuple[Side, Side] = ("A", "B") if comparison.shown_first == "A" else ("B", "A")
        exchange = Exchange(
            id=comparison.id,
            owner=owner,
            conversation_id=conversation.id,
            user_node=user_node,
            prompt=comparison.prompt,
            sides=tuple(self._recorded_side(letter, turns[letter]) for letter in order),
            started_at=self._clock(),
        )
        exchange.comparison = comparison
        exchange.settled = True
        exchange.ended = {"A", "B"}
        exchange.placed = {"A", "B"}
        exchange.nodes = {letter: nodes[turn_id].id for letter, turn_id in turns.items()}
        exchange.head_side = next(
            (side for side, node in exchange.nodes.items() if node == conversation.head), None
        )
        self.remember(exchange)
        return exchange

    def _recorded_side(self, letter: Side, turn_id: str) -> SideView:
        turn = self._ledger.turn(turn_id)
        stream = RecordedStream(turn)
        return SideView(letter, turn_id, stream, stream.served, turn.sampling)

    def _replies_at(self, conversation_id: str, head: str | None) -> dict[str, Node]:
        """The replies to the message at the head, and those beside the reply at the head, by turn."""
        if head is None:
            return {}
        near = [*self._conversations.children(conversation_id, head), *self._conversations.siblings(head)]
        return {node.turn_id: node for node in near if node.turn_id is not None}
