"""A client listener of the embedded broker with TLS, SASL/SCRAM, client certificates and ACLs. Pure.

For trying a secured cluster on one machine: the broker's own two listeners demand its certificate, so
that nothing reaches it in the clear.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

AUTHORIZER = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
MECHANISM = "SCRAM-SHA-512"
ITERATIONS = 8192


@dataclass(frozen=True, slots=True)
class SecureListener:
    """How clients connect.

    *keystore* is a PEM file with the broker's key (PKCS#8) and certificates, *truststore* one with the CAs
    that clients' certificates are signed by. *users* are SCRAM users with their passwords, *superuser* and
    the subject in *principal* (the broker's own) may do everything, the others what ACLs say, if *acls*.
    *client* are the arguments of a client that the health check uses.
    """

    protocol: str
    keystore: Path
    truststore: Path
    principal: str
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    superuser: str = "admin"
    acls: bool = False
    client: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def properties(self, port: int, controller: int, internal: int) -> dict[str, str]:
        """Return the broker's properties for its three listeners on loopback."""
        host = "127.0.0.1"
        values = {
            "listeners": f"CLIENT://{host}:{port},INTERNAL://{host}:{internal},CONTROLLER://{host}:{controller}",
            "advertised.listeners": f"CLIENT://{host}:{port},INTERNAL://{host}:{internal}",
            "listener.security.protocol.map": f"CLIENT:{self.protocol},INTERNAL:SSL,CONTROLLER:SSL",
            "inter.broker.listener.name": "INTERNAL",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.keystore),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.truststore),
            # Of plain TLS listeners; one with SASL asks for no certificate.
            "ssl.client.auth": "required",
            "sasl.enabled.mechanisms": MECHANISM,
            "listener.name.client.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
        }
        if self.acls:
            values |= {
                "authorizer.class.name": AUTHORIZER,
                "super.users": f"User:{self.principal};User:{self.superuser}",
                "allow.everyone.if.no.acl.found": "false",
            }
        return values

    def credentials(self) -> tuple[str, ...]:
        """Return the arguments that give the users their credentials when the data folder is formatted."""
        rows = []
        for name, password in self.users.items():
            salt = secrets.token_bytes(16)
            salted = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
            rows += ["--add-scram", f"{MECHANISM}=[{_credential(name, salt, salted)}]"]
        return tuple(rows)


def _credential(name: str, salt: bytes, salted: bytes) -> str:
    texts = (base64.b64encode(part).decode() for part in (salt, salted))
    salt_text, salted_text = texts
    return f'name="{name}",salt="{salt_text}",saltedpassword="{salted_text}",iterations={ITERATIONS}'


def argument_file(arguments: tuple[str, ...]) -> str:
    """Return *arguments* as Java reads them from a file, where no other process sees them."""
    return "".join(
        f'"{text.replace(chr(92), chr(92) * 2).replace(chr(34), chr(92) + chr(34))}"\n' for text in arguments
    )
