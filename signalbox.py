"""The front door: mounts the commands, holds no logic."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path

import typer

import infra.local.cli
import infra.local.commands
import replay.archive_cli
import replay.bench_cli
import replay.cli
import replay.policy_bench_cli
import replay.policy_cli
import replay.policy_eval_cli
import replay.probe_cli
import replay.report_cli
import replay.signals_cli
import replay.sweep_cli
import replay.whatif_cli
import streams.activation_cli
import streams.claims_cli
import streams.cli
import streams.dlq_cli
import streams.doctor_cli
import streams.feedback_cli
import streams.live_view
import streams.pause_cli
import streams.settings
import streams.topics_cli
from agents.ports import Infer
from replay.view import LogView
from streams.runners.archiving import Archive, ArchivePlace


def open_archive(place: ArchivePlace) -> Archive:
    """Open the archive that a worker writes."""
    identity = (place.cluster, place.prefix, place.bodies)
    return replay.archive_cli.open_archive(place.where, identity, place.retention, place.merged_s)


def open_topics(broker: str | None, folder: Path) -> AbstractContextManager[LogView]:
    """Open the topics of the log that is meant, for commands that read logs."""
    return streams.live_view.topics_at(infra.local.commands.locate(broker, folder))


def open_triton(address: str) -> AbstractAsyncContextManager[Infer]:
    """Connect to the classifiers of a Triton, for commands that observe requests."""
    from streams.clients.triton_offline import answering  # noqa: PLC0415 - gRPC: 80 ms, 20 MB of each process

    return answering(address, streams.settings.settings().triton_security)


app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="A streaming router for LLM requests."
)
infra.local.cli.register(app, "infra.local.routing:deployment")
infra.local.commands.register(app)
streams.cli.register(app, infra.local.commands.broker_of, open_archive)
streams.pause_cli.register(app, infra.local.commands.broker_of)
streams.dlq_cli.register(app, infra.local.commands.broker_of)
streams.feedback_cli.register(app, infra.local.commands.broker_of)
streams.claims_cli.register(app, infra.local.commands.locate)
streams.doctor_cli.register(app, infra.local.commands.locate, infra.local.commands.BUNDLED_POLICY)
streams.topics_cli.register(app, infra.local.commands.locate, infra.local.commands.BUNDLED_POLICY)
replaying = replay.cli.register(app, open_topics, open_triton)
replay.archive_cli.register(replaying, streams.settings.wall_clock)
replay.report_cli.register(replaying, streams.settings.environment)
replay.sweep_cli.register(replaying, streams.settings.environment)
replay.whatif_cli.register(replaying, streams.settings.environment, open_triton)
policy = replay.policy_cli.register(app, streams.settings.environment)
replay.policy_eval_cli.register(policy)
streams.activation_cli.register(policy, infra.local.commands.locate)
replay.probe_cli.register(policy)
replay.signals_cli.register(app, streams.settings.environment)
replay.policy_bench_cli.register(replay.bench_cli.register(app), streams.settings.environment)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
