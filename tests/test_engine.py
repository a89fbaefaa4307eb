"""The engine: rows come and go, and each gets what it would have got alone, whatever its neighbours do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
import torch

from studio.policy.adapters import Adapters
from studio.policy.admission import Limits
from studio.policy.batch import Row
from studio.policy.cache import KeyValues
from studio.policy.engine import Engine
from studio.policy.interface import Busy, PolicyClosed
from studio.policy.sampling import INVALID, Drawing, choose
from studio.policy.text import ReplyText
from tests.tiny import tiny_model, tiny_tokenizer

CPU = torch.device("cpu")
NEAR_TIE = 1e-4


class Collector:
    """A sink that keeps the tokens of one row and ends it after `most` of them."""

    def __init__(self, most: int, on_token: Callable[[], None] = lambda: None) -> None:
        self.tokens: list[int] = []
        self.places: list[int] = []
        self.error: str | None = None
        self.cancelled = False
        self.over = threading.Event()
        self._most = most
        self._on_token = on_token

    def take(self, token: int) -> bool:
        self.tokens.append(token)
        self._on_token()
        return len(self.tokens) >= self._most

    def move_up(self, waiting: int) -> None:
        self.places.append(waiting)

    def end(self, *, error: str | None = None) -> None:
        self.error = error
        self.over.set()

    def wait(self) -> list[int]:
        assert self.over.wait(30), "the row never ended"
        return self.tokens


def row(
    prompt: list[int],
    most: int,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    owner: str | None = None,
    **sink: Any,
) -> tuple[Row, Collector]:
    collector = Collector(most, **sink)
    drawing = Drawing.seeded(temperature, 0.9, seed=seed)
    return Row(prompt, None, drawing, most, collector, owner=owner), collector


def prompt_of(length: int, *, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 300, (length,), generator=generator).tolist()


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model(tiny_tokenizer())


@pytest.fixture
def make_engine(model: Any) -> Iterator[Callable[..., Engine]]:
    engines: list[Engine] = []

    def make(forward: Any = None, **limits: int) -> Engine:
        engine = Engine(
            forward or Adapters(model), layer_count=2, device=CPU, limits=Limits(**limits), threads=1
        )
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()


def alone(model: Any, prompt: list[int], most: int) -> tuple[list[int], list[float]]:
    """Greedy tokens without any cache, and by how much each was ahead of the second best."""
    ids, margins = list(prompt), []
    with torch.inference_mode():
        for _ in range(most):
            best = model(input_ids=torch.tensor([ids])).logits[0, -1].topk(2)
            margins.append(float(best.values[0] - best.values[1]))
            ids.append(int(best.indices[0]))
    return ids[len(prompt) :], margins


def assert_same(tokens: list[int], expected: list[int], margins: list[float]) -> None:
    for position, (token, other) in enumerate(zip(tokens, expected, strict=True)):
        if token != other:
            assert margins[position] < NEAR_TIE, f"token {position} differs and is no near-tie"
            return


@pytest.mark.parametrize("prefill_tokens", [4, 32, 1000])
def test_greedy_rows_of_a_busy_batch_equal_those_made_alone(
    model: Any, make_engine: Callable[..., Engine], prefill_tokens: int
) -> None:
    lengths = [3, 40, 7, 21, 90, 4, 15, 60, 5, 33]
    counts = [30, 5, 18, 40, 9, 25, 1, 12, 33, 20]
    prompts = [prompt_of(length, seed=seed) for seed, length in enumerate(lengths)]
    engine = make_engine(rows=4, prefill_tokens=prefill_tokens)
    rows = [row(prompt, count) for prompt, count in zip(prompts, counts, strict=True)]
    for each, _ in rows:
        engine.submit(each)
    for (_, sink), prompt, count in zip(rows, prompts, counts, strict=True):
        assert_same(sink.wait(), *alone(model, prompt, count))
        assert sink.error is None


def test_rows_that_join_a_running_batch_change_nothing_in_it(
    model: Any, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine(rows=8, prefill_tokens=8)
    late: list[tuple[Row, Collector]] = [row(prompt_of(70, seed=50), 20), row(prompt_of(2, seed=51), 20)]

    def join() -> None:
        if len(first.tokens) in (5, 12):
            engine.submit(late[len(first.tokens) // 12][0])

    opening, first = row(prompt_of(10, seed=1), 60, on_token=join)
    engine.submit(opening)
    assert_same(first.wait(), *alone(model, prompt_of(10, seed=1), 60))
    for _, sink in late:
        sink.wait()
    assert_same(late[0][1].tokens, *alone(model, prompt_of(70, seed=50), 20))
    assert_same(late[1][1].tokens, *alone(model, prompt_of(2, seed=51), 20))


def test_a_sample_depends_on_its_seed_and_not_on_its_neighbours(make_engine: Callable[..., Engine]) -> None:
    def sample(engine: Engine, neighbours: int, seed: int) -> list[int]:
        others = [row(prompt_of(9 + n, seed=n), 25, temperature=1.3, seed=n) for n in range(neighbours)]
        mine, sink = row(prompt_of(12, seed=99), 30, temperature=0.7, seed=seed)
        for each, _ in [*others[:2], (mine, sink), *others[2:]]:
            engine.submit(each)
        return list(sink.wait())

    engine = make_engine(rows=8)
    by_itself = sample(engine, 0, seed=7)
    assert sample(engine, 5, seed=7) == by_itself
    assert sample(engine, 0, seed=8) != by_itself


def test_cancelled_row_leaves_and_the_others_stay_as_they_were(
    model: Any, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine(rows=3)

    def cancel() -> None:
        if len(stopped.tokens) == 4:
            stopped.cancelled = True

    going, stopped = row(prompt_of(30, seed=2), 1000, on_token=cancel)
    others = [row(prompt_of(5 + n, seed=10 + n), 25) for n in range(2)]
    for each in (going, *(other for other, _ in others)):
        engine.submit(each)
    assert len(stopped.wait()) == 4 and stopped.error is None
    for n, (_, sink) in enumerate(others):
        assert_same(sink.wait(), *alone(model, prompt_of(5 + n, seed=10 + n), 25))


def test_cancelling_in_line_ends_the_row_before_it_ran(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(rows=1)
    running, first = row(prompt_of(5, seed=1), 60)
    queued, second = row(prompt_of(5, seed=2), 60)
    second.cancelled = True
    engine.submit(running)
    engine.submit(queued)
    engine.wake()
    assert second.wait() == []
    assert len(first.wait()) == 60


def test_line_has_places_and_an_end(make_engine: Callable[..., Engine]) -> None:
    gate = threading.Event()
    engine = make_engine(rows=1, waiting=2)
    running, first = row(prompt_of(5, seed=1), 3, on_token=lambda: gate.wait(30))
    engine.submit(running)
    while not first.tokens:
        time.sleep(0.001)
    queue = [row(prompt_of(5, seed=n), 3) for n in (2, 3)]
    for each, _ in queue:
        engine.submit(each)
    with pytest.raises(Busy, match="2 replies are waiting already"):
        engine.submit(row(prompt_of(5, seed=4), 3)[0])
    gate.set()
    for _, sink in queue:
        sink.wait()
    assert queue[0][1].places[0] == 1 and queue[0][1].places[-1] == 0
    assert [queue[1][1].places[0], queue[1][1].places[-1]] == [2, 0] and 1 in queue[1][1].places


def test_replies_start_in_the_order_of_the_line(make_engine: Callable[..., Engine]) -> None:
    order: list[int] = []
    engine = make_engine(rows=2)
    rows = [row(prompt_of(4 + n, seed=n), 6, on_token=lambda n=n: order.append(n)) for n in range(7)]
    for each, _ in rows:
        engine.submit(each)
    for _, sink in rows:
        sink.wait()
    assert list(dict.fromkeys(order)) == list(range(7))


def held(engine: Engine, *, owner: str | None = None) -> tuple[Row, Collector, threading.Event]:
    """A row that keeps the engine's thread at its first token until the event is set."""
    gate = threading.Event()
    running, sink = row(prompt_of(5, seed=1), 3, owner=owner, on_token=lambda: gate.wait(30))
    engine.submit(running)
    while not sink.tokens:
        time.sleep(0.001)
    return running, sink, gate


