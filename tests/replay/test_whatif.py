"""`replay whatif`: models, money, safety and what cannot be known, against truths worked out by hand."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import replay.cli
import replay.whatif_cli
from agents.ports import Infer
from agents.testing import HashClassifier
from replay.importers import Answered
from replay.policy_cli import read_policy
from replay.price_list import UNTIMED, Prices
from tests.architecture.repository import ROOT

SECRET = "the launch code is mauve"
POLICY = """
version: v0.3
providers:
  defaults: {default_model: small}
  models:
    - {name: small, pricing: {prompt_per_1m: 1.0, completion_per_1m: 2.0}, backend_refs: [{name: north}]}
    - name: large
      provider_model_id: vendor-large
      pricing: {prompt_per_1m: 10.0, completion_per_1m: 20.0}
      backend_refs: [{name: north}]
    - {name: free, backend_refs: [{name: house}]}
routing:
  signals:
    keywords:
      - {name: mail, operator: OR, keywords: ['@']}
      - {name: hard, operator: OR, keywords: [prove]}
      - {name: house, operator: OR, keywords: [house]}
  decisions:
    - {name: hard, priority: 30, rules: {type: keyword, name: hard}, modelRefs: [{model: large}]}
    - name: private
      priority: 20
      safety: true
      rules: {type: keyword, name: mail}
      modelRefs: [{model: small}]
    - {name: house, priority: 10, rules: {type: keyword, name: house}, modelRefs: [{model: free}]}
"""
UNKNOWN = """
    embeddings:
      - {name: odd, threshold: 0.9, candidates: [the launch code is mauve]}
"""
GUARD = """
    - name: guard
      priority: 25
      safety: true
      rules: {type: embedding, name: odd}
      modelRefs: [{model: large}]
"""
HIDDEN = POLICY.replace("  decisions:\n", UNKNOWN.lstrip("\n") + "  decisions:\n") + GUARD.lstrip("\n")


@asynccontextmanager
async def classifier(address: str) -> AsyncIterator[Infer]:
    """Serve the fake classifier of the tests at any address but one that is down."""
    assert address == "triton:8001"
    yield HashClassifier()


APP = typer.Typer()
replay.whatif_cli.register(replay.cli.register(APP), dict, classifier)


def call(text: str, model: str = "vendor/vendor-large", **more: Any) -> dict[str, Any]:
    """Return a LiteLLM payload that asks *text*: 1000 tokens read, 100 written, 0.02 USD."""
    return {
        "call_type": "acompletion",
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "response_cost": 0.02,
        "prompt_tokens": 1000,
        "completion_tokens": 100,
    } | more


def run(folder: Path, lines: list[Any], policy: str = POLICY, *options: str) -> Result:
    """Run the command over *lines*."""
    log, config = folder / "log.jsonl", folder / "policy.yaml"
    log.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
    config.write_text(policy)
    return CliRunner().invoke(APP, ["replay", "whatif", str(log), "--policy", str(config), *options])


def told(folder: Path, lines: list[Any], policy: str = POLICY, *options: str) -> Any:
    """Return what the command prints as JSON."""
    return json.loads(run(folder, lines, policy, "--json", *options).stdout)


def test_models_then_and_now_and_what_both_cost(tmp_path: Path) -> None:
    """A name of the vendor's is the policy's model; every price is tokens times the policy's price."""
    answer = told(tmp_path, [call("hello"), call("hello"), call("prove it"), call("a house")])
    rows = {(r["from"], r["to"]): (r["count"], r["paid_usd"], r["would_usd"]) for r in answer["models"]}

    assert rows == {
        ("large", "small"): (2, 0.04, 0.0024),
        ("large", "large"): (1, 0.02, 0.012),
        ("large", "free"): (1, None, None),
    }
    assert answer["cost"]["calls"] == 3
    assert answer["cost"]["paid_usd"] == pytest.approx(0.06)
    assert answer["cost"]["would_usd"] == pytest.approx(0.0144)
    assert answer["cost"]["all_paid_usd"] == pytest.approx(0.08)
    assert answer["cost"]["not_compared"]["no price in the policy"] == 1


