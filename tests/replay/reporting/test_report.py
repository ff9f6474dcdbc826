"""The report says the verdict first, holds all of its numbers, and needs nothing but itself."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner, Result

import replay.cli
import replay.estimators
import replay.report_cli
from replay.bandit import BanditLog
from replay.estimators import estimator
from replay.evaluation import Method, evaluate
from replay.reporting import figures
from replay.reporting.assembly import Wish, told
from replay.reporting.page import page_of
from replay.reporting.plots import Judged, front_of, reliability_of, weights_of
from replay.reward_model import cross_fitted
from schemas.codec import Codec
from schemas.feedback import Feedback
from tests.replay.bandits import as_table
from tests.replay.logs import POLICY_YAML, START, LogBuilder, kept
from tests.replay.reporting.worlds import NAMES, QUALITY, choices, report_of, table_at

estimator.load(replay.estimators)
APP = typer.Typer()
replay.report_cli.register(replay.cli.register(APP), dict)


def run(*options: object) -> Result:
    """Run the command."""
    return CliRunner().invoke(APP, ["replay", "report", *map(str, options)])


def judged(log: BanditLog, **more: Any) -> Judged:
    """Return *log* with its evaluation."""
    method = Method()
    model = cross_fitted(log, method.model)
    found = evaluate(log, method, model=model)
    return Judged(log, found, method, model, observation_known=True, **more)


class Addresses(HTMLParser):
    """Collects whatever an element would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the addresses of an element."""
        del tag
        self.found += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data"}]


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    """Nothing is fetched: addresses are of the page itself or of no file at all, and no style imports one."""
    text = report_of(tmp_path).read_text(encoding="utf-8")
    found = Addresses()
    found.feed(text)

    assert [address for address in found.found if not address.startswith(("#", "data:,"))] == []
    assert re.findall(r"url\((?!#)|@import|<script(?! type=\"application/json\")", text) == []


def test_the_verdict_comes_before_any_number(tmp_path: Path) -> None:
    """The first thing in the body is the verdict in words."""
    text = report_of(tmp_path).read_text(encoding="utf-8")

    assert text.index("<strong>Better</strong>") < text.index("<h2")
    assert text.index("The target policy is better") < text.index("<h2")


def test_the_numbers_are_in_the_page_and_beside_it(tmp_path: Path) -> None:
    """Both are the same document, and hold every plot's data."""
    page = report_of(tmp_path)
    beside = json.loads(page.with_suffix(".json").read_bytes())
    inside = re.search(r'id="numbers">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)

    assert inside is not None
    assert json.loads(inside[1]) == beside
    assert set(beside["plots"]) == {"front", "forest", "weights", "reliability", "flow"}
    assert {row["name"] for row in beside["plots"]["forest"]} == {name for name, _ in estimator}


def test_a_name_cannot_leave_its_place(tmp_path: Path) -> None:
    """Whoever names a model names it only: no element, no script, no end of the numbers."""
    evil = '</script><script>alert("1")</script><b>$x_1$'
    table = pq.read_table(table_at(tmp_path / "t.parquet", 400))
    names = [name.replace("small", evil) for name in table.column_names]
    action = [evil if name == "small" else name for name in table["action"].to_pylist()]
    table = table.rename_columns(names).set_column(names.index("action"), "action", [action])
    pq.write_table(table, tmp_path / "t.parquet")
    result = run("--table", tmp_path / "t.parquet", "--html", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")

    assert result.exit_code in {0, 4}
    assert evil not in text
    assert len(re.findall("<script", text)) == 1
    assert json.loads((tmp_path / "r.json").read_bytes())["plots"]["flow"][0]["from"] in {evil, *NAMES}


def test_one_model_for_all_is_estimated_near_its_truth() -> None:
    """The single models' values are those of the world, and the best of them is named."""
    log, cost, _ = choices(6000)
    found = front_of(judged(log, cost=cost))
    points = {point["name"]: point for point in found["points"]}
    easy = 1.0 - log.features[:, 0].mean()

    for number, name in enumerate(NAMES):
        truth = easy * QUALITY[0][number] + (1.0 - easy) * QUALITY[1][number]
        half = (points[name]["high"] - points[name]["low"]) / 2
        assert abs(points[name]["quality"] - truth) < 2 * half
        assert points[name]["cost"] == pytest.approx(cost[log.taken == number].mean())
    assert found["best_single"] == "large"
    assert found["cost_known"]
    assert found["oracle"] is None
    assert "unknown" in found["oracle_note"]


def test_the_oracle_is_known_where_every_answer_is() -> None:
    """With full feedback single models and the oracle are exact."""
    log, _, outcomes = choices(2000)
    found = front_of(judged(log, outcomes=outcomes))
    points = {point["name"]: point for point in found["points"]}

    assert found["oracle"] == pytest.approx(outcomes.max(axis=1).mean())
    assert points["large"]["quality"] == pytest.approx(outcomes[:, 1].mean())
    assert found["oracle"] >= points["large"]["quality"]


def test_costs_and_every_outcome_come_from_the_table(tmp_path: Path) -> None:
    """With a column of costs the front has two axes; with every model's outcome it has the oracle."""
    result = run(
        "--table", table_at(tmp_path / "t.parquet", 1500, full=True), "--html", tmp_path / "r.html", "--json"
    )
    told = json.loads(result.stdout)
    found = told["plots"]["front"]
    _, _, outcomes = choices(1500)

    assert found["cost_known"]
    assert found["oracle"] == pytest.approx(outcomes.max(axis=1).mean())
    assert found["best_single"] == "large"
    assert told["cost"]["estimate"]["difference"]["dr"]["value"] > 0
    assert "It would be higher" in (tmp_path / "r.html").read_text()


def test_feedback_in_a_log_makes_a_verdict(tmp_path: Path) -> None:
    """A log whose requests were rated needs no table."""
    builder = LogBuilder()
    for number in range(60):
        request, decision = builder.answered(number)
        rating = Feedback(request.request_id, "users", "thumbs", float(number % 2), 1.0, START + number)
        builder.append("feedback", decision.origin.partition, rating, request.request_id)
    kept(str(tmp_path / "log"), builder.envelopes, builder.policies)
    (tmp_path / "policy.yaml").write_text(POLICY_YAML)
    result = run(
        "--log",
        tmp_path / "log",
        "--policy",
        tmp_path / "policy.yaml",
        "--html",
        tmp_path / "r.html",
        "--json",
    )
    told = json.loads(result.stdout)

    assert result.exit_code == 4
    assert told["quality"]["n"] == 60
    assert told["quality"]["log"]["rated"] == 60
    assert told["reproduction"]["reproduced"] == 60
    assert told["verdict"]["word"] == "not_enough_evidence"


def test_a_wrong_propensity_lies_off_the_diagonal() -> None:
    """Stated propensities agree with how often they were taken, and planted ones do not."""
    log, _, _ = choices(6000)
    assert log.logged is not None
    right = reliability_of(judged(log))["propensities"]
    lied = np.tile([0.4, 0.5, 0.1], (log.n, 1))
    wrong = reliability_of(
        replace(judged(log), log=replace(log, logged=lied, propensity=lied[np.arange(log.n), log.taken]))
    )["propensities"]

    assert [row["action"] for row in right] == list(NAMES)
    assert [row["predicted"] for row in right] == pytest.approx([0.6, 0.3, 0.1])
    assert max(abs(row["observed"] - row["predicted"]) / row["half"] for row in right) < 3
    assert max(abs(row["observed"] - row["predicted"]) / row["half"] for row in wrong) > 10


def test_uniform_propensities_that_were_not_followed_lie_off_the_diagonal() -> None:
    """They agree with what was taken on average over the models, and with no single model."""
    log, _, _ = choices(3000)
    uniform = np.full((log.n, 3), 1 / 3)
    stated = replace(log, logged=uniform, propensity=np.full(log.n, 1 / 3))
    followed = replace(stated, taken=np.random.default_rng(5).integers(0, 3, log.n))
    wrong, right = (
        reliability_of(replace(judged(log), log=each))["propensities"] for each in (stated, followed)
    )

    assert (
        min(
            abs(row["observed"] - row["predicted"]) / row["half"] for row in wrong if row["action"] != "large"
        )
        > 5
    )
    assert max(abs(row["observed"] - row["predicted"]) / row["half"] for row in right) < 3


def test_a_model_that_was_never_taken_is_judged_by_what_was_stated() -> None:
    """Nothing taken of what should rarely be is chance; of what should often be, it is not."""
    log, _, _ = choices(400)
    none = replace(log, taken=np.zeros(log.n, dtype=np.int64))
    for stated, off in (([0.998, 0.001, 0.001], False), ([0.5, 0.4, 0.1], True)):
        lied = np.tile(stated, (log.n, 1))
        rows = reliability_of(replace(judged(log), log=replace(none, logged=lied)))["propensities"]

        assert [abs(row["observed"] - row["predicted"]) > 3 * row["half"] for row in rows] == [off] * 3


def test_the_tail_of_the_weights_is_their_distribution() -> None:
    """Each point says which share of rows weighs at least so much."""
    log, _, _ = choices(500)
    found = weights_of(log)

    for weight, share in found["tail"]:
        assert (log.weight >= weight - 1e-12).mean() >= share - 1e-12
    assert found["largest"] == pytest.approx(log.weight.max())


def test_every_plot_is_drawn_in_the_pages_own_ink() -> None:
    """No text or axis has a fixed colour, and no id is used twice in a page."""
    log, cost, _ = choices(400)
    found = front_of(judged(log, cost=cost))
    one = figures.front(found)
    other = figures.weights(weights_of(log))
    ids = re.findall(r'\bid="([^"]+)"', one + other)

    assert "currentColor" in one
    assert "#010203" not in one
    assert "#000000" not in one
    assert len(ids) == len(set(ids))


def test_the_front_is_what_no_other_point_beats() -> None:
    """Dearer and no better is not on it."""
    points = [{"cost": c, "quality": q} for c, q in ((1.0, 0.5), (2.0, 0.4), (3.0, 0.9), (3.0, 0.8))]

    assert figures.best_of(points) == [points[0], points[2]]


def logged(folder: Path, *, forged: bool = False, bare: bool = False) -> tuple[Path, Path]:
    """Keep a log and a policy to compare with below *folder*.

    *forged* changes a decision of it, *bare* leaves out the policies that it was made with.
    """
    builder = LogBuilder()
    for number in range(40):
        builder.decided(number)
    envelopes = builder.envelopes
    if forged:
        codec = Codec()
        at = next(i for i, each in enumerate(envelopes) if each.topic == "decisions")
        decision = codec.decode(envelopes[at].value)
        changed = replace(decision, core=replace(decision.core, chosen="tiny"))
        envelopes = [
            replace(e, value=codec.encode(changed)) if i == at else e for i, e in enumerate(envelopes)
        ]
    kept(str(folder / "log"), envelopes, {} if bare else builder.policies)
    policy = folder / "policy.yaml"
    marked = POLICY_YAML.replace("priority: 10", "priority: 30\n      safety: true")
    policy.write_text(marked)
    return folder / "log", policy


def test_a_log_and_a_policy_tell_what_would_change(tmp_path: Path) -> None:
    """Without rewards nothing is judged, and everything else of the template is there."""
    log, policy = logged(tmp_path)
    result = run("--log", log, "--policy", policy, "--html", tmp_path / "r.html", "--json")
    told = json.loads(result.stdout)

    assert result.exit_code == 0
    assert told["verdict"]["word"] == "not_judged"
    assert told["reproduction"]["reproduced"] == told["reproduction"]["decisions"] == 40
    assert told["disagreement"]["changed"] > 0
    assert sum(row["count"] for row in told["plots"]["flow"]) == 40
    assert "safety" in told["verdict"]["warnings"][0]
    assert told["identity"]["offsets"]
    assert "Safety decisions that flip" in (tmp_path / "r.html").read_text()


def test_signals_that_the_log_lacks_are_told_first(tmp_path: Path) -> None:
    """What would change is not known where a signal is, so the page begins with that and the exit is 4."""
    log, policy = logged(tmp_path)
    policy.write_text(policy.read_text().replace("name: urgent", "name: brandnew"))
    result = run("--log", log, "--policy", policy, "--html", tmp_path / "r.html", "--json")

    assert result.exit_code == 4
    assert json.loads(result.stdout)["verdict"]["warnings"][0].startswith("100.0% of decisions need signals")


def test_a_log_that_is_not_reproduced_stops_the_reader(tmp_path: Path) -> None:
    """The first warning says that what follows cannot be relied on, and the exit is 1."""
    log, policy = logged(tmp_path, forged=True)
    result = run("--log", log, "--policy", policy, "--html", tmp_path / "r.html", "--json")

    assert result.exit_code == 1
    assert json.loads(result.stdout)["verdict"]["warnings"][0].startswith("Stop: only 39 of 40")
    assert "Stop: only 39 of 40" in (tmp_path / "r.html").read_text()


def test_a_log_without_its_policies_proves_nothing(tmp_path: Path) -> None:
    """None of its decisions can be made again, so the page begins with that and the exit is 4."""
    log, policy = logged(tmp_path, bare=True)
    result = run("--log", log, "--policy", policy, "--html", tmp_path / "r.html", "--json")
    told = json.loads(result.stdout)

    assert result.exit_code == 4
    assert (told["reproduction"]["changed"], told["reproduction"]["missing_policies"]) == (0, 40)
    assert told["verdict"]["warnings"][0].startswith("Stop: only 0 of 40")


def test_too_little_evidence_is_no_verdict(tmp_path: Path) -> None:
    """The page says what it would take, and the exit is 4."""
    result = run("--table", table_at(tmp_path / "t.parquet", 60), "--html", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()

    assert result.exit_code == 4
    assert "<strong>Not enough evidence</strong>" in text
    assert "more rows of such traffic" in text


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--log", "x"),
        ("--policy", "x"),
        ("--table", "missing.parquet"),
        ("--table", "x", "--detect", "0"),
    ],
)
def test_unusable_options_exit_2(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Half a question, a missing file and a difference of nothing are usage errors; no page is written."""
    assert run("--html", tmp_path / "r.html", *options).exit_code == 2
    assert not (tmp_path / "r.html").exists()


def test_a_run_is_named_by_its_content(tmp_path: Path) -> None:
    """Where a page is written to is none of it; other choices make another run."""
    (tmp_path / "other").mkdir()
    here, other = table_at(tmp_path / "t.parquet", 300), table_at(tmp_path / "other" / "t.parquet", 290)
    first, second, third = (
        told(Wish(None, None, table, Method(), ["signalbox", "replay", "report", "--html", page]))
        for table, page in ((here, "a.html"), (here, "b.html"), (other, "a.html"))
    )

    assert first["command"] != second["command"]
    assert first["run"] == second["run"] != third["run"]


def test_the_same_numbers_make_the_same_page(tmp_path: Path) -> None:
    """Nothing of a page depends on when it was made."""
    log, _, _ = choices(300)
    pq.write_table(as_table(log), tmp_path / "t.parquet")
    run("--table", tmp_path / "t.parquet", "--html", tmp_path / "a.html")
    told = json.loads((tmp_path / "a.json").read_bytes())

    assert page_of(told) == page_of(told) == (tmp_path / "a.html").read_text(encoding="utf-8")