def test_one_persons_many_requests_do_not_push_others_aside(make_engine: Callable[..., Engine]) -> None:
    order: list[str] = []
    engine = make_engine(rows=1)
    _, _, gate = held(engine)
    names = ["greedy"] * 5 + ["ann", "ann", "ben"]
    queue = [
        row(prompt_of(5, seed=n), 1, owner=name, on_token=lambda name=name: order.append(name))
        for n, name in enumerate(names)
    ]
    for each, _ in queue:
        engine.submit(each)
    assert [sink.places[-1] for _, sink in queue] == [1, 4, 6, 7, 8, 2, 5, 3]
    gate.set()
    for _, sink in queue:
        sink.wait()
    assert order == ["greedy", "ann", "ben", "greedy", "ann", "greedy", "greedy", "greedy"]


def test_replies_under_way_count_when_the_next_one_is_chosen(make_engine: Callable[..., Engine]) -> None:
    order: list[str] = []
    engine = make_engine(rows=2)
    _, _, gate = held(engine, owner="greedy")
    for n, name in enumerate(("greedy", "greedy", "ann")):
        engine.submit(
            row(prompt_of(5, seed=n), 1, owner=name, on_token=lambda name=name: order.append(name))[0]
        )
    gate.set()
    while len(order) < 3:
        time.sleep(0.001)
    assert order[0] == "ann"


