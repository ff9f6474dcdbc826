"""What the original decided for invented signals is what both evaluators decide, to the last condition."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agents.engine.columnar import Columnar
from agents.engine.reading import ruleset_of, top_k_of
from agents.engine.scalar import OK, Evaluator
from agents.engine.stages import Vector
from replay.vectors import of_case, tree_of
from tests.agents.engine.worlds import column

FOLDER = Path(__file__).parent / "golden_policy"
CLOSE = 1e-9


def _lines(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(FOLDER / name, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


@pytest.fixture(scope="module")
def evaluators() -> dict[str, Evaluator]:
    """Return an evaluator of each golden policy."""
    found = {}
    for line in _lines("decide_policies.jsonl.gz"):
        document = yaml.load(line["yaml"], Loader=yaml.CSafeLoader)
        catalog = (document.get("global") or {}).get("model_catalog") or {}
        found[line["policy"]] = Evaluator(ruleset_of(document["routing"], top_k_of(catalog)))
    return found


def _close(ours: object, theirs: object) -> bool:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(_close(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(_close, ours, theirs))
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return abs(ours - theirs) <= CLOSE
    return ours == theirs


def _answer(evaluator: Evaluator, signals: dict[str, Any]) -> tuple[dict[str, Any], Vector]:
    """Return what the engine has to say about *signals*, in the words of the cases."""
    vector = evaluator.vector([of_case(signals)], absent=OK)
    chosen = evaluator.choose(vector)
    rules = evaluator.ruleset.rules
    verdicts = [evaluator.explain(vector, number) for number in range(len(rules))]
    answer: dict[str, Any] = {
        "decision": rules[chosen.rule].name if chosen.rule >= 0 else None,
        "decisions": [
            {"name": rule.name, "matched": v.matched, "confidence": v.confidence, "tree": tree_of(v)}
            for rule, v in zip(rules, verdicts, strict=True)
        ],
        "scores": dict(evaluator.scores(vector)),
        "outputs": list(evaluator.outputs(vector)),
    }
    if chosen.rule >= 0:
        answer |= {"confidence": chosen.confidence, "matched_rules": list(verdicts[chosen.rule].rules)}
    return answer, vector


def _expected(expected: dict[str, Any]) -> dict[str, Any]:
    projection = expected.get("projection") or {}
    kept: dict[str, Any] = {key: expected[key] for key in ("decision", "decisions") if key in expected}
    if expected["decision"] is not None:
        kept |= {"confidence": expected["confidence"], "matched_rules": expected["matched_rules"]}
    return kept | {"scores": projection.get("scores") or {}, "outputs": projection.get("outputs") or []}


def test_every_golden_case_is_decided_as_the_original_decides(evaluators: dict[str, Evaluator]) -> None:
    """Winner, confidence, matched rules in order, every tree, scores and projections agree in each case."""
    differing, cases = [], 0
    for case in _lines("decide_cases.jsonl.gz"):
        cases += 1
        answer, _ = _answer(evaluators[case["policy"]], case["signals"])
        if not _close(answer, _expected(case["expected"])):
            differing.append(case["id"])

    assert (cases, differing) == (3000, [])


def test_the_engine_sees_the_derived_state_that_the_original_saw(evaluators: dict[str, Evaluator]) -> None:
    """After the derived stages every signal that the policy reads is what it was there."""
    differing = []
    for case in _lines("decide_cases.jsonl.gz"):
        evaluator, expected = evaluators[case["policy"]], case["expected"]
        _, vector = _answer(evaluator, case["signals"])
        keys = evaluator.slots.keys
        matches = {f"{kind}:{name}" for kind, names in expected["derived_matches"].items() for name in names}
        ours = {key for key, matched in zip(keys, vector.matched, strict=True) if matched}
        numbers = {k: c for k, c in zip(keys, vector.confidence, strict=True) if c == c}  # noqa: PLR0124 - not NaN
        theirs = {k: c for k, c in expected["derived_confidences"].items() if k in evaluator.slots.index}
        if ours != matches & set(keys) or not _close(numbers, theirs):
            differing.append(case["id"])

    assert differing == []


def test_the_columnar_evaluator_decides_every_golden_case_alike(evaluators: dict[str, Evaluator]) -> None:
    """Winners and confidences are equal to the scalar evaluator's, bit for bit."""
    by_policy: dict[str, list[dict[str, Any]]] = {}
    for case in _lines("decide_cases.jsonl.gz"):
        by_policy.setdefault(case["policy"], []).append(case)
    differing = []
    for name, cases in by_policy.items():
        evaluator = evaluators[name]
        columnar = Columnar(evaluator.ruleset)
        rows = [of_case(case["signals"]) for case in cases]
        decided = columnar.decide(column(rows), absent_is_unknown=False)
        for number, (case, row) in enumerate(zip(cases, rows, strict=True)):
            chosen = evaluator.choose(evaluator.vector([row], absent=OK))
            winner, confidence = int(decided.winner[number]), float(decided.confidence[number])
            if winner != chosen.rule or confidence.hex() != chosen.confidence.hex():
                differing.append(case["id"])

    assert differing == []


def test_a_planted_defect_is_seen(evaluators: dict[str, Evaluator]) -> None:
    """An evaluator that is told of a signal that did not match disagrees with some case."""
    seen = 0
    for case in itertools.islice(_lines("decide_cases.jsonl.gz"), 300):
        signals = case["signals"] | {"matches": {}}
        answer, _ = _answer(evaluators[case["policy"]], signals)
        seen += not _close(answer, _expected(case["expected"]))

    assert seen > 100
