"""Plans: the rows they ask for give the stated power, and what cannot be explored is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import replay.diagnostics
import replay.estimators
import replay.verdict
from replay import plan
from replay.bandit import BanditLog
from replay.estimators import Model, estimator
from replay.evaluation import Method, evaluate
from replay.plan import Traffic, Wanted, factor, option, pairs
from replay.plan_log import Logs
from signalbox import app
from tests.replay.logs import POLICY_YAML, LogBuilder, kept

Json = dict[str, Any]
DETECT, EPSILON, CHANGED = 0.03, 0.2, 0.3
INCUMBENT = {"small": 1.0}
TRAFFIC = (
    Traffic("chat", CHANGED, INCUMBENT, {"large": 1.0}, ("large",)),
    Traffic("chat", 1.0 - CHANGED, INCUMBENT, INCUMBENT, ("large",)),
)
HALF = 0.5
_REFS = "modelRefs: [{model: large}, {model: tiny}]"
CHEAP = POLICY_YAML.replace(_REFS, "modelRefs: [{model: tiny}, {model: large}]")
FOREIGN = POLICY_YAML.replace(_REFS, "modelRefs: [{model: small}]")


def wins(rows: int, worlds: int, seed: int) -> float:
    """Return the share of logs of *rows* requests that say "better" of a target better by `DETECT`."""
    estimator.load(replay.estimators)
    rng = np.random.default_rng(seed)
    found = 0
    for _ in range(worlds):
        goes = rng.random(rows) < CHANGED
        logged = np.tile([1.0 - EPSILON, EPSILON], (rows, 1))
        taken = (rng.random(rows) < EPSILON).astype(np.int64)
        mean = HALF + np.stack([np.zeros(rows), np.where(goes, DETECT / CHANGED, 0.0)], axis=1)
        reward = (rng.random(rows) < mean[np.arange(rows), taken]).astype(np.float64)
        log = BanditLog(
            actions=("small", "large"),
            taken=taken,
            propensity=logged[np.arange(rows), taken],
            reward=reward,
            observation=np.ones(rows),
            target=np.where(goes[:, None], [[0.0, 1.0]], [[1.0, 0.0]]),
            logged=logged,
            features=np.zeros((rows, 0)),
            feature_names=(),
            cluster=np.arange(rows),
        )
        found += evaluate(log, Method(), model=Model(mean)).verdict.word == "better"
    return found / worlds


def test_the_planned_rows_give_the_stated_power() -> None:
    """Of simulated logs of that size 80 % say better, within noise; of half the size far fewer do."""
    asked = option(TRAFFIC, EPSILON, Wanted(DETECT, variance=HALF * HALF))
    assert asked is not None
    worlds = 500
    noise = 4 * (0.8 * 0.2 / worlds) ** 0.5

    assert abs(wins(asked.rows, worlds, 1) - 0.8) < noise
    assert wins(asked.rows // 2, worlds // 4, 2) < 0.8 - 3 * noise


def test_the_plan_is_the_published_table_where_that_applies() -> None:
    """For uniform exploring between two models the rows behind a half-width of a point are the rule's."""
    traffic = (
        Traffic("a", 0.1, INCUMBENT, {"large": 1.0}, ("large", "small")),
        Traffic("b", 0.9, INCUMBENT, INCUMBENT, ()),
    )
    asked = option(traffic, 0.05, Wanted(0.01, variance=0.19))
    assert asked is not None
    rows_of_a_point = (
        asked.rows * (asked.half_width / 0.01) ** 2
    )  # the rule is for a half-width, without power

    assert factor() == pytest.approx(7.849, abs=1e-3)
    assert rows_of_a_point == pytest.approx(29_000, rel=0.06)
    assert pairs(0.1, 0.012) == pytest.approx(7.849 * (0.1 * 0.6 / 0.012) ** 2, abs=1)


def test_moments_are_those_of_the_weights() -> None:
    """E[(w-1)^2] and E[(w-1)^4] equal the means over many drawn choices."""
    each = Traffic("a", 1.0, {"x": 0.7, "y": 0.3}, {"y": 0.5, "z": 0.5}, ("y", "z"))
    logging = each.logging(0.3)
    names = list(logging)
    draws = np.random.default_rng(3).choice(len(names), 400_000, p=list(logging.values()))
    weights = np.array([each.then.get(name, 0.0) / logging[name] for name in names])[draws]

    assert logging == pytest.approx({"x": 0.49, "y": 0.36, "z": 0.15})
    assert each.moments(0.3) == pytest.approx(
        (((weights - 1) ** 2).mean(), ((weights - 1) ** 4).mean()), rel=0.02
    )


@pytest.mark.parametrize("epsilon", [0.05, 0.1, 0.5])
def test_exploring_that_is_the_target_tells_nothing(epsilon: float) -> None:
    """A target of 95/5 is the log itself at 0.05: no rows tell it apart, others are planned as ever."""
    traffic = (Traffic("a", 1.0, INCUMBENT, {"small": 1.0 - epsilon, "large": epsilon}, ("large",)),)
    planned = {each: option(traffic, each, Wanted(0.01)) for each in plan.EPSILONS}

    assert [each for each, found in planned.items() if found is None] == [epsilon]