def test_the_assumption_is_told_with_its_size(tmp_path: Path) -> None:
    """Only tokens that another model would write rest on it."""
    assumed = told(tmp_path, [call("hello"), call("prove it")])["cost"]["assumption"]

    assert assumed["calls_to_another_model"] == 1
    assert assumed["usd_that_rest_on_it"] == pytest.approx(100 * 2.0 / 1e6)
    assert assumed["usd_if_20_percent_more_tokens"] == pytest.approx(0.0132 + 0.2 * 0.0002)


def test_failed_and_cached_calls_are_decided_and_not_priced(tmp_path: Path) -> None:
    """What was not paid for is no saving."""
    lines = [call("a", status="failure", response_cost=0), call("b", cache_hit=True), call("c")]
    answer = told(tmp_path, lines)

    assert answer["states"] == {"answered": 1, "cached": 1, "failed": 1}
    assert sum(row["count"] for row in answer["models"]) == 3
    assert answer["cost"]["calls"] == 1


def test_safety_findings_name_lines_and_never_text(tmp_path: Path) -> None:
    """A safety decision that matches and loses to a higher priority is a finding too."""
    lines = [call("a@b"), call(SECRET), call("prove a@b")]
    answer = told(tmp_path, lines)
    (row,) = answer["safety"]

    assert row["decision"] == "private"
    assert row["matched"] == {"count": 2, "lines": [1, 3]}
    assert row["won"] == {"count": 1, "lines": [1]}
    assert row["open"]["count"] == 0
    assert "safety private: matches 2, decides 1; lines 1, 3" in run(tmp_path, lines).stdout


def test_a_signal_that_needs_a_classifier_is_unknown_and_what_hangs_on_it_is_counted(tmp_path: Path) -> None:
    """A decision above that matches needs no classifier: only the others hang on it."""
    result = run(tmp_path, [call("prove it"), call("hello"), call("a@b")], HIDDEN, "--json")
    answer = json.loads(result.stdout)
    guard = next(row for row in answer["safety"] if row["decision"] == "guard")

    assert result.exit_code == 4
    assert answer["unknown"]["signals"] == {"embedding:odd": 3}
    assert (answer["unknown"]["requests"], answer["unknown"]["hanging"]) == (3, 2)
    assert guard["matched"]["count"] == 0
    assert guard["open"] == {"count": 3, "lines": [1, 2, 3]}


def test_triton_makes_it_known(tmp_path: Path) -> None:
    """With a classifier nothing is unknown, and the guard matches what is like its example."""
    lines = [call(SECRET), call("hello")]
    result = run(tmp_path, lines, HIDDEN, "--json", "--triton", "triton:8001")
    answer = json.loads(result.stdout)
    guard = next(row for row in answer["safety"] if row["decision"] == "guard")

    assert result.exit_code == 0
    assert answer["unknown"]["requests"] == 0
    assert guard["won"]["lines"] == [1]


def test_lines_that_cannot_be_read_are_counted_with_number_and_reason(tmp_path: Path) -> None:
    """A broken line costs itself alone."""
    answer = told(tmp_path, ["{", call("x"), "", call("y", call_type="aembedding"), "[]", '{"a": 1}'])
    reasons = {row["reason"]: row["lines"] for row in answer["malformed"]}

    assert answer["calls"] == 1
    assert reasons == {
        "the line is not valid JSON": [1],
        "the line is not a JSON object": [5],
        "the line is of no known format": [6],
    }
    assert answer["left_out"][0]["lines"] == [4]


def test_a_call_that_admission_would_refuse_is_told(tmp_path: Path) -> None:
    """A policy whose decisions depend on roles refuses whoever has no name."""
    roles = "    role_bindings:\n      - {name: r, role: admin, subjects: [{kind: User, name: jo}]}\n"
    rule = (
        "    - {name: admins, priority: 40, rules: {type: authz, name: admin}, modelRefs: [{model: large}]}\n"
    )
    policy = POLICY.replace("  decisions:\n", roles + "  decisions:\n") + rule
    lines = [call("x"), call("x", metadata={"user_api_key_user_id": "jo"})]
    answer = told(tmp_path, lines, policy)

    assert [(r["reason"], r["lines"]) for r in answer["would_be_refused"]] == [
        ("authz_identity_missing", [1])
    ]
    assert answer["decisions"] == {"admins": 1}


