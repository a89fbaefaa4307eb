"""Who may come in at the HTTP door: keys, rates, sizes, other sites' pages, and where the door is open at all."""

from __future__ import annotations

import socket

import openai
import pytest
from doorway import door_at

from studio.door.gate import is_loopback
from studio.door.keys import KeyRefused, Keys, main

ASK = {"model": "thumbprint", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    with door_at(tmp_path_factory.mktemp("access") / "data", http_max_body_bytes=4_096) as opened:
        yield opened


def code_of(answer) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_on_this_machine_no_key_is_needed_until_one_is_made(tmp_path):
    with door_at(tmp_path / "data") as door:
        assert door.ask("Hello").choices
        key = door.key("bot")
        with pytest.raises(openai.AuthenticationError) as refused:
            door.ask("Hello")
        assert refused.value.code == "invalid_api_key"
        assert door.ask("Hello", key=key).choices
        Keys(door.studio.settings.data_dir).revoke("bot")
        with pytest.raises(openai.AuthenticationError):
            door.ask("Hello", key=key)
        with door.http() as http:
            assert code_of(http.get("/models")) == (401, "missing_api_key")


def test_a_key_of_another_studio_is_bad_even_at_an_open_door(door):
    with pytest.raises(openai.AuthenticationError):
        door.ask("Hello", key="tp-" + "0" * 12 + "-" + "0" * 64)


@pytest.mark.parametrize(
    ("mode", "bound_host", "expected"),
    [
        ("off", "127.0.0.1", (403, "door_closed")),
        ("loopback", "0.0.0.0", (403, "door_closed")),
        ("on", "0.0.0.0", (401, "missing_api_key")),
        ("on", "127.0.0.1", (401, "missing_api_key")),
    ],
)
def test_beyond_this_machine_it_is_closed_unless_turned_on_and_then_needs_keys(
    tmp_path, mode, bound_host, expected
):
    with door_at(tmp_path / "data", http_door=mode, bound_host=bound_host) as door:
        with door.http() as http:
            assert code_of(http.post("/chat/completions", json=ASK)) == expected
            assert code_of(http.get("/openapi.json")) == expected
        with door.http(door.key("bot"), Origin="https://example.com") as http:
            answered = http.post("/chat/completions", json=ASK).status_code
        assert answered == (200 if mode == "on" else 403)


@pytest.mark.parametrize(
    "strange",
    [
        {"Origin": "https://example.com"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "rebound.example.com"},
        {"Host": "127.0.0.1.example.com"},
        {"Host": "["},
        {"X-Forwarded-For": "203.0.113.9"},
        {"Forwarded": "for=203.0.113.9"},
    ],
)
def test_without_a_key_other_sites_other_names_and_proxies_are_refused(door, strange):
    before = door.turns()
    with door.http(**strange) as http:
        answer = http.post("/chat/completions", json=ASK)
    assert answer.status_code in (400, 403)
    assert answer.status_code == 400 or answer.json()["error"]["code"] == "foreign_origin"
    assert door.turns() == before


def test_the_own_page_and_local_names_come_in(door):
    port = door.address.rpartition(":")[2]
    for headers in (
        {"Origin": door.address, "Sec-Fetch-Site": "same-origin"},
        {"Host": f"localhost:{port}"},
        {"Host": f"[::1]:{port}"},
    ):
        with door.http(**headers) as http:
            assert http.get("/models").status_code == 200


def test_no_answer_lets_another_site_read_it(door):
    with door.http(Origin="https://example.com") as http:
        asked = http.options("/chat/completions", headers={"Access-Control-Request-Method": "POST"})
    assert not [name for name in asked.headers if name.startswith("access-control")]


def test_only_json_is_read(door):
    with door.http() as http:
        form = http.post("/chat/completions", content=b"{}", headers={"Content-Type": "text/plain"})
        assert code_of(form) == (415, "not_json")
        assert code_of(http.post("/feedback", content=b"{}")) == (415, "not_json")


def test_a_body_over_the_limit_is_refused_whether_or_not_it_says_so(door):
    body = b'{"model": "' + b"x" * 5_000 + b'"}'
    with door.http() as http:
        told = http.post("/chat/completions", content=body, headers={"Content-Type": "application/json"})
        assert code_of(told) == (413, "body_too_large")
        parts = (body[at : at + 500] for at in range(0, len(body), 500))
        untold = http.post("/chat/completions", content=parts, headers={"Content-Type": "application/json"})
        assert code_of(untold) == (413, "body_too_large")


def test_a_client_that_goes_away_within_its_body_harms_nobody(door):
    host, port = door.address.removeprefix("http://").split(":")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port))) as half:
        half.sendall((head + "Content-Length: 500\r\n\r\n{").encode())
    assert door.ask("Hello").choices


