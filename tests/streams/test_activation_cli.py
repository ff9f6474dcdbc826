"""The commands of a policy's life: read back before they say done, repeatable, and honest."""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import streams.activation_cli
from agents.policy import Policy
from schemas.codec import Codec
from schemas.control import PolicyActivated, PolicyPublished, PolicyShadowed
from schemas.topics import CONTROL_POLICY
from signalbox import app
from streams.app import load_registries, make_world, topic_counts
from streams.memory import MemoryLog
from streams.policies import tell
from streams.runners import World
from streams.telemetry import Telemetry

NOW = 1_790_000_000_000


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MemoryLog:
    """Let the commands find an in-memory log, of a stack with provider north, where a broker would be."""
    monkeypatch.chdir(tmp_path)
    load_registries()
    log = MemoryLog(topic_counts(["north"], 2), lambda: NOW)

    @asynccontextmanager
    async def connected(_found: object) -> AsyncIterator[World]:
        world = make_world(log, Telemetry(lambda: NOW * 1000, quiet=True), "client")
        await world.policies.start()
        yield world
        await world.policies.stop()

    monkeypatch.setattr(streams.activation_cli, "connected", connected)
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.yaml").write_text(text_of(name))
    (tmp_path / "elsewhere.yaml").write_text(text_of("a", provider="nowhere"))
    return log


def text_of(model: str, provider: str = "north") -> str:
    """Return a policy that sends everything to *model*."""
    return (
        f"providers: {{models: [{{name: {model}, backend_refs: [{{name: {provider}}}]}}], "
        f"defaults: {{default_model: {model}}}}}"
    )


def hash_of(model: str) -> str:
    """Return the hash of the policy of *model*."""
    return Policy.parse(text_of(model)).hash


def call(*arguments: str) -> Result:
    """Run `signalbox policy` in this process."""
    return CliRunner().invoke(app, ["policy", *arguments, "--broker", "127.0.0.1:1"])