def test_a_recipe_whose_name_is_written_with_spaces_is_decided(tmp_path: Path) -> None:
    """Its safety decision is looked for, and told, as that of any other."""
    lab = """
recipes:
  - name: ' lab '
    routing:
      signals: {keywords: [{name: at, operator: OR, keywords: ['@']}]}
      decisions: [{name: kept, safety: true, rules: {type: keyword, name: at}, modelRefs: [{model: small}]}]
entrypoints: [{model_names: [lab-model], recipe: lab}]
"""
    answer = told(tmp_path, [call("a@b", model_group="lab-model")], POLICY + lab)

    assert {row["decision"]: row["won"]["count"] for row in answer["safety"]} == {"private": 0, "kept": 1}


def test_who_asks_is_told_in_the_headers_that_the_policy_reads(tmp_path: Path) -> None:
    """A policy that names its own headers decides by role as one that keeps the usual ones."""
    own = """
global: {services: {authz: {identity: {user_id_header: X-Who, user_groups_header: X-Teams}}}}
"""
    roles = """
    role_bindings:
      - {name: r, role: admin, subjects: [{kind: User, name: jo}]}
      - {name: s, role: staff, subjects: [{kind: Group, name: law}]}
"""
    rules = """
    - {name: admins, priority: 40, rules: {type: authz, name: admin}, modelRefs: [{model: large}]}
    - {name: staff, priority: 39, rules: {type: authz, name: staff}, modelRefs: [{model: large}]}
"""
    policy = (
        POLICY.replace("  decisions:\n", roles.lstrip("\n") + "  decisions:\n") + rules.lstrip("\n") + own
    )
    asking: tuple[dict[str, str], ...] = (
        {"user_api_key_user_id": "jo"},
        {"user_api_key_user_id": "al", "user_api_key_team_alias": "law"},
    )
    answer = told(tmp_path, [call("x", metadata=who) for who in asking], policy)

    assert answer["would_be_refused"] == []
    assert answer["decisions"] == {"admins": 1, "staff": 1}


def test_nothing_that_was_asked_is_printed(tmp_path: Path) -> None:
    """Neither report shows a word of a prompt, whatever state the line is in."""
    lines = [
        call(SECRET),
        call(SECRET, call_type=SECRET),
        json.dumps(call(SECRET))[:-1],
        {"messages": SECRET},
    ]

    for options in ((), ("--json",)):
        result = run(tmp_path, lines, POLICY, *options)
        assert SECRET not in result.stdout + result.stderr


@pytest.mark.parametrize("lines", [[], ["{"], [call("x", call_type="aembedding")]])
def test_a_log_without_any_call_exits_2(tmp_path: Path, lines: list[Any]) -> None:
    """There is nothing to tell about nothing."""
    result = run(tmp_path, lines)

    assert result.exit_code == 2
    assert "can be decided" in result.stderr


def test_unusable_input_exits_2_with_what_to_do(tmp_path: Path) -> None:
    """A missing file, another format and a broken policy are usage errors."""
    assert run(tmp_path, [call("x")], POLICY, "--format", "csv").exit_code == 2
    assert run(tmp_path, [call("x")], "version: [").exit_code == 2
    missing = CliRunner().invoke(
        APP, ["replay", "whatif", str(tmp_path / "no"), "--policy", str(tmp_path / "policy.yaml")]
    )
    assert missing.exit_code == 2


def test_prices_come_from_the_log_then_the_policy_then_a_list(tmp_path: Path) -> None:
    """Each source is counted; a model that nobody has a price for is counted too."""
    lines = [
        call("x"),
        call("x", response_cost=None),
        call("x", model="gpt-4o", response_cost=None),
        call("x", model="nobody-knows-this", response_cost=None),
    ]
    cost = told(tmp_path, lines)["cost"]

    assert cost["paid_according_to"] == {"list": 1, "logged": 1, "policy": 1, "unknown": 1}
    assert cost["not_compared"]["no price of then"] == 1