def test_one_person_cannot_fill_the_line(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(rows=1, waiting=6)
    _, _, gate = held(engine)
    for n in range(3):
        engine.submit(row(prompt_of(5, seed=n), 1, owner="greedy")[0])
    with pytest.raises(Busy, match="3 of your replies are waiting already"):
        engine.submit(row(prompt_of(5, seed=4), 1, owner="greedy")[0])
    others = [row(prompt_of(5, seed=n), 1, owner=f"person {n}") for n in range(3)]
    for each, _ in others:
        engine.submit(each)
    with pytest.raises(Busy, match="6 replies are waiting already"):
        engine.submit(row(prompt_of(5, seed=4), 1, owner="late")[0])
    gate.set()
    for _, sink in others:
        sink.wait()


def test_two_replies_to_one_prompt_read_it_once_and_draw_for_themselves(
    model: Any, make_engine: Callable[..., Engine]
) -> None:
    real, widths = Adapters(model), []

    def forward(ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        widths.append(tuple(ids.shape))
        return real(ids, **kwargs)

    def both(engine: Engine) -> list[list[int]]:
        pair = [row(prompt_of(40, seed=7), 20, temperature=1.2, seed=seed) for seed in (1, 2)]
        other = row(prompt_of(30, seed=8), 20)
        for each, _ in (*pair, other):
            engine.submit(each)
        assert_same(other[1].wait(), *alone(model, prompt_of(30, seed=8), 20))
        return [list(sink.wait()) for _, sink in pair]

    engine = make_engine(forward, rows=4, prefill_tokens=1000)
    _, first, gate = held(engine)
    widths.clear()
    threading.Timer(0.05, gate.set).start()
    together = both(engine)
    assert first.error is None
    assert [shape for shape in widths if shape[1] > 1] == [(2, 40)]
    assert together[0] != together[1]
    apart = []
    for seed in (1, 2):
        each, sink = row(prompt_of(40, seed=7), 20, temperature=1.2, seed=seed)
        engine.submit(each)
        apart.append(list(sink.wait()))
    assert together == apart


def test_twin_joins_while_the_prompt_is_being_read_and_outlives_the_first(
    model: Any, make_engine: Callable[..., Engine]
) -> None:
    real, passes = Adapters(model), []
    twin, second = row(prompt_of(60, seed=7), 10)

    def forward(ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        passes.append(tuple(ids.shape))
        if len(passes) == 2:
            engine.submit(twin)
        if len(passes) == 4:
            first.cancelled = True
        return real(ids, **kwargs)

    engine = make_engine(forward, rows=4, prefill_tokens=2)
    opening, first = row(prompt_of(60, seed=7), 10)
    engine.submit(opening)
    assert_same(second.wait(), *alone(model, prompt_of(60, seed=7), 10))
    assert first.wait() == []
    assert sum(columns for rows, columns in passes if columns > 1) == 60


class Faulty:
    """A forward pass that fails when `should_fail` says so; a real one otherwise."""

    def __init__(self, model: Any, should_fail: Callable[[torch.Tensor], Exception | None]) -> None:
        self._forward = Adapters(model)
        self._should_fail = should_fail

    def __call__(self, ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        error = self._should_fail(ids)
        if error is not None:
            raise error
        return self._forward(ids, **kwargs)


def test_prompt_that_breaks_the_model_fails_alone(model: Any, make_engine: Callable[..., Engine]) -> None:
    poison = 299

    def fail(ids: torch.Tensor) -> Exception | None:
        return ValueError("bad prompt") if ids.shape[1] > 1 and bool((ids == poison).any()) else None

    engine = make_engine(Faulty(model, fail), rows=4)
    good = [row([5, 6, 7 + n], 10) for n in range(2)]
    bad, failed = row([5, poison, 7], 10)
    for each in (good[0][0], bad, good[1][0]):
        engine.submit(each)
    failed.wait()
    assert failed.error is not None and "bad prompt" in failed.error
    for n, (_, sink) in enumerate(good):
        assert_same(sink.wait(), *alone(model, [5, 6, 7 + n], 10))
        assert sink.error is None


def test_failed_step_fails_its_rows_and_the_engine_goes_on(
    model: Any, make_engine: Callable[..., Engine]
) -> None:
    failures = [RuntimeError("kernel fault")]

    def fail(ids: torch.Tensor) -> Exception | None:
        return failures.pop() if ids.shape[1] == 1 and failures else None

    engine = make_engine(Faulty(model, fail), rows=4)
    first, hit = row(prompt_of(5, seed=1), 10)
    engine.submit(first)
    hit.wait()
    assert hit.error is not None and "kernel fault" in hit.error
    second, sink = row(prompt_of(6, seed=2), 10)
    engine.submit(second)
    assert_same(sink.wait(), *alone(model, prompt_of(6, seed=2), 10))


def test_short_memory_fails_the_newest_row_only(model: Any, make_engine: Callable[..., Engine]) -> None:
    def fail(ids: torch.Tensor) -> Exception | None:
        return torch.OutOfMemoryError("no memory") if ids.shape == (3, 1) else None

    engine = make_engine(Faulty(model, fail), rows=4)
    rows = [row(prompt_of(5 + n, seed=n), 12) for n in range(3)]
    for each, _ in rows:
        engine.submit(each)
    newest = rows[2][1]
    newest.wait()
    assert newest.error is not None and "ran out of memory" in newest.error
    for n, (_, sink) in enumerate(rows[:2]):
        assert_same(sink.wait(), *alone(model, prompt_of(5 + n, seed=n), 12))
        assert sink.error is None


def test_row_without_valid_numbers_fails_and_spoils_no_neighbour(
    model: Any, make_engine: Callable[..., Engine]
) -> None:
    real = Adapters(model)

    def forward(ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        logits = real(ids, **kwargs)
        starts = (kwargs["positions"][:, -1] >= 20).nonzero()
        logits[starts] = float("nan")
        return logits

    engine = make_engine(forward, rows=4)
    long, spoiled = row(prompt_of(15, seed=1), 30)
    short, sound = row(prompt_of(3, seed=2), 15)
    engine.submit(long)
    engine.submit(short)
    spoiled.wait()
    assert spoiled.error is not None and "no valid numbers" in spoiled.error
    assert_same(sound.wait(), *alone(model, prompt_of(3, seed=2), 15))


def test_reader_that_fails_does_not_stop_the_others(model: Any, make_engine: Callable[..., Engine]) -> None:
    def burst() -> None:
        raise OSError("reader gone")

    engine = make_engine(rows=4)
    bad, failed = row(prompt_of(5, seed=1), 10, on_token=burst)
    good, sink = row(prompt_of(6, seed=2), 10)
    engine.submit(bad)
    engine.submit(good)
    failed.wait()
    assert failed.error is not None and "reader gone" in failed.error
    assert_same(sink.wait(), *alone(model, prompt_of(6, seed=2), 10))


def test_job_runs_in_slices_between_the_tokens_of_a_reply(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(rows=2)
    seen: list[int] = []
    opening, sink = row(prompt_of(5, seed=1), 60)

    def job() -> Generator[None, None, str]:
        while not sink.tokens:
            yield
        for _ in range(5):
            seen.append(len(sink.tokens))
            yield
        return threading.current_thread().name

    future = engine.run(job())
    engine.submit(opening)
    assert future.result(30) == "policy-engine"
    assert seen == list(range(seen[0], seen[0] + 5))
    sink.wait()


def test_failure_of_a_job_reaches_whoever_waits_for_it(make_engine: Callable[..., Engine]) -> None:
    def job() -> Generator[None, None, None]:
        yield
        raise KeyError("nope")

    engine = make_engine()
    with pytest.raises(KeyError, match="nope"):
        engine.run(job()).result(30)
    opening, sink = row(prompt_of(5, seed=1), 3)
    engine.submit(opening)
    assert len(sink.wait()) == 3


def test_cache_limit_makes_rows_wait_instead_of_growing(make_engine: Callable[..., Engine]) -> None:
    widest = 0

    def note(engine: Engine) -> None:
        nonlocal widest
        running = engine._running
        widest = max(widest, len(running.rows) if running else 0)

    engine = make_engine(rows=8, slots=2 * 40)
    rows = [row(prompt_of(20, seed=n), 20, on_token=lambda: note(engine)) for n in range(5)]
    for each, _ in rows:
        engine.submit(each)
    for _, sink in rows:
        assert len(sink.wait()) == 20
    assert 1 <= widest <= 2


def test_cache_never_holds_more_than_its_limit(model: Any, make_engine: Callable[..., Engine]) -> None:
    """Many short rows leave room for many behind; a long one after them must not multiply it."""
    most = 0

    def note() -> None:
        nonlocal most
        if engine._running is not None:
            most = max(most, engine._running.cache.slots)

    engine = make_engine(rows=8, slots=1600)
    lengths = [*[10] * 8, 300, *[10] * 3, 200, 150]
    rows = [row(prompt_of(length, seed=n), 20, on_token=note) for n, length in enumerate(lengths)]
    for each, _ in rows:
        engine.submit(each)
    for n, (_, sink) in enumerate(rows):
        assert_same(sink.wait(), *alone(model, prompt_of(lengths[n], seed=n), 20))
    assert 0 < most <= 1600


def test_closing_ends_every_row_and_takes_no_more(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(rows=1)
    rows = [row(prompt_of(5, seed=n), 100_000) for n in range(3)]
    for each, _ in rows:
        engine.submit(each)
    engine.close()
    engine.close()
    for _, sink in rows:
        sink.wait()
        assert sink.error == "The studio is shutting down."
    with pytest.raises(PolicyClosed):
        engine.submit(rows[0][0])
    assert not engine._owner.is_alive()


def test_idle_engine_takes_no_turns(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    opening, sink = row(prompt_of(5, seed=1), 3)
    engine.submit(opening)
    sink.wait()
    turns: list[int] = []
    engine._turn = lambda: turns.append(1)  # type: ignore[method-assign]
    time.sleep(0.1)
    assert turns == []


def test_long_reply_beside_short_ones_keeps_the_cache_small(model: Any) -> None:
    """Columns that no row uses are dropped, so a stream of short replies does not grow the cache for ever."""
    from studio.policy.batch import Batch

    forward = Adapters(model)
    with torch.inference_mode():
        running: Batch | None = None
        for turn in range(30):
            each, _ = row(prompt_of(6, seed=turn), 20)
            each.number = turn
            opening = Batch([each], layer_count=2, device=CPU)
            each.last_token = int(opening.read(forward, columns=100).argmax())
            if running is None:
                running = opening
            else:
                running.absorb(opening)
            for _ in range(10):
                for one, token in zip(running.rows, running.step(forward).argmax(-1).tolist(), strict=True):
                    one.last_token = token
            if len(running.rows) > 2:
                running.remove([min(running.rows, key=lambda one: one.number)])
    assert running is not None
    assert running.cache.columns < 60
    assert running.cache.column_room < 400


def test_cache_aligns_rows_at_their_end_and_zeroes_what_lies_before() -> None:
    def filled(rows: int, columns: int, value: float) -> KeyValues:
        cache = KeyValues(1, rows=rows)
        cache.make_room(columns)
        states = torch.full((rows, 1, columns, 1), value)
        cache.layers[0].update(states, -states)
        cache.advance(columns)
        return cache

    cache = filled(1, 2, 1.0)
    cache.admit(filled(1, 4, 2.0))
    cache.admit(filled(1, 3, 3.0))
    keys = cache.layers[0].keys[:3, 0, cache.begin : cache.end, 0]
    assert keys.tolist() == [[0, 0, 1, 1], [2, 2, 2, 2], [0, 3, 3, 3]]
    cache.remove(0)
    assert cache.layers[0].keys[:2, 0, cache.begin : cache.end, 0].tolist() == [[0, 3, 3, 3], [2, 2, 2, 2]]


def test_greedy_takes_the_best_and_marks_rows_without_numbers() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [0.0, float("nan"), 1.0], [float("inf"), 0.0, 0.0]])
    greedy = [Drawing.seeded(0.0, 1.0, seed=0)] * 3
    assert choose(logits, greedy) == [1, INVALID, INVALID]


def test_samples_follow_temperature_and_nucleus() -> None:
    """p = (0.5, 0.3, 0.2): top_p 0.75 keeps the first two, as 5/8 and 3/8; temperature 1/2 squares before."""
    logits = torch.tensor([0.5, 0.3, 0.2]).log().repeat(4000, 1)
    nucleus = choose(logits, [Drawing.seeded(1.0, 0.75, seed=n) for n in range(4000)])
    assert nucleus.count(2) == 0
    assert nucleus.count(0) / 4000 == pytest.approx(5 / 8, abs=0.03)
    whole = choose(logits, [Drawing.seeded(1.0, 1.0, seed=n) for n in range(4000)])
    assert whole.count(2) / 4000 == pytest.approx(0.2, abs=0.03)
    cold = choose(logits, [Drawing.seeded(0.5, 1.0, seed=n) for n in range(4000)])
    assert cold.count(0) / 4000 == pytest.approx(0.25 / 0.38, abs=0.03)


def test_wide_nucleus_is_sampled_over_the_whole_vocabulary() -> None:
    logits = torch.zeros(2000, 1000)
    tokens = choose(logits, [Drawing.seeded(1.0, 0.9, seed=n) for n in range(2000)])
    assert len(set(tokens)) > 700 and max(tokens) > 256


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.999])
def test_a_rows_choice_is_the_same_beside_rows_of_any_nucleus(top_p: float) -> None:
    """Narrow and wide nuclei are looked for in different ways; a neighbour's must not decide which."""
    torch.manual_seed(5)
    logits = torch.randn(12, 2000) * torch.tensor([[0.1], [1.0], [4.0]]).repeat(4, 1)
    together = choose(logits, [Drawing.seeded(1.0, top_p, seed=n) for n in range(12)])
    alone = [choose(logits[n : n + 1], [Drawing.seeded(1.0, top_p, seed=n)])[0] for n in range(12)]
    assert together == alone and len(set(together)) > 4


def test_tiny_top_p_is_greedy() -> None:
    logits = torch.tensor([[1.0, 1.1, 0.9]])
    assert choose(logits, [Drawing.seeded(2.0, 1e-9, seed=3)]) == [1]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer(merges=0)  # one token per byte


def pieces(tokenizer: Any, text: str, **options: Any) -> list[str]:
    reply = ReplyText(tokenizer, **options)
    found = [reply.push(token) for token in tokenizer.encode(text, add_special_tokens=False)]
    return [*found, reply.flush()]


@pytest.mark.parametrize(
    "text",
    [
        "héllo wörld 你好",
        "a 👩‍👩‍👧 b",
        "flags 🇫🇷🇩🇪!",
        "thumb 👍🏽.",
        "heart ❤️ end",
        "🙂🙂🙂",
        "tea ☕",
        "\ufffd ok",
    ],
)
def test_text_comes_in_whole_characters_and_whole_emoji(tokenizer: Any, text: str) -> None:
    found = pieces(tokenizer, text)
    assert "".join(found) == text
    for end in range(1, len(found)):
        shown = "".join(found[:end])
        assert text.startswith(shown)
        assert "\ufffd" not in shown or "\ufffd" in text
    whole = {"👩‍👩‍👧", "🇫🇷", "🇩🇪", "👍🏽", "❤️"}
    for emoji in whole:
        if emoji in text:
            assert any(emoji in piece for piece in found), f"{emoji} came in parts"


def test_bytes_that_never_become_a_character_are_dropped(tokenizer: Any) -> None:
    reply = ReplyText(tokenizer)
    half = tokenizer.encode("é", add_special_tokens=False)[:1]
    assert reply.push(half[0]) + reply.flush() == ""


def test_control_tokens_give_no_text(tokenizer: Any) -> None:
    reply = ReplyText(tokenizer)
    assert reply.push(tokenizer.convert_tokens_to_ids("<|im_start|>")) + reply.flush() == ""


def test_stop_word_is_cut_off_and_never_shown_in_part(tokenizer: Any) -> None:
    reply = ReplyText(tokenizer, stop=("END.", "ENOUGH"))
    shown = ""
    for token in tokenizer.encode("an ENtry, then END. more", add_special_tokens=False):
        shown += reply.push(token)
        assert not shown.endswith("END")
        if reply.stopped:
            break
    assert shown + reply.flush() == "an ENtry, then "


def test_text_that_only_began_like_a_stop_word_is_given_back(tokenizer: Any) -> None:
    assert "".join(pieces(tokenizer, "the EN", stop=("END",))) == "the EN"
