"""Settings come from the environment and from arguments; secrets only from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.errors import ConfigError, Unavailable
from streams.cli import Found, located
from streams.settings import settings


def test_each_setting_is_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGNALBOX_<NAME> sets it, structured ones as JSON; an argument wins."""
    monkeypatch.setenv("SIGNALBOX_BROKER", "one:9092")
    monkeypatch.setenv("SIGNALBOX_PARTITIONS", "3")
    monkeypatch.setenv("SIGNALBOX_PROVIDERS", '{"north": "http://127.0.0.1:1/v1"}')
    monkeypatch.setenv("SIGNALBOX_SECURITY", '{"security_protocol": "SSL"}')
    found = settings(broker=None)
    assert (found.kafka.bootstrap, found.partitions) == ("one:9092", 3)
    assert found.kafka.security["security_protocol"] == "SSL"
    assert found.endpoints()["north"].api_key is None
    assert settings(broker="two:9092").broker == "two:9092"


@pytest.mark.parametrize(
    ("name", "value"),
    [("PARTITIONS", "0"), ("PARTITIONS", "x"), ("CONCURRENCY", "-1"), ("WINDOW", "0"), ("DRAIN_S", "-1")],
)
def test_a_setting_out_of_range_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The error says which setting it is."""
    monkeypatch.setenv(f"SIGNALBOX_{name}", value)
    with pytest.raises(ConfigError, match=name.lower()):
        settings()


@pytest.mark.parametrize("broker", ["nonsense", "host:", ":9092", "host:x", "host:99999", "host:0", "a:1,b"])
def test_an_address_that_is_none_is_refused(broker: str) -> None:
    """A broker is HOST:PORT, or several of them."""
    with pytest.raises(ConfigError, match="HOST:PORT"):
        _ = settings(broker=broker).kafka


@pytest.mark.parametrize("broker", ["host:9092", "[::1]:9092", "a:1,b:65535"])
def test_one_or_several_addresses_will_do(broker: str) -> None:
    """They are passed on as given."""
    assert settings(broker=broker).kafka.bootstrap == broker


def test_a_key_comes_from_its_file_and_is_not_shown(tmp_path: Path) -> None:
    """The file's text, without blanks around it, is the key; printing an endpoint hides it."""
    path = tmp_path / "key"
    path.write_text("s3cret\n")
    found = settings(providers={"north": "http://127.0.0.1:1/v1"}, key_files={"north": path})
    endpoint = found.endpoints()["north"]
    assert endpoint.api_key is not None
    assert endpoint.api_key.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(endpoint) + repr(found)


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe", b"two\nlines"])
def test_a_file_that_holds_no_key_is_named(tmp_path: Path, content: bytes | None) -> None:
    """The error names provider and file, and quotes nothing of the file."""
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    found = settings(providers={"north": "http://127.0.0.1:1/v1"}, key_files={"north": path})
    with pytest.raises(ConfigError, match="'north'") as caught:
        found.endpoints()
    assert str(path) in str(caught.value)
    assert "lines" not in str(caught.value)


def test_the_broker_is_the_given_one_else_the_environments_else_the_stacks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In this order; with none of them a dependency is down, and the error says how to start it."""
    monkeypatch.delenv("SIGNALBOX_BROKER", raising=False)
    with pytest.raises(Unavailable, match="signalbox up"):
        located(lambda _folder: None, None, tmp_path)
    assert located(lambda _folder: Found("stack:1"), None, tmp_path).broker == "stack:1"
    monkeypatch.setenv("SIGNALBOX_BROKER", "environment:1")
    assert located(lambda _folder: Found("stack:1"), None, tmp_path).broker == "environment:1"
    assert located(lambda _folder: Found("stack:1"), "given:1", tmp_path).broker == "given:1"