def test_requests_a_minute_are_counted_for_each_key(tmp_path):
    with door_at(tmp_path / "data", http_requests_per_minute=3) as door:
        first, second, free = door.key("first"), door.key("second"), door.key("free", requests_per_minute=0)
        for _ in range(3):
            door.ask("Hello", key=first)
        with pytest.raises(openai.RateLimitError) as limited:
            door.ask("Hello", key=first)
        assert limited.value.code == "rate_limit_exceeded"
        assert 1 <= int(limited.value.response.headers["retry-after"]) <= 60
        assert door.ask("Hello", key=second).choices
        for _ in range(5):
            door.ask("Hello", key=free)
        assert door.turns() == 3 + 1 + 5


def test_tokens_a_minute_are_what_was_read_and_written(tmp_path):
    with door_at(tmp_path / "data", http_tokens_per_minute=30) as door:
        key = door.key("bot")
        used = door.ask("Hello", key=key).usage.total_tokens
        assert used < 30
        with_this = door.ask("Hello", key=key).usage.total_tokens + used
        assert with_this >= 30
        with pytest.raises(openai.RateLimitError, match="30 tokens a minute"):
            door.ask("Hello", key=key)
        assert door.turns() == 2


def test_a_key_is_shown_once_and_kept_as_a_hash(tmp_path):
    key = Keys(tmp_path).add("bot", created_at=5.0)
    (file,) = (tmp_path / "door_keys").iterdir()
    assert key.rpartition("-")[2] not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    found = Keys(tmp_path).find(key)
    assert found is not None and (found.name, found.created_at) == ("bot", 5.0)
    assert Keys(tmp_path).find(key[:-1] + ("0" if key[-1] != "0" else "1")) is None
    assert Keys(tmp_path).find("tp-../../../etc/passwd") is None


def test_the_key_command(tmp_path, capsys):
    assert main(["add", "bot", "--tokens-per-minute", "500"], data_dir=tmp_path, now=0.0) == 0
    key = capsys.readouterr().out.strip()
    found = Keys(tmp_path).find(key)
    assert found is not None and (found.requests_per_minute, found.tokens_per_minute) == (None, 500)
    assert main(["add", "bot"], data_dir=tmp_path, now=1.0) == 1
    assert "already" in capsys.readouterr().err
    assert main(["revoke", "bot"], data_dir=tmp_path, now=2.0) == 0
    assert main(["revoke", "bot"], data_dir=tmp_path, now=2.0) == 1
    capsys.readouterr()
    assert main(["add", "bot"], data_dir=tmp_path, now=86_400.0) == 0
    capsys.readouterr()
    assert main(["list"], data_dir=tmp_path, now=3.0) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=1)[1] for line in listed] == [
        "bot  made 1 Jan 1970  revoked",
        "bot  made 2 Jan 1970",
    ]
    assert Keys(tmp_path).find(key) is None
    elsewhere = tmp_path / "elsewhere"
    assert main(["--data-dir", str(elsewhere), "add", "bot"], data_dir=tmp_path, now=0.0) == 0
    assert Keys(elsewhere).find(capsys.readouterr().out.strip()) is not None


@pytest.mark.parametrize("name", ["", "  ", "two\nlines"])
def test_a_key_needs_a_name_to_be_known_by(tmp_path, name):
    with pytest.raises(KeyRefused):
        Keys(tmp_path).add(name, created_at=0.0)
    assert not Keys(tmp_path).any()


def test_loopback_names():
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"))
    assert not any(is_loopback(host) for host in ("", "0.0.0.0", "::", "10.0.0.1", "example.com"))
