"""What the end of a reply means: which turns, messages, questions and events are to be written, and in
which order.

Every decision about an exchange is made here, under its lock, and becomes writes in its line; making them
is `studio.recording`'s part. What happened to a reply (stopped, broken off) is an `Occurrence`, never a
judgement: the only judgement written is the vote that a person cast. This module knows no thread, no page
and no policy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from memory.conversations import Conversations
from memory.ledger import Ledger
from memory.schema import Comparison, LabeledComparison, Message, Occurrence, Turn
from studio.exchange import Exchange, SideView, Vote


class Settling:
    """Lines up an exchange's writes. `clock` gives Unix seconds."""

    def __init__(self, ledger: Ledger, conversations: Conversations, *, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._conversations = conversations
        self._clock = clock

    def cast(self, exchange: Exchange, vote: Vote) -> None:
        """Make `vote` the exchange's vote, and let the conversation go on with the side it chose."""
        with exchange.changed:
            exchange.vote = vote
            if exchange.settled and exchange.comparison is not None:
                exchange.writes.append(partial(self._write_label, exchange.comparison, vote))
            self._follow(exchange)
            exchange.changed.notify_all()

    def skip(self, exchange: Exchange, *, actor: str) -> None:
        """Go on with the side shown first, without a judgement."""
        with exchange.lock:
            exchange.head_side = exchange.first.letter
            exchange.writes.append(self._noting("skip", exchange.id, actor))
            exchange.writes.append(partial(self._move_head, exchange, exchange.first))

    def note(self, exchange: Exchange, kind: str, target: str, *, actor: str) -> None:
        """Something happened in `exchange`."""
        with exchange.lock:
            exchange.writes.append(self._noting(kind, target, actor, exchange=exchange.id))

    def settle(self, exchange: Exchange) -> None:
        """Decide what the ended sides mean and line up the writes; called again when another side ends."""
        with exchange.changed:
            for side in exchange.sides:
                if side.stream.done and side.letter not in exchange.ended:
                    exchange.ended.add(side.letter)
                    self._line_up_turn(exchange, side)
            if exchange.settled:
                return
            self._follow(exchange)
            if len(exchange.ended) == len(exchange.sides):
                exchange.settled = True
                if exchange.kind == "pair" and self._comparable(exchange):
                    self._line_up_comparison(exchange)
                else:
                    self._line_up_survivor(exchange)
            exchange.changed.notify_all()

    def _follow(self, exchange: Exchange) -> None:
        """Let the conversation go on with the side that the vote chose, as soon as that side has ended."""
        chosen = exchange.chosen
        if chosen is None or chosen.letter not in exchange.ended or not chosen.presentable:
            return
        if exchange.head_side != chosen.letter:
            exchange.head_side = chosen.letter
            if chosen.letter in exchange.placed:
                exchange.writes.append(partial(self._move_head, exchange, chosen))
            else:
                self._line_up_node(exchange, chosen, shown=True)

    def _comparable(self, exchange: Exchange) -> bool:
        """Is there a question? A vote already cast is kept with stopped replies too; training leaves those
        pairs out.
        """
        if exchange.vote is not None:
            return all(side.presentable for side in exchange.sides)
        return (
            all(side.whole for side in exchange.sides)
            and len({side.stream.text for side in exchange.sides}) == 2
        )

    def _line_up_turn(self, exchange: Exchange, side: SideView) -> None:
        stream = side.stream
        turn = Turn(
            id=side.turn_id,
            conversation_id=exchange.conversation_id,
            prompt=exchange.prompt,
            completion=stream.text,
            policy_version=side.served.version,
            fingerprint=side.served.fingerprint,
            sampling=side.sampling,
            prompt_tokens=stream.prompt_tokens,
            completion_tokens=stream.completion_tokens,
            finish=stream.finish or "error",
            created_at=self._clock(),
        )
        exchange.writes.append(partial(self._ledger.record_turn, turn))
        if turn.finish == "error":
            reason = stream.error or "The reply ended without a reason."
            exchange.error = True
            exchange.notice = f"The reply broke off: {reason} Your message is kept; retry it."
            exchange.writes.append(
                self._noting("error", side.turn_id, exchange.owner, error=reason, version=side.served.version)
            )

    def _line_up_comparison(self, exchange: Exchange) -> None:
        """Two replies: the question is written even when nobody has answered it yet.

        It comes after both nodes, so that a comparison found in the ledger can always be shown again.
        """
        side_A, side_B = exchange.side("A"), exchange.side("B")
        exchange.comparison = Comparison(
            id=exchange.id,
            conversation_id=exchange.conversation_id,
            prompt=exchange.prompt,
            turn_A=side_A.turn_id,
            turn_B=side_B.turn_id,
            completion_A=side_A.stream.text,
            completion_B=side_B.stream.text,
            version_A=side_A.served.version,
            version_B=side_B.served.version,
            shown_first=exchange.first.letter,
            created_at=self._clock(),
        )
        for side in exchange.sides:
            self._line_up_node(exchange, side, shown=False)
        exchange.writes.append(partial(self._ledger.record_comparison, exchange.comparison))
        if exchange.vote is not None:
            exchange.writes.append(partial(self._write_label, exchange.comparison, exchange.vote))

    def _line_up_survivor(self, exchange: Exchange) -> None:
        """There is nothing to compare: go on with one reply, and keep the others beside it."""
        usable = [side for side in exchange.sides if side.presentable]
        usable.sort(key=lambda side: not side.whole)
        if exchange.kind == "pair":
            self._explain_no_comparison(exchange, usable)
        if len(usable) == 2 and usable[0].stream.text == usable[1].stream.text:
            usable.pop()
        for side in usable:
            shown = exchange.head_side is None
            if shown:
                exchange.head_side = side.letter
            self._line_up_node(exchange, side, shown=shown)

    def _explain_no_comparison(self, exchange: Exchange, usable: list[SideView]) -> None:
        stopped = any(side.stream.finish == "cancelled" for side in exchange.sides)
        if exchange.error:
            reason = "one of the two replies broke off"
            if usable:
                exchange.notice = (
                    "One of the two replies broke off, so there is nothing to compare; here is the other."
                )
        elif stopped:
            reason = "the replies were stopped"
        else:
            reason = "both replies came out the same"
            exchange.notice = "Both replies came out the same, so there is nothing to compare."
        if exchange.vote is not None:
            exchange.notice = f"Your vote was not recorded, because {reason}. {exchange.notice}".strip()
            exchange.writes.append(
                self._noting(
                    "vote_dropped", exchange.id, exchange.vote.rater, label=exchange.vote.label, reason=reason
                )
            )

    def _line_up_node(self, exchange: Exchange, side: SideView, *, shown: bool) -> None:
        if side.letter not in exchange.placed:
            exchange.placed.add(side.letter)
            exchange.writes.append(partial(self._write_node, exchange, side, shown=shown))

    def _write_node(self, exchange: Exchange, side: SideView, *, shown: bool) -> None:
        node = self._conversations.append(
            exchange.conversation_id,
            Message("assistant", side.stream.text),
            parent=exchange.user_node,
            turn_id=side.turn_id,
            move_head=shown,
        )
        with exchange.lock:
            exchange.nodes[side.letter] = node.id

    def _move_head(self, exchange: Exchange, side: SideView) -> None:
        self._conversations.set_head(exchange.conversation_id, exchange.nodes[side.letter])

    def _write_label(self, comparison: Comparison, vote: Vote) -> None:
        self._ledger.record(
            LabeledComparison(
                comparison=comparison,
                label=vote.label,
                rater=vote.rater,
                seconds=vote.seconds,
                created_at=vote.created_at,
                early=vote.early,
            ),
            guidelines=vote.guidelines,
        )

    def _noting(self, kind: str, target: str, actor: str, **detail: str) -> Callable[[], None]:
        return partial(self._ledger.note, Occurrence(kind, target, actor, self._clock(), dict(detail)))
