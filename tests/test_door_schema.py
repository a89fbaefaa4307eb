"""The door fuzzed by its own schema: schemathesis makes requests good and bad, and every answer must be as described.

Good requests are completed with what no schema can say (a model that exists, a receipt that was given), so that they
get as far as the policy and the ledger.
"""

from __future__ import annotations

import pytest
import schemathesis
from doorway import door_at
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

EXAMPLES = 30
ROUTES = [
    ("GET", "/models"),
    ("GET", "/models/{model}"),
    ("POST", "/chat/completions"),
    ("POST", "/feedback"),
]


class Fuzzed:
    """A door with a key, its schema, and two receipts that may be judged."""

    def __init__(self, door) -> None:
        self.door = door
        self.key = door.key("fuzz")
        self.given = {"Authorization": f"Bearer {self.key}"}
        self.schema = schemathesis.openapi.from_url(f"{door.url}/openapi.json", headers=self.given)
        two = door.ask("Hello", key=self.key, n=2, seed=1)
        self.receipts = [choice.thumbprint["receipt"] for choice in two.choices]

    def complete(self, case) -> None:
        """Put into a good request what no schema can say."""
        if "messages" in case.body:
            case.body["model"] = "thumbprint"
            case.body["messages"].append({"role": "user", "content": "Hello"})
        elif "receipts" in case.body:
            case.body["receipts"] = list(self.receipts)
        else:
            case.body["receipt"] = self.receipts[0]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    limits = {"http_requests_per_minute": 0, "http_tokens_per_minute": 0}
    with door_at(tmp_path_factory.mktemp("fuzzed") / "data", **limits) as door:
        yield Fuzzed(door)


def fuzz(operation, mode, check) -> None:
    """Call `check` with a few dozen requests, the same ones every time."""

    @seed(0)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case) -> None:
        check(case)

    run()


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_good_requests_are_answered_as_described(fuzzed, method, path):
    statuses = set()

    def check(case) -> None:
        if method == "POST":
            fuzzed.complete(case)
        # That messages hold text and end with a user's is for no schema to say, nor which models there are.
        unsaid = [positive_data_acceptance] if path != "/models" else []
        answer = case.call_and_validate(headers=fuzzed.given, excluded_checks=unsaid)
        statuses.add(answer.status_code)

    fuzz(fuzzed.schema[path][method], GenerationMode.POSITIVE, check)
    assert path == "/models/{model}" or 200 in statuses
    assert statuses <= {200, 400, 404}


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if route[0] == "POST"])
def test_bad_requests_are_refused_as_described(fuzzed, method, path):
    before = fuzzed.door.turns(), fuzzed.door.studio.ledger.last_sequence()
    fuzz(
        fuzzed.schema[path][method],
        GenerationMode.NEGATIVE,
        lambda case: case.call_and_validate(headers=fuzzed.given),
    )
    assert (fuzzed.door.turns(), fuzzed.door.studio.ledger.last_sequence()) == before
