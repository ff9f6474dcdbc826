"""``explain --policy``: what another policy would have done with the same signals, and what flips it."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

import signalbox
from agents.policy import Policy
from replay.trail import trail
from replay.view import MemoryLog
from replay.what_if import UndecidedError, lines_of, what_if
from schemas.decision import Decision
from schemas.request import Request
from tests.replay.logs import POLICY_YAML, LogBuilder, kept

OTHER = POLICY_YAML.replace("name: code-help", "name: code-elsewhere")


def routed(builder: LogBuilder) -> tuple[Request, Decision]:
    """Append lines until one was routed by its rule, and return that."""
    for number in range(100):
        request, decision = builder.answered(number)
        if decision.core.decision == "code-help":
            return request, decision
    raise AssertionError


def test_the_policy_that_decided_would_decide_the_same_again() -> None:
    """The same signals under the same policy: same decision, same model, same confidence."""
    builder = LogBuilder()
    request, decision = routed(builder)
    answer = what_if(
        trail(MemoryLog(builder.envelopes, builder.policies), request.request_id), builder.policy
    )

    assert answer["same"] is True
    assert answer["would"]["confidence"] == decision.core.confidence
    assert answer["would"]["chosen"] == decision.core.chosen


def test_another_policy_is_told_apart_and_what_flips_it() -> None:
    """Its decision stands beside the logged one, with a smallest change of signals."""
    builder = LogBuilder()
    request, _ = routed(builder)
    other = Policy.loads(Policy.parse(OTHER).normal_form)
    answer = what_if(trail(MemoryLog(builder.envelopes, builder.policies), request.request_id), other)

    assert (answer["logged"]["decision"], answer["would"]["decision"]) == ("code-help", "code-elsewhere")
    assert answer["same"] is False
    assert answer["flips"]["smallest"]
    assert all(flip["decision"] != "code-elsewhere" for flip in answer["flips"]["smallest"])
    assert any(line.startswith("  flips to ") for line in lines_of(answer))


def test_a_request_without_a_decision_has_nothing_to_compare_with() -> None:
    """It is said, not guessed."""
    builder = LogBuilder()
    request, _ = builder.request(1)

    with pytest.raises(UndecidedError, match="holds no decision"):
        what_if(trail(MemoryLog(builder.envelopes, builder.policies), request.request_id), builder.policy)


def test_the_command_reads_a_kept_log_and_a_policy_file(tmp_path: Path) -> None:
    """``explain ID --log DIR --policy FILE --json`` prints the comparison; an unusable file exits 2."""
    builder = LogBuilder()
    request, _ = routed(builder)
    kept(str(tmp_path / "log"), builder.envelopes, builder.policies)
    (tmp_path / "other.yaml").write_text(OTHER)
    words = ["explain", request.request_id.hex(), "--log", str(tmp_path / "log"), "--json", "--policy"]
    result = CliRunner().invoke(signalbox.app, [*words, str(tmp_path / "other.yaml")])
    refused = CliRunner().invoke(signalbox.app, [*words, str(tmp_path / "none.yaml")])

    assert (result.exit_code, orjson.loads(result.stdout)["would"]["decision"]) == (0, "code-elsewhere")
    assert refused.exit_code == 2
