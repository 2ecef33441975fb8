"""What an address may be, and where a key may go."""

from __future__ import annotations

import pytest

from quantlab.endpoint.address import parse
from quantlab.endpoint.secrets import Key, is_loopback, read_key, redact
from quantlab.errors import QuantlabError


@pytest.mark.parametrize(
    ("text", "path", "chat"),
    [
        ("http://h:8000", None, "http://h:8000/v1/chat/completions"),
        ("http://h:8000/", None, "http://h:8000/v1/chat/completions"),
        ("https://h/v1", None, "https://h/v1/chat/completions"),
        ("https://h/proxy/v1/completions", "completions", "https://h/proxy/v1/chat/completions"),
        ("http://h/v1/chat/completions", "chat/completions", "http://h/v1/chat/completions"),
        ("http://h:11434/api/generate", "api/generate", "http://h:11434/v1/chat/completions"),
        ("http://[::1]:80", None, "http://[::1]:80/v1/chat/completions"),
        ("https://h/v1beta/openai", None, "https://h/v1beta/openai/chat/completions"),
        ("https://h/v1beta/openai/completions", "completions", "https://h/v1beta/openai/chat/completions"),
        ("https://h/api/paas/v4/", None, "https://h/api/paas/v4/chat/completions"),
        ("https://h/v1/account/gateway/compat", None, "https://h/v1/account/gateway/compat/chat/completions"),
        ("https://h/v1?api-version=2024-10-21", None, "https://h/v1/chat/completions?api-version=2024-10-21"),
        ("http://h/chat/completions", "chat/completions", "http://h/chat/completions"),
        ("http://h/x/chat/completions/", "chat/completions", "http://h/x/chat/completions/"),
        ("http://h/x/completions", "completions", "http://h/x/chat/completions"),
        (
            "https://h/openai/deployments/gpt/chat/completions?api-version=2024-12-01-preview",
            "chat/completions",
            "https://h/openai/deployments/gpt/chat/completions?api-version=2024-12-01-preview",
        ),
    ],
)
def test_an_address_is_a_root_a_v1_or_an_endpoint(text: str, path: str | None, chat: str) -> None:
    address = parse(text)
    assert (address.path, address.url("chat/completions")) == (path, chat)


def test_a_v1_or_an_endpoint_says_which_api() -> None:
    said = {
        "http://h": None,
        "http://h/v1": "openai",
        "http://h/p/v1/": "openai",
        "http://h/api/chat": "ollama",
        "http://h/completions": "openai",
        "http://h/v1beta/openai": "openai",
    }
    assert {text: parse(text).api for text in said} == said


@pytest.mark.parametrize(
    "text",
    [
        "http://user:hunter22@h/v1",
        "http://hunter22@h",
        "https://h/v1?key=hunter22",
        "https://h/v1#hunter22",
        "user:hunter22@h:80/v1",
        "hunter22:x@h",
        "hunter22:x",
        "hunter22://h",
        "//user:hunter22@h/v1",
        "http:/user:hunter22@h",
        "http:user:hunter22@h",
        "http://user:hunter22/x@h/v1",
        "http://user:1/hunter22@h/v1",
        "http://user%40hunter22",
        "http://h/v1;key=hunter22",
        "http://h/v1/key=hunter22",
        "https://h/v1?api-version=hunter22",
        "https://h/v1?api-version=2024-10-21&key=hunter22",
        "https://h/v1?api-version=2024-10-21#hunter22",
        "ftp://h/hunter22",
        "file:///etc/hunter22",
        "javascript:hunter22",
        "h:8000",
        "http://",
        "http:///v1",
        "http://h:99999",
        "http://h:x",
        "http://a b/",
        "http://h\\@evil",
        "",
    ],
)
def test_any_other_address_is_refused_and_never_repeated(text: str) -> None:
    with pytest.raises(QuantlabError) as error:
        parse(text)
    said = str(error.value)
    assert "\n" not in said and not any(part in said for part in ("hun", "r22", "user:"))


@pytest.mark.parametrize(
    ("host", "there"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("[::1]", True),
        ("localhost.evil.com", False),
        ("10.0.0.1", False),
    ],
)
def test_this_machine_is_known_by_its_name_alone(host: str, there: bool) -> None:
    assert is_loopback(host) is there


def test_a_key_goes_over_https_or_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", " sk-123456789\n")
    for url in ("https://h", "http://127.0.0.1:1", "http://localhost:1"):
        assert read_key(parse(url), "MY_KEY", False).key == Key("sk-123456789")
    with pytest.raises(QuantlabError, match="plain http to h, readable") as error:
        read_key(parse("http://h"), "MY_KEY", False)
    assert "sk-123456789" not in str(error.value)
    assert read_key(parse("http://h"), "MY_KEY", True).key == Key("sk-123456789")


def test_the_default_variable_is_optional_and_does_not_go_over_plain_http(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert read_key(parse("https://h"), None, False) == (None, None)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-123456789")
    key, note = read_key(parse("http://h"), None, False)
    assert key is None and note is not None and "was not sent" in note
    with pytest.raises(QuantlabError, match="that --key-env names is empty") as error:
        read_key(parse("https://h"), "hf_hunter22", False)  # somebody put the key itself there
    assert "hunter22" not in str(error.value)


@pytest.mark.parametrize(
    "value", ["sk-12345\n678", "sk 12345678", 'sk-"12345678', "sk-ключключ", "sk-\x0012345678"]
)
def test_what_cannot_be_a_key_is_refused_without_showing_it(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", {"MY_KEY": value})
    with pytest.raises(QuantlabError) as error:
        read_key(parse("https://h"), "MY_KEY", False)
    assert value not in str(error.value)


def test_a_key_is_masked_in_everything_and_shows_itself_nowhere() -> None:
    key = Key("sk-123456789")
    assert redact({"a": ["x sk-123456789 y", {"sk-123456789": 1}], "n": 2.5}, key) == {
        "a": ["x [key] y", {"[key]": 1}],
        "n": 2.5,
    }
    assert "123456789" not in repr(key) + str(key) + f"{(key,)}"
    assert redact("an EMPTY word", Key("EMPTY")) == "an EMPTY word"
