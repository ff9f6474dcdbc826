"""3,000 invented requests and what the original published for them, its unstable answers left out."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from typer.testing import CliRunner

import signalbox

GOLDEN = Path(__file__).parent / "golden_policy"
EXACT = ("structure", "conversation", "event", "metadata", "authz", "context")
Case = tuple[dict[str, Any], dict[str, Any]]


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Iterate over the JSON lines of *path*, gzipped or not."""
    raw = path.read_bytes()
    text = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    return map(orjson.loads, text.splitlines())


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """Return (case, what the command wrote for it)."""
    out = tmp_path_factory.mktemp("signals") / "out.jsonl"
    source, policies = GOLDEN / "signals_cases.jsonl.gz", GOLDEN / "signals_policies.jsonl.gz"
    options = ["--cases", str(source), "--policies", str(policies), "--out", str(out), "--only", "heuristic"]
    result = CliRunner().invoke(signalbox.app, ["signals", "run", *options])

    assert result.exit_code == 0, result.output
    return list(zip(lines(source), lines(out), strict=True))


def evaluated(cases: list[Case]) -> Iterator[Case]:
    """Iterate over (what the original published, what we wrote) where it routed the request."""
    for case, written in cases:
        if "matches" in case["expected"]:
            yield case["expected"] | {"unstable": case.get("unstable", ())}, written


def test_every_request_gets_the_status_of_the_original(cases: list[Case]) -> None:
    """400 for a bad model or metadata, 403 where roles matter and nobody says who asks, else none."""
    wrong = [
        c["id"]
        for c, w in cases
        if w["id"] != c["id"] or w.get("http_status") != c["expected"].get("http_status")
    ]

    assert wrong == []
    assert sum("http_status" in written for _, written in cases) > 100


@pytest.mark.parametrize("kind", EXACT)
def test_what_has_one_answer_is_answered_so(cases: list[Case], kind: str) -> None:
    """These types match the same rules in the same order in every case."""
    pairs = [(e["matches"].get(kind), w["matches"].get(kind)) for e, w in evaluated(cases)]

    assert [pair for pair in pairs if pair[0] != pair[1]] == []
    assert sum(pair[0] is not None for pair in pairs) > 100


def test_confidences_values_and_tokens_are_those_of_the_original(cases: list[Case]) -> None:
    """Numbers are equal to 1e-9 and under the same keys; token floors to the token."""
    for expected, written in evaluated(cases):
        assert written["token_count"] == expected["token_count"]
        for kind in ("confidences", "values"):
            assert written[kind] == pytest.approx(expected[kind], abs=1e-9), written["id"]


def test_keywords_match_as_in_the_original(cases: list[Case]) -> None:
    """Literal, regex and fuzzy rules agree in every case, BM25 and n-gram rules in 98 of 100."""
    rules = {}
    for line in lines(GOLDEN / "signals_policies.jsonl.gz"):
        rules[line["policy"]] = yaml.safe_load(line["yaml"])["routing"]["signals"].get("keywords", ())
    wrong: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for case, written in cases:
        expected = case["expected"].get("matches", {}).get("keyword")
        for rule in rules[case["policy"]] if expected is not None else ():
            method = (rule.get("method") or "literal").lower()
            total[method] += 1
            wrong[method] += (rule["name"] in expected) != (rule["name"] in written["matches"]["keyword"])

    assert (wrong["literal"], wrong["regex"]) == (0, 0)
    assert min(total.values()) > 1000
    assert all(wrong[method] <= 0.02 * total[method] for method in ("bm25", "ngram"))


def test_languages_agree_in_95_of_100_requests(cases: list[Case]) -> None:
    """The detector is another one; labels and thresholds are the original's."""
    pairs = [
        (expected["matches"].get("language"), written["matches"].get("language"))
        for expected, written in evaluated(cases)
        if "language_default_threshold" in expected and "matches" not in expected["unstable"]
    ]

    assert sum(a != b for a, b in pairs) <= 0.05 * len(pairs)


def test_decisions_follow(cases: list[Case]) -> None:
    """Where the languages agree the winner and the projections are the original's."""
    for expected, written in evaluated(cases):
        if expected["matches"].get("language") == written["matches"].get("language"):
            assert written["decision"] == expected["decision"], written["id"]
            assert written["matches"].get("projection") == expected["matches"].get("projection")
