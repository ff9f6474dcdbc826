"""Secured brokers for live tests, with the certificates and passwords that they go by."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.local.kafka import Kafka, KafkaOptions
from infra.local.kafka_security import SecureListener
from streams.security import BrokerSecurity, security_of
from tests.certificates import Authority, Issued


@dataclass(frozen=True)
class Secured:
    """A running broker, and what its clients need."""

    address: str
    folder: Path
    authority: Authority
    passwords: dict[str, str]

    def security(self, user: str = "admin", **other: Any) -> BrokerSecurity:
        """Return what *user* logs in with, changed by *other*."""
        return security_of(self.values(user) | other, "test")

    def values(self, user: str = "admin") -> dict[str, Any]:
        """Return the settings file of *user*."""
        if not self.passwords:
            issued: Issued = self.authority.issue(user)
            return {
                "security_protocol": "SSL",
                "ssl_cafile": str(self.authority.certificate),
                "ssl_certfile": str(issued.certificate),
                "ssl_keyfile": str(issued.key),
            }
        password = self.folder / f"{user}.password"
        password.write_text(self.passwords[user] + "\n")
        return {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": user,
            "sasl_plain_password_file": str(password),
            "ssl_cafile": str(self.authority.certificate),
        }

    def settings_file(self, user: str = "admin") -> Path:
        """Write the settings of *user* to a file."""
        path = self.folder / f"{user}.yaml"
        path.write_text(json.dumps(self.values(user)))
        return path


@asynccontextmanager
async def secured_broker(folder: Path, protocol: str, users: tuple[str, ...] = ()) -> AsyncIterator[Secured]:
    """Run a broker that speaks *protocol*; with *users*, those log in by SCRAM and ACLs are enforced."""
    authority = Authority(folder / "certificates")
    broker = authority.issue("broker", "127.0.0.1")
    passwords = {name: secrets.token_urlsafe(18) for name in users}
    found = Secured("", folder, authority, passwords)
    listener = SecureListener(
        protocol=protocol,
        keystore=broker.both,
        truststore=authority.certificate,
        principal="CN=broker",
        users=passwords,
        superuser="admin" if users else "CN=admin",
        acls=True,
        client=found.security("admin").arguments(),
    )
    kafka = Kafka(KafkaOptions(folder=folder / "kafka", secure=listener))
    try:
        address = await kafka.start()
        yield Secured(address, folder, authority, passwords)
    finally:
        await kafka.stop()
