"""``policy eval``, ``policy explain``, ``policy diff`` and ``bench policy`` on files."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

import signalbox

CONFIG = """
version: v0.3
providers:
  defaults: {default_model: small}
  models:
    - {name: small, backend_refs: [{name: north}]}
    - {name: large, backend_refs: [{name: north}]}
routing:
  signals:
    keywords: [{name: urgent, operator: OR, keywords: [urgent]}]
    jailbreak: [{name: strict, threshold: 0.5}]
    structure: [{name: ask, feature: {type: exists, source: {type: regex, pattern: '[?]'}}}]
  projections:
    scores: [{name: s, method: weighted_sum, inputs: [{type: keyword, name: urgent, weight: 0.8}]}]
    mappings: [{name: m, source: s, method: threshold_bands, outputs: [{name: pressing, gte: 0.5}]}]
  decisions:
    - name: guard
      priority: 9
      rules: {type: jailbreak, name: strict, on_unknown: fail_request}
      modelRefs: [{model: small}]
    - name: quick
      priority: 5
      rules:
        operator: AND
        conditions:
          - {type: projection, name: pressing}
          - {operator: NOT, conditions: [{type: structure, name: ask}]}
      modelRefs: [{model: large}, {model: small}]
recipes:
  - {name: lab, routing: {decisions: [{name: all, modelRefs: [{model: large}]}]}}
"""


def command(*words: str) -> Result:
    """Return what came of a command line."""
    return CliRunner().invoke(signalbox.app, list(words))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return the file of a small policy."""
    path = tmp_path / "policy.yaml"
    path.write_text(CONFIG)
    return path


def vectors(folder: Path, *entries: Any) -> str:
    """Return the path of a file with *entries*."""
    path = folder / "signals.json"
    path.write_bytes(orjson.dumps(list(entries)))
    return str(path)


def test_eval_prints_an_object_for_each_vector(config: Path, tmp_path: Path) -> None:
    """Decision, confidence, models, matched rules, trace and strategy, as the contract names them."""
    signals = vectors(
        tmp_path,
        {"id": "a", "signals": {"keyword:urgent": {"matched": True}}},
        {"id": "b", "signals": {}},
        {"id": "c", "recipe": "lab", "signals": {}},
    )
    result = command("policy", "eval", str(config), "--signals", signals, "--json")
    quick, nothing, lab = orjson.loads(result.stdout)

    assert result.exit_code == 0
    assert set(quick) == {"id", "decision", "confidence", "models", "matched_rules", "trace", "strategy"}
    assert (quick["decision"], quick["models"]) == ("quick", ["large", "small"])
    assert quick["matched_rules"] == ["projection:pressing"]
    assert [child["k"] for child in quick["trace"]["ch"]] == ["leaf", "NOT"]
    assert (nothing["decision"], nothing["models"]) == (None, ["small"])
    assert (lab["decision"], lab["confidence"], lab["trace"]["k"]) == ("all", 0.0, "fallback")


def test_the_root_is_the_recipe_default(config: Path, tmp_path: Path) -> None:
    """A vector may name it so; a name that no recipe has is refused, and signals that are no object."""
    vector = {"id": "a", "signals": {"keyword:urgent": {"matched": True}}}
    signals = vectors(tmp_path, {**vector, "recipe": "default"})
    (answer,) = orjson.loads(command("policy", "eval", str(config), "--signals", signals, "--json").stdout)

    assert answer["decision"] == "quick"
    for wrong in ({**vector, "recipe": "lob"}, {"id": "a", "signals": []}):
        signals = vectors(tmp_path, wrong)
        assert command("policy", "eval", str(config), "--signals", signals, "--json").exit_code == 2


def test_a_signal_with_an_error_is_unknown(config: Path, tmp_path: Path) -> None:
    """A rule that says fail_request then fails the request, and the answer says by which leaf."""
    signals = vectors(
        tmp_path, {"id": "a", "signals": {"jailbreak:strict": {"matched": False, "error": "down"}}}
    )
    (answer,) = orjson.loads(command("policy", "eval", str(config), "--signals", signals, "--json").stdout)

    assert (answer["decision"], answer["models"]) == (None, [])
    assert answer["failed"] == "signal_unknown:jailbreak:strict"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"id": 1, "signals": {"keyword": {"matched": True}}}, "type:name"),
        ({"id": 1, "signals": {"keyword:a": {"matched": 1}}}, "true or false"),
        ({"id": 1, "signals": {"keyword:a": {"confidence": "high"}}}, "finite number"),
        ({"id": 1, "signals": {"keyword:a": {"score": 1}}}, "unknown key 'score'"),
        ({"id": 1, "recipe": "none", "signals": {}}, "no recipe 'none'; recipes: lab"),
        (7, "a list of objects"),
    ],
)
def test_what_is_no_vector_is_refused_with_its_place(
    config: Path, tmp_path: Path, entry: Any, message: str
) -> None:
    """Usage errors exit with 2 and say what to change."""
    result = command("policy", "eval", str(config), "--signals", vectors(tmp_path, entry), "--json")

    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_eval_takes_golden_cases(tmp_path: Path) -> None:
    """One object a line, in the order of the cases."""
    cases, policies = tmp_path / "c.jsonl.gz", tmp_path / "p.jsonl.gz"
    case = {"id": "x", "policy": "p", "signals": {"matches": {"keyword": ["urgent"]}}}
    cases.write_bytes(gzip.compress(orjson.dumps(case)))
    policies.write_bytes(gzip.compress(orjson.dumps({"policy": "p", "yaml": CONFIG})))
    result = command("policy", "eval", "--cases", str(cases), "--policies", str(policies), "--json")

    assert result.exit_code == 0
    assert [orjson.loads(line)["decision"] for line in result.stdout.splitlines()] == ["quick"]


