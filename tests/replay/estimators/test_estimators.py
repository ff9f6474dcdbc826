"""Estimators have the properties that their definitions promise, and agree with independent libraries."""

from __future__ import annotations

import importlib
import sys
import types
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from estimators.bandits import ips as vw_ips
from estimators.bandits import snips as vw_snips
from hypothesis import given
from hypothesis import strategies as st

import replay.estimators
from replay.estimators import Model, Terms, estimator
from tests.replay.bandits import made, model_for

estimator.load(replay.estimators)
NAMES = [name for name, _ in estimator]
SEEDS = st.integers(0, 10_000)


def terms_of(name: str, log: Any, model: Model) -> Terms:
    """Return the terms of the estimator *name* in its default configuration."""
    return estimator[name]().terms(log, model)


@given(SEEDS)
def test_ips_is_the_mean_reward_when_the_target_is_the_logging_policy(seed: int) -> None:
    """With target = logging every weight is 1, and nothing is left to estimate."""
    log = made(seed)
    assert log.logged is not None
    same = replace(log, target=log.logged)

    for name in ("ips", "snips", "clipped_ips"):
        terms = terms_of(name, same, model_for(log))

        assert terms.value.mean() == pytest.approx(log.reward.mean(), rel=1e-12)
        assert terms.difference.mean() == pytest.approx(0.0, abs=1e-12)


@given(SEEDS)
def test_doubly_robust_is_the_direct_method_where_the_model_is_exact(seed: int) -> None:
    """Without residuals there is nothing to correct."""
    log = made(seed)
    predicted = model_for(log, seed).predicted.copy()
    predicted[np.arange(log.n), log.taken] = log.reward
    exact = Model(predicted)

    for name in ("dr", "sndr", "switch_dr"):
        assert terms_of(name, log, exact).value.mean() == pytest.approx(
            terms_of("dm", log, exact).value.mean(), rel=1e-9
        )


@given(SEEDS)
def test_doubly_robust_without_a_model_is_ips(seed: int) -> None:
    """A model that predicts 0 everywhere leaves weighting alone."""
    log = made(seed, missing=True)
    nothing = Model(np.zeros((log.n, len(log.actions))))

    assert np.allclose(terms_of("dr", log, nothing).value, terms_of("ips", log, nothing).value)
    assert np.allclose(terms_of("dr", log, nothing).difference, terms_of("ips", log, nothing).difference)


@given(SEEDS, st.floats(-100, 100))
def test_snips_moves_with_a_shift_of_all_rewards(seed: int, shift: float) -> None:
    """A constant added to every reward is added to the estimate, and to no difference."""
    log = made(seed, missing=True)
    moved = replace(log, reward=log.reward + shift)
    before, after = (terms_of("snips", one, model_for(log)) for one in (log, moved))

    assert after.value.mean() == pytest.approx(before.value.mean() + shift, abs=1e-6)
    assert after.difference.mean() == pytest.approx(before.difference.mean(), abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_rows_does_not_matter(name: str) -> None:
    """A permuted log has the same estimate."""
    log, model = made(3, missing=True), model_for(made(3))
    order = np.random.default_rng(1).permutation(log.n)

    whole = terms_of(name, log, model)
    permuted = terms_of(name, log.rows(order), Model(model.predicted[order]))

    assert permuted.value.mean() == pytest.approx(whole.value.mean(), rel=1e-12)
    assert permuted.difference.mean() == pytest.approx(whole.difference.mean(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"dm", "clipped_ips", "switch_dr"}])
def test_estimates_centre_on_the_known_value(name: str) -> None:
    """Over many draws of actions the mean estimate is the truth, with rewards missing not at random."""
    estimates, truths = [], []
    for seed in range(300):
        log = made(seed, rows=400, missing=True)
        truths.append(float((log.target * (log.features[:, :1] + np.arange(3))).sum(axis=1).mean()))
        estimates.append(float(terms_of(name, log, model_for(log, seed)).value.mean()))
    off = np.array(estimates) - np.array(truths)

    assert abs(off.mean()) < 4.0 * off.std() / np.sqrt(len(off)) + 0.01


def test_clipping_says_how_much_weight_it_took() -> None:
    """The share of weight beyond the clip bounds the bias for rewards in [0, 1]."""
    log = made(1)
    clipped = estimator["clipped_ips"].model_validate({"clip": 1.0})

    lost = clipped.lost_weight(log)  # type: ignore[attr-defined]

    assert lost == pytest.approx(1.0 - np.minimum(log.weight, 1.0).sum() / log.weight.sum())


@pytest.mark.parametrize("seed", range(5))
def test_ips_and_snips_agree_with_vw_estimators(seed: int) -> None:
    """The estimators of the Vowpal Wabbit project give the same numbers."""
    log = made(seed)
    peers = {"ips": vw_ips.Estimator(), "snips": vw_snips.Estimator()}
    for row in range(log.n):
        chosen = float(log.target[row, log.taken[row]])
        for peer in peers.values():
            peer.add_example(float(log.propensity[row]), float(log.reward[row]), chosen)

    for name, peer in peers.items():
        assert terms_of(name, log, model_for(log)).value.mean() == pytest.approx(peer.get(), rel=1e-9)


@pytest.fixture(scope="module")
def obp() -> Any:
    """Return the estimators of the Open Bandit Pipeline.

    They name torch in annotations only, and their package imports what needs it; neither is installed.
    """
    torch: Any = types.ModuleType("torch")
    torch.Tensor = type("Tensor", (), {})
    sys.modules.setdefault("torch", torch)
    root = importlib.import_module("obp")
    package = types.ModuleType("obp.ope")
    package.__path__ = [f"{root.__path__[0]}/ope"]
    sys.modules["obp.ope"] = package
    return importlib.import_module("obp.ope.estimators")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("ips", "InverseProbabilityWeighting"),
        ("snips", "SelfNormalizedInverseProbabilityWeighting"),
        ("dm", "DirectMethod"),
        ("dr", "DoublyRobust"),
        ("sndr", "SelfNormalizedDoublyRobust"),
        ("switch_dr", "SwitchDoublyRobust"),
    ],
)
def test_estimators_agree_with_the_open_bandit_pipeline(obp: Any, name: str, peer: str, seed: int) -> None:
    """Given the same reward model, obp's estimators give the same numbers to nine digits."""
    log, model = made(seed), model_for(made(seed), seed)
    settings = {"tau": 1.5} if name == "switch_dr" else {}
    inputs: dict[str, Any] = {
        "reward": log.reward,
        "action": log.taken,
        "pscore": log.propensity,
        "action_dist": log.target[:, :, None],
        "estimated_rewards_by_reg_model": model.predicted[:, :, None],
        "position": np.zeros(log.n, dtype=int),
    }

    theirs = getattr(obp, peer)(**settings).estimate_policy_value(**inputs)

    ours = estimator[name].model_validate(settings).terms(log, model).value.mean()
    assert ours == pytest.approx(theirs, rel=1e-9)