def test_rows_that_carry_are_rows_with_a_reward() -> None:
    """Where few requests are rated, the rule of rows that carry the difference takes so many more."""
    coarse = [option(TRAFFIC, 0.01, Wanted(0.3, observed=share)) for share in (1.0, 0.05)]
    assert coarse[0] is not None
    assert coarse[1] is not None
    second = CHANGED * TRAFFIC[0].moments(0.01)[0] + (1 - CHANGED) * TRAFFIC[1].moments(0.01)[0]
    fourth = CHANGED * TRAFFIC[0].moments(0.01)[1] + (1 - CHANGED) * TRAFFIC[1].moments(0.01)[1]

    assert coarse[1].rows >= plan.LEAST_CARRYING * fourth / second**2 / 0.05
    assert coarse[1].rows == pytest.approx(20 * coarse[0].rows, rel=0.01)


def test_a_saving_in_one_decision_does_not_lower_what_another_is_charged() -> None:
    """Trials that cost as much more here as they save there cost nothing on balance, but are charged for."""
    traffic = (
        Traffic("dearer", 0.5, {"x": 1.0}, {"y": 1.0}, ("y",)),
        Traffic("cheaper", 0.5, {"y": 1.0}, {"x": 1.0}, ("x",)),
    )
    logs = Logs(traffic, (), {"dearer": 0.01, "cheaper": -0.01}, {"dearer": 0.01, "cheaper": 0.0}, 100, 1.0)

    assert logs.extra_usd(0.1, 1000) == pytest.approx(0.0)
    assert logs.charged_usd(0.1, 1000) == pytest.approx(0.5)


def test_its_limits_are_those_of_the_verdict() -> None:
    """A plan that forgot what refuses a verdict would promise one in vain."""
    diagnostics = replay.diagnostics

    assert plan.LEAST_ESS == diagnostics.LEAST_ESS
    assert plan.LEAST_CARRYING == diagnostics.LEAST_CARRYING
    assert plan.MOST_UNSUPPORTED == diagnostics.MOST_UNSUPPORTED


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kept log of 300 answered requests that explored nothing, and policies to judge."""
    made = tmp_path_factory.mktemp("plan")
    builder = LogBuilder()
    for number in range(300):
        builder.answered(number)
    kept(str(made / "log"), builder.envelopes, builder.policies)
    for name, text in (("same", POLICY_YAML), ("cheap", CHEAP), ("foreign", FOREIGN)):
        (made / f"{name}.yaml").write_text(text)
    return made


def run(folder: Path, name: str, *more: str) -> Json:
    """Return what `replay plan` says of policy *name* over the log."""
    arguments = ["replay", "plan", "--policy", str(folder / f"{name}.yaml"), "--detect", "0.01", "--json"]
    done = CliRunner().invoke(app, [*arguments, *more])
    assert done.exit_code == 0, done.stderr
    found: Json = json.loads(done.stdout)
    return found


def in_days(folder: Path, days: str) -> Json:
    """Return what is recommended where there are *days*."""
    found = run(folder, "cheap", "--log", str(folder / "log"), "--per-day", "20000", "--within-days", days)
    recommended: Json = found["recommended"]
    return recommended


def test_a_log_without_exploring_gives_a_plan(folder: Path) -> None:
    """Less time takes more exploring; the section that it prints is one that the active policy can have."""
    found = run(folder, "cheap", "--log", str(folder / "log"), "--per-day", "20000")
    options = found["options"]
    rows = [each["rows"] for each in options]
    slow, quick = (in_days(folder, days) for days in ("60", "5"))

    assert rows == sorted(rows, reverse=True)
    assert all(each["days"] == pytest.approx(each["rows"] / 20_000) for each in options)
    assert slow["epsilon"] < quick["epsilon"]
    assert found["exploration"]["decisions"]["maths"]["candidates"] == ["tiny"]
    assert found["unreachable"] == []
    (folder / "exploring.yaml").write_text(POLICY_YAML + f"exploration: {json.dumps(found['exploration'])}\n")
    assert CliRunner().invoke(app, ["policy", "check", str(folder / "exploring.yaml")]).exit_code == 0


def test_what_exploring_cannot_reach_is_said(folder: Path) -> None:
    """A model that a decision does not list is never tried there, so pairs are what is left."""
    found = run(folder, "foreign", "--log", str(folder / "log"))
    [each] = found["unreachable"]

    assert (each["decision"], each["model"]) == ("maths", "small")
    assert each["why"] == "the model is not among the decision's modelRefs"
    assert each["share"] == pytest.approx(found["changed_share"])
    assert found["options"] == []
    assert found["recommended"] is None
    assert found["pairs"] == pairs(float(each["share"]), 0.01)


def test_without_a_change_there_is_nothing_to_judge(folder: Path) -> None:
    """The same policy needs neither rows nor pairs."""
    found = run(folder, "same", "--log", str(folder / "log"))

    assert (found["changed_share"], found["options"], found["pairs"]) == (0.0, [], 0)


def test_without_a_log_it_plans_for_what_is_assumed(folder: Path) -> None:
    """A share can be given; else some are shown."""
    one = run(folder, "cheap", "--changed", "0.1", "--per-day", "2000")
    several = run(folder, "cheap")

    assert [each["changed_share"] for each in one["assumed"]] == [0.1]
    assert len(several["assumed"]) == 3
    assert CliRunner().invoke(app, ["replay", "plan", "--policy", "x", "--detect", "0"]).exit_code == 2