def told(*arguments: str) -> Any:
    """Return the JSON object that a command prints."""
    done = call(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def records(log: MemoryLog) -> list[Any]:
    """Return what was written to `control.policy`."""
    return [Codec().decode(e.value) for e in log.envelopes(CONTROL_POLICY)]


def test_activation_says_who_why_and_on_what_grounds(tmp_path: Path, log: MemoryLog) -> None:
    """The record that came back has actor, reason, time, signature and the report's digest."""
    (tmp_path / "report.json").write_bytes(b"{}")
    said = told("activate", "a.yaml", "--reason", "go", "--signature", "s1", "--report", "report.json")

    active = said["active"]
    assert said["changed"]
    assert (active["policy_hash"], active["reason"], active["activated_at"]) == (hash_of("a"), "go", NOW)
    assert "@" in active["actor"]
    assert active["signature"] == "s1"
    assert active["replay_report"] == "sha256:" + hashlib.sha256(b"{}").hexdigest()
    assert [type(r) for r in records(log)] == [PolicyPublished, PolicyActivated]


def test_activating_what_is_active_changes_nothing(log: MemoryLog) -> None:
    """The second order writes nothing, says so, and succeeds; a hash names what the log holds."""
    told("activate", "a.yaml", "--reason", "first")
    again = told("activate", hash_of("a")[:10], "--reason", "second")

    assert (again["changed"], again["active"]["reason"]) == (False, "first")
    assert len(records(log)) == 2


def test_rollback_walks_back_and_then_has_nowhere_to_go() -> None:
    """Each rollback returns to what was active before; with nothing before, the answer is no."""
    for name in ("a", "b", "c"):
        told("activate", f"{name}.yaml")
    back = [told("rollback")["active"] for _ in range(2)]
    end = call("rollback")

    assert [r["policy_hash"] for r in back] == [hash_of("b"), hash_of("a")]
    assert [(r["how"], r["replaces"]) for r in back] == [
        ("rolled_back", hash_of("c")),
        ("rolled_back", hash_of("b")),
    ]
    assert end.exit_code == 1
    assert "activate one by its file" in end.stderr


def test_a_rollback_that_names_what_it_undoes_can_be_repeated() -> None:
    """The repetition finds another policy active and goes no further back."""
    for name in ("a", "b", "c"):
        told("activate", f"{name}.yaml")
    first = told("rollback", "--undo", hash_of("c"))
    again = told("rollback", "--undo", hash_of("c"))

    assert (first["changed"], again["changed"]) == (True, False)
    assert again["active"]["policy_hash"] == hash_of("b")


def test_a_policy_that_nobody_could_serve_is_refused(log: MemoryLog) -> None:
    """Its provider has no topic: nothing is written, and the message says what to do."""
    done = call("activate", "elsewhere.yaml")

    assert done.exit_code == 2
    assert "jobs.nowhere.batch" in done.stderr
    assert "signalbox up" in done.stderr
    assert records(log) == []


@pytest.mark.parametrize("name", ["none.yaml", "abcdef", ""])
def test_a_name_of_no_policy_is_refused(name: str) -> None:
    """What is neither a file nor a hash of the log is bad input, and the known ones are listed."""
    told("activate", "a.yaml")
    told("activate", "b.yaml")
    done = call("activate", name)

    assert done.exit_code == 2


def test_the_shadow_comes_and_goes(log: MemoryLog) -> None:
    """It is named by file or hash, ordered once, told by status, and ended once."""
    told("activate", "a.yaml")
    on = told("shadow", "b.yaml", "--reason", "try")
    again = told("shadow", hash_of("b")[:12])
    seen = told("status")
    other = told("shadow", "c.yaml", "--off")
    off = [told("shadow", "--off")["changed"] for _ in range(2)]

    assert (on["changed"], again["changed"], other["changed"], off) == (True, False, False, [True, False])
    assert (seen["active"]["policy_hash"], seen["shadow"]["policy_hash"]) == (hash_of("a"), hash_of("b"))
    assert seen["shadow"]["reason"] == "try"
    assert told("status")["shadow"] is None
    assert sum(isinstance(r, PolicyShadowed) for r in records(log)) == 2


def test_a_shadow_needs_no_worker_of_its_own_but_its_topic() -> None:
    """It calls no provider, so one without topics is no obstacle; a stack that is too old is."""
    told("shadow", "elsewhere.yaml")


def test_a_stack_without_the_shadow_topic_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, log: MemoryLog
) -> None:
    """Nothing is written where the decision role could not write."""
    monkeypatch.delitem(log._counts, "decisions.shadow")
    done = call("shadow", "b.yaml")

    assert done.exit_code == 2
    assert "signalbox up" in done.stderr
    assert records(log) == []


def test_status_tells_history_and_that_nothing_is_active() -> None:
    """Without an active policy the answer is no; then the history is in order, and text says it too."""
    assert call("status", "--json").exit_code == 1
    told("activate", "a.yaml")
    told("activate", "b.yaml", "--reason", "better")
    seen = told("status")

    assert [r["policy_hash"] for r in seen["history"]] == [hash_of("a"), hash_of("b")]
    assert seen["before"] == hash_of("a")
    assert set(seen["known"]) == {hash_of("a"), hash_of("b")}
    assert "(better)" in call("status").stdout


def test_an_order_that_somebody_overtook_is_not_called_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another activation lies right behind ours when it comes back: exit 1, and who is active is told."""
    real = tell

    async def overtaken(outbox: Any, record: Any) -> Any:
        placed = await real(outbox, record)
        if isinstance(record, PolicyActivated):
            await real(outbox, PolicyActivated("f" * 64, "other", "", NOW))
        return placed

    monkeypatch.setattr("streams.activation.tell", overtaken)
    done = call("activate", "a.yaml")

    assert done.exit_code == 1
    assert "ffffffffffff" in done.stderr


def test_what_does_not_come_back_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log took the record but never gave it back: a dependency is down."""
    monkeypatch.setattr("streams.activation._PATIENCE_S", 0.05)
    monkeypatch.setattr("streams.policies.Policies._take", lambda _self, _envelope: None)
    done = call("shadow", "a.yaml")

    assert done.exit_code == 3
    assert "did not come back" in done.stderr


def test_without_a_stack_the_exit_code_is_3(monkeypatch: pytest.MonkeyPatch) -> None:
    """No broker is known: a dependency is down."""
    monkeypatch.delenv("SIGNALBOX_BROKER", raising=False)

    assert CliRunner().invoke(app, ["policy", "status"]).exit_code == 3
