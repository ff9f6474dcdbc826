"""The settings of the embedded Kafka broker: one node, KRaft, loopback. Pure."""

from collections.abc import Mapping
from pathlib import Path

MESSAGE_BYTES = 8 * 1024 * 1024
NODE_ID = 1


def properties(folder: Path, port: int, controller_port: int, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the broker's properties; *extra* wins over ours."""
    client, controller = f"127.0.0.1:{port}", f"127.0.0.1:{controller_port}"
    return {
        "process.roles": "broker,controller",
        "node.id": str(NODE_ID),
        "controller.quorum.voters": f"{NODE_ID}@{controller}",
        "listeners": f"CLIENT://{client},CONTROLLER://{controller}",
        "advertised.listeners": f"CLIENT://{client}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(folder),
        # Topics are made from the catalogue; a misspelt name has to fail.
        "auto.create.topics.enable": "false",
        "message.max.bytes": str(MESSAGE_BYTES),
        "replica.fetch.max.bytes": str(MESSAGE_BYTES),
        # One node: nothing can be replicated.
        "default.replication.factor": "1",
        "min.insync.replicas": "1",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "2",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        # A member of a new group joins at once instead of waiting for others.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # After a SIGKILL the broker may not register again before its old session ends.
        "broker.session.timeout.ms": "4000",
        "broker.heartbeat.interval.ms": "500",
        "num.network.threads": "2",
        "num.io.threads": "4",
        # 128 MB by default, a quarter of our heap, for compacting a handful of small topics.
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
        "log.cleaner.threads": "1",
        **extra,
    }


def render(values: Mapping[str, str]) -> str:
    """Return *values* as a Java properties file."""
    return "".join(f"{key}={value.replace(chr(92), chr(92) * 2)}\n" for key, value in sorted(values.items()))


def parse(text: str) -> dict[str, str]:
    """Return the values of a simple properties file such as Kafka's meta.properties."""
    lines = (line for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
