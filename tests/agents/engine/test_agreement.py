"""Three ways to one decision: the generated function, the arrays, and a reference that shares no code."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pytest

from agents.engine.block import FLAGS
from agents.engine.columnar import Columnar, Decided, Won
from agents.engine.exponential import exp
from agents.engine.reading import ruleset_of, top_k_of
from agents.engine.scalar import OK, Evaluator
from agents.engine.tracing import SignalUnknown
from replay.vectors import of_case, tree_of
from schemas.signal import Observations
from tests.agents.engine import reference
from tests.agents.engine.worlds import World, column, lists, of_matches, world

WORLDS, REQUESTS = 120, 8
"""What one run of the suite compares; `python -m tests.agents.engine.test_agreement` takes other numbers."""


@dataclass(frozen=True)
class Outcome:
    """A decision in comparable form; `failed` is set where a rule failed the request."""

    winner: str | None
    confidence: str
    rules: tuple[str, ...] = ()
    trees: tuple[Any, ...] = ()
    failed: bool = False


FAILED = Outcome(None, "", failed=True)


def by_reference(config: dict[str, Any], signals: dict[str, Any], *, fuzzy: bool) -> Outcome:
    """Return what the reference decides."""
    try:
        decision, node, nodes, _ = reference.decide(config, signals, exp)
    except reference.Refused:
        return FAILED
    trees = () if fuzzy else tuple(n.tree for n in nodes)
    if decision is None or node is None:
        return Outcome(None, (0.0).hex(), trees=trees)
    rules = () if fuzzy else tuple(node.rules)
    return Outcome(decision["name"], float(node.confidence).hex(), rules, trees)


def by_scalar(evaluator: Evaluator, row: Observations, *, fuzzy: bool) -> Outcome:
    """Return what the scalar evaluator decides, its trees told by the tracer."""
    vector = evaluator.vector([row], absent=OK)
    try:
        chosen = evaluator.choose(vector)
    except SignalUnknown:
        return FAILED
    verdicts = [evaluator.explain(vector, number) for number in range(len(evaluator.ruleset.rules))]
    trees = () if fuzzy else tuple(tree_of(verdict) for verdict in verdicts)
    if chosen.rule < 0:
        assert not any(verdict.matched for verdict in verdicts)
        return Outcome(None, chosen.confidence.hex(), trees=trees)
    won = verdicts[chosen.rule]
    assert (won.matched, won.confidence.hex()) == (True, chosen.confidence.hex())
    rules = () if fuzzy else won.rules
    return Outcome(evaluator.ruleset.rules[chosen.rule].name, chosen.confidence.hex(), rules, trees)


def winner_of(columnar: Columnar, won: Won, row: int) -> Outcome:
    """Return who won *row* as `Columnar.winners` has it, which knows of no confidence."""
    if won.failed[row] >= 0:
        return FAILED
    winner = int(won.winner[row])
    return Outcome(None if winner < 0 else columnar.ruleset.rules[winner].name, "")


def needed(rows: list[Observations], fields: Collection[str]) -> pa.Array:
    """Return the column of *rows* with *fields* alone."""
    whole = lists(rows)
    return pa.StructArray.from_arrays([whole.field(name) for name in fields], names=list(fields))


def of_columnar(columnar: Columnar, decided: Decided, row: int) -> Outcome:
    """Return what the columnar evaluator decided for *row*."""
    if decided.failed[row] >= 0:
        return FAILED
    winner = int(decided.winner[row])
    name = None if winner < 0 else columnar.ruleset.rules[winner].name
    return Outcome(name, float(decided.confidence[row]).hex())


def labelled(seen: Observations) -> Observations:
    """Return *seen* with the levels and labels that are part of a name as labels, as they are logged."""
    rows = []
    for row in seen:
        name, _, label = row.name.partition(":")
        split = label and row.type in {"complexity", "classifier"}
        rows.append(row._replace(name=name, label=label) if split else row)
    return Observations.of(rows)


def disagreements(given: World) -> list[tuple[int, str, Outcome, Outcome]]:
    """Return where the three disagree over *given*: request, who, the reference's outcome and theirs."""
    catalog = given.config.get("global", {}).get("model_catalog") or {}
    evaluator = Evaluator(ruleset_of(given.config["routing"], top_k_of(catalog)))
    columnar = Columnar(evaluator.ruleset)
    fuzzy = evaluator.ruleset.strategy == "fuzzy"
    rows = [
        labelled(of_case(signals)) if number % 2 else of_case(signals)
        for number, signals in enumerate(given.signals)
    ]
    together = columnar.decide(column(rows), absent_is_unknown=False)
    # The same row over and over takes the way through `_uniform`.
    alone = [columnar.decide(lists([row, row]), absent_is_unknown=False) for row in rows]
    won = columnar.winners(needed(rows, columnar.fields), absent_is_unknown=False)
    won_alone = [columnar.winners(lists([row, row]), absent_is_unknown=False) for row in rows]
    found = []
    for number, (signals, row) in enumerate(zip(given.signals, rows, strict=True)):
        expected = by_reference(given.config, signals, fuzzy=fuzzy)
        scalar = by_scalar(evaluator, row, fuzzy=fuzzy)
        if scalar != expected:
            found.append((number, "scalar", expected, scalar))
        short = Outcome(expected.winner, expected.confidence, failed=expected.failed)
        for who, outcome in (
            ("columnar", of_columnar(columnar, together, number)),
            ("columnar, uniform", of_columnar(columnar, alone[number], 1)),
        ):
            if outcome != short:
                found.append((number, who, short, outcome))
        short = replace(short, confidence="")
        for who, outcome in (
            ("winner", winner_of(columnar, won, number)),
            ("winner, uniform", winner_of(columnar, won_alone[number], 1)),
        ):
            if outcome != short:
                found.append((number, who, short, outcome))
    return found


