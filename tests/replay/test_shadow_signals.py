"""What a role observed in shadow alone is joined to its decision, though no decision names it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pyarrow as pa

from agents.policy import Policy
from replay.archive import Source, archive
from replay.archive_files import Files
from replay.archive_shadow import COLUMNS, Aside, about, beside_of
from replay.bills import Part
from replay.comparison import compare
from replay.comparison_report import report
from replay.decide import decide_again
from replay.logged import ArchivedLog, KeptLog, places
from replay.view import MemoryLog
from schemas.topics import signals_topic
from tests.replay.logs import POLICY_YAML, LogBuilder

OWN = POLICY_YAML.replace(
    """        operator: AND
        conditions:
          - {type: keyword, name: code}
          - operator: NOT
            conditions: [{type: embedding, name: maths}]
""",
    "        {type: keyword, name: code}\n",
).replace("          - {type: embedding, name: maths, on_unknown: fail_request}\n", "")
SHADOWED = OWN + "shadow_signals: {'embedding:maths': 0.5}\n"
COUNT = 160


def of(text: str) -> Policy:
    """Return the policy in *text* as it is read back."""
    return Policy.loads(Policy.parse(text).normal_form)


def logged() -> LogBuilder:
    """Return a log in which every other request was observed by the embedding role, after its decision."""
    builder = LogBuilder()
    builder.policy = of(SHADOWED)
    for number in range(COUNT):
        request, origin = builder.request(number)
        sets, inputs = builder.signals(request, origin)
        used = [pair for pair in sets if pair[0] == "heuristics"]
        builder.decision(request, origin, used, [each for each in inputs if each.role == "heuristics"])
        [seen] = [found for role, found in sets if role == "embedding"]
        if number % 2:
            alone = replace(seen, shadow=("embedding:maths",), shadow_rate=(0.5,))
            for _ in range(1 + (number == 3)):  # one of them twice, as after a crash
                builder.append(signals_topic("embedding"), origin.partition, alone, request.request_id)
    return builder


def test_an_archive_and_its_log_know_what_was_observed_in_shadow(tmp_path: object) -> None:
    """Half the requests are known to a policy that needs it, and decided by it, from either."""
    builder = logged()
    view = MemoryLog(builder.envelopes, builder.policies)
    files = Files(f"{tmp_path}/archive")
    archive(Source(view, "c", "signalbox"), files, chunk=16)
    new = of(POLICY_YAML.replace(", on_unknown: fail_request", ""))
    kept, archived = (report(compare(each, new), new) for each in (KeptLog(view), ArchivedLog(files)))

    assert kept == archived
    assert (kept["decisions"], kept["unknown"]) == (COUNT, COUNT // 2)
    assert kept["unknown_signals"] == {"embedding:maths": COUNT // 2}
    assert {row["to"] for row in kept["decision_matrix"]} >= {"maths", "code-help"}


def test_an_archive_reads_what_was_in_shadow_as_far_as_decisions_need_it(tmp_path: object) -> None:
    """Of files of sets those about the requests at hand, each once; what is joined is what all say."""
    builder = logged()
    files = Files(f"{tmp_path}/archive")
    archive(Source(MemoryLog(builder.envelopes, builder.policies), "c", "signalbox"), files, chunk=16)
    read: list[str] = []

    def load(name: str) -> pa.Table:
        read.append(name)
        return files.parquet(name, []).read(columns=COLUMNS)

    names = [name for name in files.names("signals") if name.split("-")[-3] == "1"]
    spans = {name: about(files.parquet(name, [])) for name in names}
    aside = Aside([Part(partial(load, name), spans[name]) for name in names])
    at_once = beside_of(files.parquet(name, []).read(columns=COLUMNS) for name in names)
    met = 0
    for batch in ArchivedLog(files).batches(1):
        before = len(read)
        bare = pa.array([[]] * len(batch.decisions), batch.signals.type)
        found = aside.joined(batch.decisions, bare).to_pylist()
        offsets = places(batch.decisions)
        keys = zip(offsets.tolist(), batch.decisions["request_id"].to_pylist(), strict=True)
        expected = [at_once.get(key, []) for key in keys]
        met += sum(map(len, expected))

        assert [[row["name"] for row in rows] for rows in found] == [[r["name"] for r in e] for e in expected]
        for name in read[before:]:
            low, high = spans[name] or (0, 0)
            assert low <= offsets.max()
            assert high >= offsets.min()

    assert met > 0
    assert len(read) == len(set(read))


def test_decisions_are_made_again_from_what_they_saw() -> None:
    """Sets in shadow beside them change nothing."""
    builder = logged()
    again = decide_again(MemoryLog(builder.envelopes, builder.policies), seeds=())

    assert (again.decisions, again.reproduced) == (COUNT, COUNT)
