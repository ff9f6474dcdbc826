"""Exploring in a log: made again byte for byte, the same for many as for one, and what it cost."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agents.decision import decide, facts_of
from agents.draw import word_of
from agents.exploration import DAY_MS, OPEN, SPENT
from agents.policy import Policy
from replay.archive import Source, archive
from replay.archive_files import Files
from replay.comparison import compare
from replay.comparison_report import report
from replay.decide import decide_again
from replay.logged import ArchivedLog, KeptLog
from replay.view import MemoryLog
from schemas.decision import Decision, DecisionMeta
from signalbox import app
from streams.settings import wall_clock
from tests.replay.logs import POLICY_YAML, LogBuilder
from tests.replay.test_comparison import one_by_one

SECTION = """
exploration:
  max_extra_usd_per_day: 1.0
  decisions:
    code-help: {epsilon: 0.4, candidates: [large, tiny]}
    maths: {epsilon: 0.3, candidates: [large, tiny]}
"""
PRICED = (
    POLICY_YAML.replace("{name: tiny, back", "{name: tiny, pricing: {prompt_per_1m: 9.0}, back") + SECTION
)
OTHERS = {
    "same": PRICED,
    "none": PRICED.split("exploration:")[0],
    "less": PRICED.replace("epsilon: 0.4", "epsilon: 0.1"),
    "salted": PRICED.replace("_day: 1.0", "_day: 1.0\n  salt: pepper"),
    "other weights": PRICED.replace("weight: 3", "weight: 0.5"),
}


class Explorer(LogBuilder):
    """Builds a log whose policy explores; of every five requests, one finds the budget spent."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = of(PRICED)

    def one(self, number: int) -> None:
        """Append line *number* from its request to its decision."""
        request, origin = self.request(number)
        sets, inputs = self.signals(request, origin)
        core = decide(
            self.policy,
            recipe="",
            request_id=request.request_id,
            sets=sets,
            facts=facts_of("auto", SPENT if number % 5 == 0 else OPEN),
        )
        meta = DecisionMeta(tuple(inputs), number, 0)
        self.append("decisions", origin.partition, Decision(request.request_id, origin, core, meta))


def of(text: str) -> Policy:
    """Return the policy in *text* as it is read back."""
    return Policy.loads(Policy.parse(text).normal_form)


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    """A log of 400 requests under a policy that explores."""
    found = Explorer()
    for number in range(400):
        found.one(number)
    return found


@pytest.fixture(scope="module")
def view(explorer: Explorer) -> MemoryLog:
    """The same as replay reads it."""
    return MemoryLog(explorer.envelopes, explorer.policies)


def test_decisions_that_explored_are_made_again(view: MemoryLog) -> None:
    """The facts say whether it could be paid for, so the log alone reproduces every choice."""
    again = decide_again(view, seeds=())
    spent = again.exploration

    assert (again.decisions, again.reproduced, again.changed) == (400, 400, 0)
    assert 250 < spent.open < 320
    assert 0 < spent.moved < spent.explored < spent.open
    assert spent.charged_usd >= spent.extra_usd > 0.0


@pytest.mark.parametrize("name", OTHERS)
def test_many_at_once_explore_as_one_by_one(
    explorer: Explorer, view: MemoryLog, tmp_path: Path, name: str
) -> None:
    """Columns and the evaluator of one request choose the same models, for a log and for its archive."""
    policy = of(OTHERS[name])
    expected = one_by_one(explorer, policy)
    files = Files(str(tmp_path / "archive"))
    archive(Source(view, "c", "signalbox"), files, chunk=90)

    for logged in (KeptLog(view), ArchivedLog(files)):
        found = compare(logged, policy)
        cells = {
            (*dataclasses.astuple(a), *dataclasses.astuple(b)): sums.rows
            for (_, a, b), sums in found.cells.items()
        }
        assert cells == expected
        assert (found.changed == 0) == (name == "same")