@pytest.mark.parametrize("part", range(5))
def test_scalar_columnar_and_reference_agree_on_random_policies_and_signals(part: int) -> None:
    """Winner, confidence to the last bit, matched rules and every tree are the same in all three."""
    size = WORLDS // 5
    seeds = range(part * size, (part + 1) * size)

    assert {seed: found for seed in seeds if (found := disagreements(world(seed, REQUESTS)))} == {}


@pytest.mark.parametrize("part", range(2))
def test_who_wins_by_matches_alone_is_who_wins(part: int) -> None:
    """Policies that no number decides are decided without any as they are with all of them."""
    size = WORLDS // 2
    given = {seed: of_matches(world(seed, REQUESTS)) for seed in range(part * size, (part + 1) * size)}
    rulesets = [ruleset_of(each.config["routing"], top_k=0) for each in given.values()]

    assert all(Columnar(ruleset).fields == FLAGS for ruleset in rulesets)
    assert any(ruleset.tiered for ruleset in rulesets)
    assert any(Columnar(ruleset).failures for ruleset in rulesets)
    assert {seed: found for seed, each in given.items() if (found := disagreements(each))} == {}


def main(worlds: int, requests: int, first: int) -> int:
    """Compare *worlds* from seed *first* on, say how many vectors agreed, and return the exit code."""
    compared = decided = failed = 0
    for seed in range(first, first + worlds):
        given = world(seed, requests)
        for number, who, expected, got in [*disagreements(given), *disagreements(of_matches(given))][:1]:
            sys.stdout.write(f"seed {seed}, request {number}, {who}: expected {expected}, got {got}\n")
            return 1
        compared += requests
        catalog = given.config.get("global", {}).get("model_catalog") or {}
        columnar = Columnar(ruleset_of(given.config["routing"], top_k_of(catalog)))
        outcome = columnar.decide(column([of_case(s) for s in given.signals]), absent_is_unknown=False)
        failed += int((outcome.failed >= 0).sum())
        decided += int(((outcome.winner >= 0) & (outcome.failed < 0)).sum())
    sys.stdout.write(
        f"{compared} vectors over {worlds} policies: scalar, columnar and reference agree on all; "
        f"{decided} decided, {failed} failed by fail_request, {compared - decided - failed} matched nothing\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(*(int(argument) for argument in (*sys.argv[1:], "20000", "5", "0")[:3])))
