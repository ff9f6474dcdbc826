"""Every decision of a log can be made again, and a decision that cannot is noticed and named."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from agents.decision import failed
from agents.dispatch import DEAD_LETTERED, TAKEN_BACK
from agents.errors import InvalidRecord, NondeterminismError
from replay.decide import Report, decide_again
from replay.remake import DECIDER, CoreEncoder
from replay.view import MemoryLog
from schemas.codec import Codec, SchemaEntry, committed
from schemas.decision import Decision, DecisionMeta, Input
from tests.replay.logs import LogBuilder

NO_PROCESSES: tuple[str, ...] = ()


def _log(count: int, decider: str = DECIDER) -> LogBuilder:
    builder = LogBuilder(decider)
    for number in range(count):
        builder.decided(number)
    return builder


def _replayed(
    builder: LogBuilder,
    decider: str = DECIDER,
    seeds: Sequence[str] = NO_PROCESSES,
    progress: Callable[[int], None] = lambda _: None,
) -> Report:
    view = MemoryLog(builder.envelopes, builder.policies)
    return decide_again(view, decider=decider, seeds=seeds, progress=progress)


def test_every_decision_is_made_again_here_and_in_new_processes() -> None:
    """A log that the real decision function wrote is reproduced whole, of every kind a sample twice over."""
    builder = _log(300)
    report = decide_again(MemoryLog(builder.envelopes, builder.policies))

    assert (report.decisions, report.reproduced, report.changed) == (300, 300, 0)
    assert report.sampled >= 12
    assert report.complete
    report.check()
    assert {e.partition for e in builder.envelopes} == {0, 1, 2, 3}


def test_the_log_holds_every_kind_of_decision() -> None:
    """The test's own log is worth replaying: routed to several models, failed, and by default."""
    codec = Codec()
    cores = [codec.decode(e.value).core for e in _log(300).envelopes if e.topic == "decisions"]

    assert {c.outcome for c in cores} == {"routed", "default", "failed"}
    assert {c.chosen for c in cores if c.decision == "code-help"} == {"large", "small", "tiny"}


@pytest.mark.parametrize(
    ("fault", "field"),
    [
        ("clock", "core.draw"),
        ("date", "core.salt"),
        ("draw", "core.draw"),
        ("arrival_order", "core.signals_used"),
        ("clock_selector", "core.scores[0]"),
        ("float_arrival", "core.confidence"),
    ],
)
def test_a_planted_fault_is_noticed_in_this_process(fault: str, field: str) -> None:
    """A clock read, an unseeded draw, a leaning on the order of arrival and sums in it come out otherwise."""
    report = _replayed(_log(40, f"tests.replay.planted:{fault}"), decider=f"tests.replay.planted:{fault}")

    assert report.changed > 0
    assert report.first_difference is not None
    assert report.first_difference.field.startswith(field)
    with pytest.raises(NondeterminismError, match="was not made again"):
        report.check()


@pytest.mark.parametrize("fault", ["set_order", "hash_value", "set_order_selector", "float_set"])
def test_the_order_of_a_set_is_noticed_in_a_new_process(fault: str) -> None:
    """What is the same throughout one process differs in another one with other hashes."""
    reference = f"tests.replay.planted:{fault}"
    builder = _log(60, reference)

    assert _replayed(builder, decider=reference).changed == 0
    report = _replayed(builder, decider=reference, seeds=("1", "2", "3"))
    assert report.changed > 0
    assert report.first_difference is not None
    assert "PYTHONHASHSEED=" in report.first_difference.how


@pytest.mark.parametrize(
    ("fault", "field", "now"),
    [
        ("raises", "core", "ZeroDivisionError"),
        ("wrong_type", "core.chosen", "None"),
        ("negative_zero", "core.scores", "-0.0"),
    ],
)
def test_a_decision_that_comes_out_otherwise_is_named(fault: str, field: str, now: str) -> None:
    """An exception, a value of the wrong type and a changed sign of zero are differences too."""
    report = _replayed(_log(40), decider=f"tests.replay.planted:{fault}")

    assert report.first_difference is not None
    assert report.first_difference.field.startswith(field)
    assert now in report.first_difference.now


def test_the_error_names_request_position_field_values_and_inputs() -> None:
    """Whoever reads the error can find the record and see what differs."""
    builder = _log(8)
    at = next(i for i, e in enumerate(builder.envelopes) if e.topic == "decisions" and e.partition == 2)
    codec = Codec()
    logged: Decision = codec.decode(builder.envelopes[at].value)
    forged = replace(logged, core=replace(logged.core, chosen="gigantic"))
    builder.envelopes[at] = replace(builder.envelopes[at], value=codec.encode(forged))
    report = _replayed(builder)

    assert (report.decisions, report.reproduced, report.changed) == (8, 7, 1)
    with pytest.raises(NondeterminismError) as raised:
        report.check()
    message = str(raised.value)
    for part in (
        logged.request_id.hex(),
        f"partition 2, offset {builder.envelopes[at].offset}",
        "core.chosen was 'gigantic' and is now",
        *[f"{i.role}@{i.offset}" for i in logged.meta.inputs],
        builder.policy.hash[:12],
    ):
        assert part in message


