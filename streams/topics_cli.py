"""The commands `topics plan | apply | acls`: the broker's topics and rights, from the catalogue."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from agents.policy import Policy
from streams.acls import CLIENTS, acls_for, commands, create, missing, principals
from streams.app import load_registries, roles_for
from streams.cli import FOLDER, NO, OK, Broker, Dir, Json, PolicyFile, finish, read_policy
from streams.settings import Settings
from streams.topics_admin import administering, apply_topics, plan_topics
from streams.topics_plan import Change, Plan, Wanted, wanted_topics

Locate = Callable[[str | None, Path], Settings]
Replicas = Annotated[int, typer.Option("--replication", min=1, help="Replicas of each partition.")]
Shorten = Annotated[bool, typer.Option("--shorten", help="Let retention get shorter, which deletes.")]


def register(app: typer.Typer, locate: Locate, default_policy: Path) -> None:
    """Mount the commands; without --policy the topics are those of *default_policy*."""
    topics = typer.Typer(no_args_is_help=True, help="The broker's topics and rights, from the catalogue.")
    app.add_typer(topics, name="topics")

    def asked(policy: Path | None, found: Settings, replication: int) -> tuple[Policy, Sequence[Wanted]]:
        load_registries()
        chosen = read_policy(policy or default_policy)
        providers = chosen.provider_names
        return chosen, wanted_topics(
            found.prefix, providers, partitions=found.partitions, replication=replication
        )

    @topics.command()
    def plan(  # noqa: PLR0913 - one parameter for each option that the user has
        policy: PolicyFile = None,
        replication: Replicas = 1,
        shorten: Shorten = False,
        broker: Broker = None,
        folder: Dir = FOLDER,
        json: Json = False,
    ) -> None:
        """Show how the broker's topics differ: exit 0 if they do not, 1 if they do."""

        async def work() -> int:
            found = locate(broker, folder)
            _, wanted = asked(policy, found, replication)
            plan = await plan_topics(found.kafka, wanted, shorten=shorten)
            tell(plan, as_json=json, done=False)
            return NO if plan.changes else OK

        finish(work())

    @topics.command()
    def apply(  # noqa: PLR0913 - as above
        policy: PolicyFile = None,
        replication: Replicas = 1,
        shorten: Shorten = False,
        broker: Broker = None,
        folder: Dir = FOLDER,
        json: Json = False,
    ) -> None:
        """Create and change what differs: exit 1 if something was refused."""

        async def work() -> int:
            found = locate(broker, folder)
            _, wanted = asked(policy, found, replication)
            plan = await apply_topics(found.kafka, wanted, shorten=shorten)
            tell(plan, as_json=json, done=True)
            return NO if plan.refused else OK

        finish(work())

    _register_acls(topics, locate, default_policy)


def _register_acls(topics: typer.Typer, locate: Locate, default_policy: Path) -> None:
    @topics.command()
    def acls(  # noqa: PLR0913 - one parameter for each option that the user has
        role: Annotated[list[str] | None, typer.Option(help="Only of this role; may be repeated.")] = None,
        principal: Annotated[str, typer.Option(help="Who a role is on the broker.")] = "User:{role}",
        apply: Annotated[bool, typer.Option("--apply", help="Create those that are missing.")] = False,
        policy: PolicyFile = None,
        broker: Broker = None,
        folder: Dir = FOLDER,
        json: Json = False,
    ) -> None:
        """Print the least that each role needs as commands of Kafka's own tool, or create it."""

        async def work() -> int:
            load_registries()
            chosen = read_policy(policy or default_policy)
            roles = role or [*roles_for(chosen), *CLIENTS]
            found = locate(broker, folder) if apply else Settings()
            rights = [acl for one in roles for acl in acls_for(one, found.prefix, chosen.provider_names)]
            who = principals(roles, principal)
            report: dict[str, Any] = {
                "acls": [{**dataclasses.asdict(a), "principal": who[a.role]} for a in rights]
            }
            if apply:
                async with administering(found.kafka, "change the ACLs") as admin:
                    lacking = await missing(admin, rights, who)
                    await create(admin, lacking, who)
                report["created"] = len(lacking)
            if json:
                typer.echo(orjson.dumps(report))
            else:
                lines = [f"created {report['created']} ACLs"] if apply else commands(rights, who)
                typer.echo("\n".join(lines))
            return OK

        finish(work())


def tell(plan: Plan, *, as_json: bool, done: bool) -> None:
    """Print *plan*."""
    if as_json:
        rows = [{**dataclasses.asdict(change), "refused": bool(change.why)} for change in plan.changes]
        typer.echo(orjson.dumps({"changes": rows, "others": plan.others, "applied": done}))
        return
    lines = [described(change) for change in plan.changes]
    lines += [f"  {name}: not of this policy and version, left alone" for name in plan.others]
    made = len(plan.changes) - len(plan.refused)
    lines.append(f"{made} {'made' if done else 'to make'}, {len(plan.refused)} refused")
    typer.echo("\n".join(lines))


def described(change: Change) -> str:
    """Return *change* as one line: + created, ~ changed, ! refused."""
    if change.what == "create":
        return f"+ {change.topic}: {change.wants}"
    mark, why = ("!", f" - {change.why}") if change.why else ("~", "")
    return f"{mark} {change.topic}: {change.what} {change.has or '(unset)'} -> {change.wants}{why}"
