"""Another policy over logged decisions: the same as deciding one by one, in counts, money and exits."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import signalbox
from agents.decision import TAG, decide
from agents.draw import pick, unit
from agents.policy import Policy
from replay.archive import Source, archive
from replay.archive_files import Files
from replay.cases import Case, cases
from replay.comparison import compare
from replay.comparison_report import report
from replay.logged import ArchivedLog, KeptLog
from replay.outcomes import picks, units
from replay.view import MemoryLog
from replay.what_if import recipe_of
from tests.replay.logs import POLICY_YAML, LogBuilder, kept

OTHERS = {
    "same": POLICY_YAML,
    "weights": POLICY_YAML.replace("weight: 3", "weight: 0.5"),
    "order": POLICY_YAML.replace("priority: 10", "priority: 30"),
    "ignore": POLICY_YAML.replace(", on_unknown: fail_request", ""),
    "match": POLICY_YAML.replace("fail_request", "match"),
    "served": POLICY_YAML.replace(
        "{name: tiny, backend_refs: [{name: south}]}", "{name: tiny, pricing: {prompt_per_1m: 1.0}}"
    ),
    "default": POLICY_YAML.replace("defaults: {default_model: small}", "defaults: {}"),
    "salt": POLICY_YAML.replace("{type: weighted}", "{type: weighted, weighted: {salt: pepper}}"),
}
LACKING = POLICY_YAML.replace(
    "keywords: [urgent]}", "keywords: [urgent]}\n      - {name: novel, operator: OR, keywords: [x]}"
).replace("- {type: keyword, name: urgent}", "- {type: keyword, name: novel}")
SAFE = POLICY_YAML.replace("priority: 10", "safety: true\n      priority: 10")


def of(text: str) -> Policy:
    """Return the policy in *text* as it is read back."""
    return Policy.loads(Policy.parse(text).normal_form)


@pytest.fixture(scope="module")
def builder() -> LogBuilder:
    """A log of answered requests, some of which name a model themselves, and a repeated decision."""
    found = LogBuilder()
    for number in range(120):
        request, decision = found.answered(number)
    found.append("decisions", decision.origin.partition, decision, request.request_id)
    for number, model in enumerate(("large", "tiny", "small"), 200):
        request, origin = found.request(number, model)
        found.decision(request, origin, [], [])
    return found


@pytest.fixture(scope="module")
def archived(builder: LogBuilder, tmp_path_factory: pytest.TempPathFactory) -> ArchivedLog:
    """The same as an archive of small files."""
    files = Files(str(tmp_path_factory.mktemp("archive")))
    archive(Source(MemoryLog(builder.envelopes, builder.policies), "c", "signalbox"), files, chunk=9)
    return ArchivedLog(files)


def one_by_one(builder: LogBuilder, policy: Policy) -> dict[tuple[str, ...], int]:
    """Return how often each pair of logged and new outcome occurs, by the evaluator of one request."""
    seen: set[bytes] = set()
    counts: dict[tuple[str, ...], int] = {}
    key: tuple[str, ...]
    for case in cases(MemoryLog(builder.envelopes, builder.policies)):
        assert isinstance(case, Case)
        if case.decision.request_id in seen:
            continue
        seen.add(case.decision.request_id)
        was = case.decision.core
        recipe = recipe_of(was.facts.get("requested_model") or "", was.recipe, policy)
        now = decide(
            policy, recipe=recipe, request_id=case.decision.request_id, sets=case.sets, facts=was.facts
        )
        key = (was.outcome, was.failure, was.decision, was.chosen)
        key += (now.outcome, now.failure, now.decision, now.chosen)
        counts[key] = counts.get(key, 0) + 1
    return counts


@pytest.mark.parametrize("name", OTHERS)
def test_many_at_once_come_out_as_one_by_one(builder: LogBuilder, archived: ArchivedLog, name: str) -> None:
    """Every pair of outcomes occurs as often as the evaluator of one request says, chosen models too."""
    policy = of(OTHERS[name])
    expected = one_by_one(builder, policy)

    for logged in (KeptLog(MemoryLog(builder.envelopes, builder.policies)), archived):
        found = compare(logged, policy)
        cells = {
            (*dataclasses.astuple(a), *dataclasses.astuple(b)): sums.rows
            for (_, a, b), sums in found.cells.items()
        }
        assert cells == expected
        assert (found.decisions, found.repeats) == (123, 1)
        assert (found.changed == 0) == (name == "same")


def test_an_archive_and_its_log_say_the_same(builder: LogBuilder, archived: ArchivedLog) -> None:
    """Whole reports, samples and money included."""
    policy = of(OTHERS["weights"])
    log = KeptLog(MemoryLog(builder.envelopes, builder.policies))

    assert report(compare(archived, policy), policy) == report(compare(log, policy), policy)


@given(
    st.text(max_size=8),
    st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=20),
    st.lists(st.floats(0, 1), min_size=1, max_size=6),
)
def test_draws_and_picks_are_those_of_one_request(salt: str, ids: list[bytes], weights: list[float]) -> None:
    """Bit for bit, for any salt, id and propensities."""
    words = np.frombuffer(b"".join(ids), dtype=">u8").reshape(-1, 2).astype(np.uint64)
    draws = units(salt, words)
    total = sum(weights)
    propensities = [w / total for w in weights] if total > 0 else [1.0] * len(weights)

    assert draws.tolist() == [unit(salt, each, 0, TAG) for each in ids]
    assert picks(propensities, draws).tolist() == [pick(propensities, draw) for draw in draws.tolist()]


def test_cost_is_as_billed_where_the_model_stays_and_predicted_elsewhere(builder: LogBuilder) -> None:
    """Each answer was billed 0.0005 USD for 12 and 30 tokens; the prediction takes the new prices."""
    priced = OTHERS["order"].replace(
        "{name: large, ", "{name: large, pricing: {prompt_per_1m: 1.0, completion_per_1m: 2.0}, "
    )
    found = report(compare(KeptLog(MemoryLog(builder.envelopes, builder.policies)), of(priced)), of(priced))
    cost = found["cost"]
    moved = [row for row in found["models"] if row["from"] != row["to"]]
    to_large = sum(row["count"] for row in moved if row["to"] == "large")

    assert cost["agreed"]["usd"] == pytest.approx(0.0005 * cost["agreed"]["priced"])
    assert cost["other_model"]["rows"] == sum(row["count"] for row in moved)
    assert to_large > 0
    assert cost["other_model"]["predicted_usd"] == pytest.approx(to_large * (12 * 1.0 + 30 * 2.0) / 1e6)


def run(tmp_path: Path, builder: LogBuilder, *command: str) -> tuple[int, str]:
    """Run *command* with the log at LOG and return exit code and output."""
    kept(str(tmp_path / "log"), builder.envelopes, builder.policies)
    words = [str(tmp_path / "log") if word == "LOG" else word for word in command]
    result = CliRunner().invoke(signalbox.app, words)
    return result.exit_code, result.stdout


def written(tmp_path: Path, name: str, text: str) -> str:
    """Return the path of a file with *text*."""
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def test_a_signal_that_the_log_lacks_is_unknown_and_exits_4(builder: LogBuilder, tmp_path: Path) -> None:
    """It is named with the number of decisions that need it, and never counts as not matched."""
    policy = written(tmp_path, "p.yaml", LACKING.replace("name: novel}", "name: novel, on_unknown: match}"))
    code, out = run(tmp_path, builder, "replay", "decide", "--log", "LOG", "--policy", policy, "--json")
    found = json.loads(out)

    assert code == 4
    assert found["unknown_signals"] == {"keyword:novel": 120}
    assert found["unknown_share"] == 120 / 123
    assert {row["to"] for row in found["decision_matrix"]} <= {
        "code-help",
        "maths",
        "(signal_unknown:embedding:maths)",
        "(bypassed)",
    }


def test_what_changes_is_printed_with_samples_and_exits_0(builder: LogBuilder, tmp_path: Path) -> None:
    """A change is an answer, not a failure; sample ids are requests that moved so."""
    policy = written(tmp_path, "p.yaml", OTHERS["order"])
    code, out = run(tmp_path, builder, "replay", "decide", "--log", "LOG", "--policy", policy, "--json")
    found = json.loads(out)
    moved = next(row for row in found["decision_matrix"] if row["from"] != row["to"])
    explained = run(
        tmp_path, builder, "explain", moved["samples"][0], "--log", "LOG", "--policy", policy, "--json"
    )
    would = json.loads(explained[1])

    assert code == 0
    assert found["changed"] == found["decisions"] - found["reproduced"] > 0
    assert (would["logged"]["decision"], would["would"]["decision"]) == (moved["from"], moved["to"])
    assert "model" in run(tmp_path, builder, "replay", "decide", "--log", "LOG", "--policy", policy)[1]


def test_a_flipped_safety_decision_exits_1(builder: LogBuilder, tmp_path: Path) -> None:
    """Requests that a marked decision loses are counted; without the mark the exit is 0."""
    safe = written(tmp_path, "safe.yaml", SAFE)
    worse = written(
        tmp_path, "worse.yaml", SAFE.replace("type: keyword, name: urgent", "type: keyword, name: code")
    )
    plain = written(tmp_path, "plain.yaml", POLICY_YAML)
    other = written(tmp_path, "other.yaml", OTHERS["order"])
    code, out = run(tmp_path, builder, "policy", "diff", safe, worse, "--log", "LOG", "--markdown")

    assert code == 1
    assert "**A safety decision flips.**" in out
    assert run(tmp_path, builder, "policy", "diff", plain, other, "--log", "LOG")[0] == 0
    assert run(tmp_path, builder, "policy", "diff", safe, safe, "--log", "LOG", "--json")[0] == 0


def test_an_empty_log_is_not_enough(tmp_path: Path) -> None:
    """There is nothing to compare: exit 4; a policy that cannot be read exits 2."""
    policy = written(tmp_path, "p.yaml", POLICY_YAML)
    empty = LogBuilder()

    assert run(tmp_path, empty, "replay", "decide", "--log", "LOG", "--policy", policy)[0] == 4
    assert run(tmp_path, empty, "replay", "decide", "--log", "LOG", "--policy", "no.yaml")[0] == 2


def test_the_mark_of_safety_leaves_other_hashes_as_they_were() -> None:
    """It is part of the normal form only where it is set."""
    assert '"safety"' not in of(POLICY_YAML).normal_form
    assert of(SAFE).hash != of(POLICY_YAML).hash
    assert of(SAFE.replace("true", "false")).hash == of(POLICY_YAML).hash