def test_repeats_are_made_again_from_the_signals_that_each_was_made_of() -> None:
    """A second Decision of a request, made after a signal had come twice, is judged by its own inputs."""
    builder = LogBuilder()
    request, origin = builder.request(1)
    for _ in range(8):
        sets, inputs = builder.signals(request, origin)
        builder.decision(request, origin, sets, inputs)
    report = _replayed(builder)

    assert (report.decisions, report.reproduced) == (8, 8)


@pytest.mark.parametrize("failure", [DEAD_LETTERED, TAKEN_BACK])
def test_a_dead_lettered_request_is_reproduced_as_such(failure: str) -> None:
    """A Decision that only says that a stage gave up has no inputs, and follows from nothing else."""
    builder = LogBuilder()
    request, origin = builder.request(1)
    core = failed(builder.policy.hash, "", failure)
    builder.append(
        "decisions", origin.partition, Decision(request.request_id, origin, core, DecisionMeta((), 0, 0))
    )

    assert _replayed(builder).reproduced == 1


def test_a_bypass_is_reproduced_from_its_facts() -> None:
    """A request for a model by name uses no signal; the name is a fact of the core."""
    builder = LogBuilder()
    request, origin = builder.request(1, model="tiny")
    decided = builder.decision(request, origin, [], [])

    assert (decided.core.outcome, decided.core.chosen) == ("bypassed", "tiny")
    assert _replayed(builder).reproduced == 1


def test_signals_that_the_log_lacks_are_counted_and_named() -> None:
    """Without its inputs a decision is neither reproduced nor changed, and the proof is not complete."""
    builder = _log(12)
    gone = next(e for e in builder.envelopes if e.topic == "signals.embedding")
    builder.envelopes.remove(gone)
    report = _replayed(builder)

    assert (report.reproduced, report.changed, report.missing_inputs) == (11, 0, 1)
    assert f"embedding@{gone.offset}" in report.first_missing
    assert not report.complete


def test_signals_of_another_request_do_not_count() -> None:
    """An input that turns out to be about someone else is a missing one."""
    builder = _log(2)
    request, origin = builder.request(5)
    builder.decision(request, origin, [], [Input("heuristics", 0)])

    assert _replayed(builder).missing_inputs == 1


def test_a_whole_topic_of_signals_may_be_missing() -> None:
    """A log without the topic is reported, not a crash."""
    builder = _log(6)
    builder.envelopes = [e for e in builder.envelopes if e.topic != "signals.heuristics"]

    assert _replayed(builder).missing_inputs == 6


def test_a_policy_that_the_log_lacks_is_counted_and_named() -> None:
    """Decisions under an unknown policy are not proved."""
    builder = _log(6)
    report = decide_again(MemoryLog(builder.envelopes, {}), seeds=NO_PROCESSES)

    assert (report.reproduced, report.missing_policies) == (0, 6)
    assert builder.policy.hash in report.first_missing


def test_an_altered_policy_is_refused() -> None:
    """A policy text that is not what its hash says proves nothing."""
    builder = _log(1)
    altered = {key: text.replace("small", "large") for key, text in builder.policies.items()}

    with pytest.raises(InvalidRecord, match="was altered"):
        decide_again(MemoryLog(builder.envelopes, altered), seeds=NO_PROCESSES)


def test_bytes_that_are_no_decision_are_counted() -> None:
    """A damaged record in `decisions` keeps the proof from being complete."""
    builder = _log(4)
    builder.append("decisions", 0, b"\x00\x00\x00\x00\x03 not ours")
    report = _replayed(builder)

    assert (report.decisions, report.reproduced, report.unreadable) == (5, 4, 1)
    assert "decisions, partition 0" in report.first_missing


def test_a_log_without_decisions_proves_nothing() -> None:
    """Nothing made again is not everything made again."""
    report = decide_again(MemoryLog([], {}))

    assert report.decisions == 0
    assert not report.complete


def test_cores_are_compared_under_the_schema_that_logged_them() -> None:
    """A field that the log's schema did not have cannot count as a difference."""
    builder = LogBuilder(codec=_OlderCodec())
    for number in range(20):
        builder.decided(number)
    schemas = {**committed(), 3: _without_depths()}
    older = MemoryLog(builder.envelopes, builder.policies, schemas)
    report = decide_again(older, decider="tests.replay.planted:depths", seeds=NO_PROCESSES)

    assert (report.reproduced, report.changed) == (20, 0)
    assert _replayed(_log(20), decider="tests.replay.planted:depths").changed > 0


def _without_depths() -> SchemaEntry:
    document = json.loads(committed()[3].text)
    core = next(f for f in document["fields"] if f["name"] == "core")
    rule = next(f for f in core["type"]["fields"] if f["name"] == "rule")
    rule["type"]["fields"] = [f for f in rule["type"]["fields"] if f["name"] != "depth"]
    return SchemaEntry(3, "Decision", "an older one", json.dumps(document))


class _OlderCodec(Codec):
    """Writes decisions as before traces had depths."""

    def encode(self, record: object) -> bytes:
        """Return *record* in wire format."""
        if not isinstance(record, Decision):
            return super().encode(record)
        return b"\x00\x00\x00\x00\x03" + CoreEncoder({3: _without_depths()}).encode(3, record)


def test_progress_is_told() -> None:
    """Long work can show how far it is."""
    seen: list[int] = []
    _replayed(_log(5), progress=seen.append)

    assert seen == [1, 2, 3, 4, 5]