def test_what_a_policy_would_explore_is_told(view: MemoryLog) -> None:
    """The expected cost is that of the mixture over the requests that each decision gets."""
    policy = of(PRICED)
    answer = report(compare(KeptLog(view), policy), policy)["exploration"]
    count = {
        row["to"]: row["count"] for row in report(compare(KeptLog(view), policy), policy)["decision_matrix"]
    }
    usd = 9.0 * 1000 / 1e6  # of tiny, by a thousand prompt tokens; the others cost nothing
    code = 0.4 * count["code-help"] * (usd / 2 - usd * 2 / 6)
    maths = 0.3 * count["maths"] * usd / 2

    assert answer["expected_extra_usd"] == pytest.approx(code + maths, abs=1e-9)
    assert answer["expected_explored"] == pytest.approx(0.4 * count["code-help"] + 0.3 * count["maths"])
    assert report(compare(KeptLog(view), of(OTHERS["none"])), of(OTHERS["none"]))["exploration"] is None


def test_what_an_algorithm_that_is_not_here_would_explore_is_nothing(view: MemoryLog) -> None:
    """A comparison tells of the other decisions alone."""
    text = PRICED.replace("type: weighted", "type: automix")
    assert text != PRICED
    policy = of(text)
    found = report(compare(KeptLog(view), policy), policy)
    [maths] = [row["count"] for row in found["decision_matrix"] if row["to"] == "maths"][:1]

    assert list(policy.trials) == [("", "maths")]
    assert found["exploration"]["decisions"] >= maths


RUN = """
providers:
  defaults: {default_model: small}
  models:
    - {name: small, pricing: {prompt_per_1m: 1.0}, backend_refs: [{name: north}]}
    - {name: coder, pricing: {prompt_per_1m: 3.0}, backend_refs: [{name: north}]}
routing:
  signals:
    keywords:
      - {name: code, operator: OR, keywords: [Python]}
      - {name: secret, operator: OR, keywords: [secret]}
  decisions:
    - name: safe
      priority: 3
      safety: true
      rules: {type: keyword, name: secret}
      modelRefs: [{model: small}, {model: coder}]
    - name: code
      priority: 2
      rules: {type: keyword, name: code}
      modelRefs: [{model: small}, {model: coder}]
exploration:
  max_extra_usd_per_day: CAP
  tokens: {prompt: 1000, completion: 0}
  decisions: {code: {epsilon: 0.5, candidates: [small, coder]}}
"""
PROFILE = "providers: {north: {models: {small: {length: {median: 4}}, coder: {length: {median: 4}}}}}"


def run(folder: Path, cap: float, count: int = 240) -> tuple[dict[str, object], list[dict[str, object]]]:
    """Run invented requests under a policy with this *cap*; return what replay says, and the answers."""
    (folder / "policy.yaml").write_text(RUN.replace("CAP", repr(cap)))
    (folder / "profile.yaml").write_text(PROFILE)
    texts = ("Python please", "hello", "a secret in Python")
    lines = [
        {"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions",
         "body": {"messages": [{"role": "user", "content": f"{texts[n % 3]} {word_of(str(n))}"}]}}
        for n in range(count)
    ]  # fmt: skip
    (folder / "in.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    options = {"--out": "out", "--policy": "policy.yaml", "--profile": "profile.yaml", "--keep-log": "log"}
    arguments = [word for key, name in options.items() for word in (key, str(folder / name))]
    done = CliRunner().invoke(app, ["run", str(folder / "in.jsonl"), *arguments])
    assert done.exit_code == 0, done.stderr
    replayed = CliRunner().invoke(app, ["replay", "decide", "--log", str(folder / "log"), "--json"])
    assert replayed.exit_code == 0, replayed.stderr
    answers = [json.loads(row) for row in (folder / "out").read_text().splitlines()]
    return json.loads(replayed.stdout), answers


@pytest.mark.parametrize(("cap", "most"), [(1.0, 80), (0.03, 15), (0.006, 0)])
def test_a_run_that_explores_is_reproduced_and_keeps_its_cap(tmp_path: Path, cap: float, most: int) -> None:
    """From file to replay: safety explores nothing, and each of six partitions spends its share at most."""
    began = wall_clock()
    found, answers = run(tmp_path, cap)
    days = 1 + wall_clock() // (1000 * DAY_MS) - began // (1000 * DAY_MS)
    spent = found["exploration"]
    routed = [(a["signalbox"]["decision"], a["signalbox"]["model"]) for a in answers]  # type: ignore[index]
    moved = routed.count(("code", "coder"))

    assert (found["decisions"], found["reproduced"]) == (240, 240)
    assert spent["charged_usd"] <= days * cap + 1e-12  # type: ignore[index]
    assert moved == spent["moved"] <= days * most  # type: ignore[index]
    assert (moved > 0) == (most > 0)
    assert ("safe", "coder") not in routed
