"""Dead letters: bytes untouched, and not a word of what they hold."""

import pytest

from agents.errors import InvalidRecord, Refused, RouterError
from agents.step import dead_letter
from schemas.codec import UndecodableError
from schemas.envelope import Envelope
from tests.agents.samples import NOW, SECRET

ENVELOPE = Envelope(
    "requests", 2, 40, NOW, bytes(16), SECRET.encode(), (("policy_hash", b"abc"), ("x", b"\xff"))
)


def caught(error: Exception) -> Exception:
    """Return *error* as it is after having been raised."""
    with pytest.raises(type(error)) as info:
        raise error
    return info.value


def test_the_original_is_untouched() -> None:
    """Value, key, headers and place are those of the record that died."""
    letter = dead_letter("decision", ENVELOPE, caught(InvalidRecord("broken")), now=NOW, attempts=3)

    assert (letter.value, letter.key) == (ENVELOPE.value, ENVELOPE.key)
    assert [(h.key, h.value) for h in letter.headers] == list(ENVELOPE.headers)
    assert (letter.topic, letter.partition, letter.offset, letter.timestamp) == ("requests", 2, 40, NOW)
    assert (letter.stage, letter.attempts, letter.died_at) == ("decision", 3, NOW)
    assert letter.request_id == bytes(16)
    assert letter.policy_hash == "abc"


@pytest.mark.parametrize("kind", [ValueError, KeyError, TypeError, RuntimeError, UnicodeError])
def test_a_foreign_error_is_named_and_located_but_not_quoted(kind: type[Exception]) -> None:
    """The message of an error that is not ours may quote the prompt, so only its class and place are kept."""
    letter = dead_letter("signal.heuristics", ENVELOPE, caught(kind(f"cannot read {SECRET!r}")), now=NOW)

    assert letter.error_class == kind.__name__
    assert SECRET not in letter.reason
    assert "Greta" not in letter.reason
    assert "test_step" in letter.reason


def test_an_error_caused_by_a_quoting_one_quotes_nothing() -> None:
    """The cause of an error of ours is not told either."""
    error = InvalidRecord("the body is not valid JSON")
    error.__cause__ = caught(ValueError(SECRET))
    letter = dead_letter("decision", ENVELOPE, caught(error), now=NOW)

    assert letter.reason == "the body is not valid JSON"


@pytest.mark.parametrize(
    "error",
    [InvalidRecord("why"), Refused("invalid_json", "why"), RouterError("why"), UndecodableError("why")],
)
def test_errors_of_ours_tell_their_message(error: Exception) -> None:
    """Errors of ours quote nothing by contract, so their message is the reason."""
    assert dead_letter("s", ENVELOPE, caught(error), now=NOW).reason == "why"


def test_an_error_that_was_never_raised_has_a_reason_too() -> None:
    """Without a traceback the class alone is told."""
    assert dead_letter("s", ENVELOPE, ValueError(SECRET), now=NOW).reason == "ValueError"


@pytest.mark.parametrize("key", [None, b"", b"short", b"x" * 17])
def test_a_key_that_is_no_id_is_not_taken_for_one(key: bytes | None) -> None:
    """Only a key of 16 bytes names a request; no header means no policy."""
    letter = dead_letter(
        "s", Envelope("inbox.json", 0, 0, 0, key, None), ValueError(), now=NOW, policy_hash=""
    )

    assert letter.request_id is None
    assert letter.key == key
    assert letter.value is None
    assert letter.policy_hash == ""