@pytest.mark.parametrize(
    ("logged", "own"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("openai/gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-2024-05-13", "old"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini-2024-07-18"),
        ("gpt-4o-2024-08", "gpt-4o-2024-08"),
        ("", ""),
    ],
)
def test_a_dated_snapshot_is_the_model_of_that_name(tmp_path: Path, logged: str, own: str) -> None:
    """Unless the policy names the snapshot itself; a name that it has not in any form stays as it is."""
    path = tmp_path / "p.yaml"
    models = """
    - {name: gpt-4o, backend_refs: [{name: north}]}
    - {name: old, provider_model_id: gpt-4o-2024-05-13, backend_refs: [{name: north}]}
""".lstrip("\n")
    path.write_text(POLICY.replace("  models:\n", "  models:\n" + models))

    assert Prices(read_policy(path)).own_name(logged) == own


def test_a_list_price_is_that_of_the_calls_own_time(tmp_path: Path) -> None:
    """Of a model that is half as dear by night; it does not matter when the report is made."""
    path = tmp_path / "p.yaml"
    path.write_text(POLICY)
    prices = Prices(read_policy(path))
    times = (datetime(2025, 6, 1, hour, tzinfo=UTC) for hour in (12, 20, 12))
    day, night, again = (prices.paid(Answered("deepseek-chat", "answered", 0, 1000, at=at)) for at in times)

    assert day == again
    assert day[1] == night[1] == "list"
    assert day[0] is not None
    assert night[0] == pytest.approx(day[0] / 2)


@pytest.mark.parametrize("hour", [12, 20])
def test_the_price_of_a_call_without_a_time_does_not_depend_on_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hour: int
) -> None:
    """It is the one of a fixed day, whatever hour it is."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Clock:
            return cls(2025, 6, 1, hour, tzinfo=tz)

    for module in ("genai_prices.data_snapshot", "genai_prices.types", "replay.price_list"):
        monkeypatch.setattr(f"{module}.datetime", Clock)
    path = tmp_path / "p.yaml"
    path.write_text(POLICY)
    untimed = Answered("deepseek-chat", "answered", 0, 1000)

    assert Prices(read_policy(path)).paid(untimed) == Prices(read_policy(path)).paid(
        replace(untimed, at=UNTIMED)
    )


def test_a_price_in_another_currency_is_no_price_in_dollars(tmp_path: Path) -> None:
    """Nothing converts, so nothing is compared."""
    path = tmp_path / "p.yaml"
    path.write_text(POLICY.replace("{prompt_per_1m: 1.0,", "{currency: EUR, prompt_per_1m: 1.0,"))
    prices = Prices(read_policy(path))

    assert prices.would("small", 10, 10) is None
    assert prices.would("large", 1_000_000, 0) == 10.0


def test_ten_thousand_calls_take_seconds(tmp_path: Path) -> None:
    """CPU time of a log of 10,000 lines, a twentieth of it measured."""
    lines = [call(f"{number} a@b " + "words and more words " * 30) for number in range(500)]
    before = time.process_time()
    answer = told(tmp_path, lines)

    assert answer["calls"] == 500
    assert time.process_time() - before < 3.0


def test_the_shipped_examples_are_decided_whole() -> None:
    """What docs/whatif.md shows can be typed, and says something about every part."""
    folder = ROOT / "infra" / "whatif"
    config = str(folder / "policy.yaml")
    for names in (["litellm.jsonl"], ["openai-input.jsonl", "openai-output.jsonl"]):
        paths = [str(folder / name) for name in names]
        result = CliRunner().invoke(APP, ["replay", "whatif", *paths, "--policy", config, "--json"])
        answer = json.loads(result.stdout)

        assert result.exit_code == 0
        assert answer["cost"]["calls"] > 20
        assert {row["from"] for row in answer["models"]} <= {"gpt-4o", "gpt-4o-mini", "(not logged)"}
        assert answer["safety"][0]["matched"]["count"] > 0