def test_eval_answers_all_that_the_original_answered() -> None:
    """The shipped cases go through the command itself, whatever their files leave out besides rules."""
    folder = Path(__file__).parents[1] / "contracts" / "golden_policy"
    cases, policies = folder / "decide_cases.jsonl.gz", folder / "decide_policies.jsonl.gz"
    result = command("policy", "eval", "--cases", str(cases), "--policies", str(policies), "--json")
    expected = [orjson.loads(line) for line in gzip.decompress(cases.read_bytes()).splitlines()]
    answers = [orjson.loads(line) for line in result.stdout.splitlines()]

    assert result.exit_code == 0
    assert [(a["id"], a["decision"]) for a in answers] == [
        (e["id"], e["expected"]["decision"]) for e in expected
    ]


def test_explain_tells_every_decision_of_a_request(config: Path, tmp_path: Path) -> None:
    """Heuristics are computed; what needs a classifier is unknown."""
    request = tmp_path / "request.json"
    request.write_bytes(orjson.dumps({"text": "urgent matter"}))
    config.write_text(CONFIG.replace(", on_unknown: fail_request", ""))
    (answer,) = orjson.loads(
        command("policy", "explain", str(config), "--request", str(request), "--json").stdout
    )
    drawn = command("policy", "explain", str(config), "--request", str(request))

    assert answer["decision"] == "quick"
    assert answer["decisions"][0]["tree"]["unknown"] is True
    assert answer["projection"]["scores"] == {"s": 0.8}
    assert "won: quick" in drawn.stdout
    assert "? jailbreak:strict" in drawn.stdout


def test_diff_tells_what_changed(config: Path, tmp_path: Path) -> None:
    """Decisions, their rules and models, by name; exits 1 because something did."""
    other = tmp_path / "other.yaml"
    other.write_text(CONFIG.replace("priority: 5", "priority: 6").replace("name: guard", "name: shield"))
    result = command("policy", "diff", str(config), str(other), "--json")
    decisions = orjson.loads(result.stdout)["recipes"][""]["decisions"]

    assert result.exit_code == 1
    assert (decisions["added"], decisions["removed"]) == (["shield"], ["guard"])
    assert decisions["changed"] == {"quick": {"priority": {"from": 5, "to": 6}}}
    assert "decision quick: priority changed" in command("policy", "diff", str(config), str(other)).stdout


def test_diff_of_a_policy_with_itself_is_nothing(config: Path) -> None:
    """The same policy exits 0."""
    result = command("policy", "diff", str(config), str(config))

    assert (result.exit_code, result.stdout.startswith("the same policy")) == (0, True)


def test_bench_policy_measures_the_shipped_case_and_files(config: Path, tmp_path: Path) -> None:
    """Both numbers of the contract are there and positive."""
    signals = vectors(tmp_path, {"id": "a", "signals": {"keyword:urgent": {"matched": True}}})
    shipped = orjson.loads(command("bench", "policy", "--rows", "2000", "--json").stdout)
    given = orjson.loads(
        command(
            "bench", "policy", "--config", str(config), "--signals", signals, "--rows", "500", "--json"
        ).stdout
    )

    assert (shipped["decisions"], given["decisions"]) == (10, 2)
    assert min(found[key] for found in (shipped, given) for key in ("scalar_us", "columnar_per_s")) > 0


def test_the_fuzzy_strategy_decides_by_degrees(config: Path, tmp_path: Path) -> None:
    """A match of low confidence is less than half true, so its negation holds; AND is its least condition."""
    config.write_text(CONFIG.replace("routing:\n  signals", "routing:\n  strategy: fuzzy\n  signals", 1))
    sure = {"keyword:urgent": {"matched": True}, "structure:ask": {"matched": True, "confidence": 0.3}}
    unsure = {**sure, "structure:ask": {"matched": True, "confidence": 0.6}}
    signals = vectors(tmp_path, {"id": "a", "signals": sure}, {"id": "b", "signals": unsure})
    first, second = orjson.loads(
        command("policy", "eval", str(config), "--signals", signals, "--json").stdout
    )

    assert (first["decision"], first["confidence"], first["strategy"]) == ("quick", 0.7, "fuzzy")
    assert second["decision"] is None
