"""What a process is told from outside: addresses, keys, bounds. The only reader of the environment."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from agents.errors import ConfigError
from agents.topology import WINDOW
from agents.turn import Parking
from schemas.topics import MAX_BYTES
from streams.app import Context, Tuning
from streams.claims import INLINE_BYTES, ClaimCheck, ClaimLimits
from streams.clients.claims import store_at
from streams.clients.provider import Endpoint
from streams.kafka import KafkaSettings
from streams.letters import RECORD_BYTES, LetterLimits
from streams.runners.archiving import ArchiveLimits
from streams.runners.working import WorkLimits
from streams.security import BrokerSecurity, read_secret, read_values, security_of

_MAX_PORT = 65535
_MOST_INLINE = 2 * 1024 * 1024
"""A record is at most so large that it fits into a topic, and its dead letter too."""


class Settings(BaseSettings):
    """Settings of one process; each is an environment variable ``SIGNALBOX_<NAME>``.

    Secrets come from files or the environment, never from arguments, and no representation shows them.
    """

    model_config = SettingsConfigDict(
        env_prefix="SIGNALBOX_", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    broker: str = ""
    prefix: str = "signalbox"
    partitions: int = Field(default=6, ge=1)
    tenant: str = "default"
    triton: str = ""
    providers: dict[str, str] = Field(default_factory=dict)
    key_files: dict[str, Path] = Field(default_factory=dict)
    keys: dict[str, SecretStr] = Field(default_factory=dict)
    broker_settings: Path | None = None
    security: dict[str, Any] = Field(default_factory=dict, repr=False)
    sasl_password: SecretStr | None = None
    sasl_password_file: Path | None = None
    triton_settings: Path | None = None
    window: int = Field(default=WINDOW, ge=WINDOW)
    concurrency: int = Field(default=64, ge=1)
    jobs: int = Field(default=512, ge=1)
    parked: int = Field(default=256, ge=0)
    park_s: float = Field(default=30.0, ge=0)
    job_span: int = Field(default=10_000, ge=1)
    ledger_s: float = Field(default=900.0, ge=60)
    linger_s: float = Field(default=60.0, ge=0)
    connect_budget_s: float = Field(default=2.0, gt=0)
    regions: dict[str, str] = Field(default_factory=dict)
    codec: Literal["compiled", "fastavro"] = "compiled"
    record_bytes: int = Field(default=RECORD_BYTES, ge=1024, le=MAX_BYTES)
    dead_letters_in_a_row: int = Field(default=200, ge=0)
    dead_letter_ratio: float = Field(default=0.5, ge=0, le=1)
    dead_letter_sample: int = Field(default=1000, ge=1)
    dead_letter_budget_s: float = Field(default=120.0, gt=0)
    drain_s: float = Field(default=10.0, ge=0)
    stuck_s: float = Field(default=120.0, gt=0)
    outage_s: float = Field(default=300.0, gt=0)
    log_level: str = "info"
    archive: str = ""
    archive_bodies: bool = False
    archive_flush_s: float = Field(default=30.0, gt=0)
    archive_care_s: float = Field(default=300.0, gt=0)
    archive_retention: Path | None = None
    archive_merged_s: float = Field(default=3600.0, ge=0)
    claims: str = ""
    inline_bytes: int = Field(default=INLINE_BYTES, ge=1, le=_MOST_INLINE)
    claim_budget_s: float = Field(default=10.0, gt=0)

    @property
    def kafka(self) -> KafkaSettings:
        """Return how to reach the cluster; raises `ConfigError` if no address is set."""
        if not self.broker:
            raise ConfigError("no broker address: pass --broker HOST:PORT or set SIGNALBOX_BROKER")
        for address in self.broker.split(","):
            host, _, port = address.strip().rpartition(":")
            if not (host and port.isascii() and port.isdigit() and 0 < int(port) <= _MAX_PORT):
                raise ConfigError(f"broker address {address!r} is not of the form HOST:PORT")
        return KafkaSettings(self.broker, self.prefix, self.broker_security.arguments())

    @property
    def broker_security(self) -> BrokerSecurity:
        """Return how to log in to the broker; raises `ConfigError` for what cannot be used.

        The environment wins over the file, a password of its own over both.
        """
        values = dict(read_values(self.broker_settings)) if self.broker_settings is not None else {}
        values |= self.security
        if self.sasl_password is not None:
            values["sasl_plain_password"] = self.sasl_password
        elif self.sasl_password_file is not None:
            values["sasl_plain_password_file"] = self.sasl_password_file
        return security_of(values, str(self.broker_settings or "SIGNALBOX_SECURITY"))

    @property
    def triton_security(self) -> Mapping[str, Any] | None:
        """Return the values of Triton's settings file, None for a connection in the clear."""
        return None if self.triton_settings is None else read_values(self.triton_settings)

    @property
    def tuning(self) -> Tuning:
        """Return the bounds."""
        parking = Parking(self.parked, int(self.park_s * 1000))
        horizon_ms = int(self.ledger_s * 1000)
        work = WorkLimits(self.concurrency, self.jobs, self.job_span, horizon_ms, parking)
        return Tuning(
            self.window, work, self.regions, ArchiveLimits(self.archive_flush_s, self.archive_care_s)
        )

    def claim_check(self) -> ClaimCheck:
        """Return the claim check; raises `ConfigError` for a store that cannot be used."""
        limits = ClaimLimits(self.inline_bytes, self.claim_budget_s)
        return ClaimCheck(store_at(self.claims) if self.claims else None, limits)

    @property
    def letter_limits(self) -> LetterLimits:
        """Return when a stage stops, and what a record may have."""
        return LetterLimits(
            self.dead_letters_in_a_row,
            self.dead_letter_ratio,
            self.dead_letter_sample,
            self.dead_letter_budget_s,
            self.record_bytes,
        )

    def context(self, cluster: str) -> Context:
        """Return where a worker runs."""
        return Context(cluster, self.partitions, self.tenant)

    def endpoints(self) -> Mapping[str, Endpoint]:
        """Return provider -> where it is; raises `ConfigError` if a key file cannot be read."""
        return {name: Endpoint(url, self._key(name)) for name, url in self.providers.items()}

    def _key(self, name: str) -> SecretStr | None:
        path = self.key_files.get(name)
        if path is None:
            return self.keys.get(name)
        secret = read_secret(path, f"the key of provider {name!r}")
        key = secret.get_secret_value()
        if not (key.isascii() and key.isprintable()):
            raise ConfigError(f"{path} holds no key for provider {name!r}: one line of printable ASCII")
        return secret


def settings(**given: Any) -> Settings:
    """Return the settings of this process; *given* ones that are not None win over the environment."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise ConfigError(f"setting {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except SettingsError as error:
        # Its text names the variable; the cause would quote what it holds.
        raise ConfigError(f"{error}; mappings are JSON objects") from None


def environment() -> Mapping[str, str]:
    """Return this process's environment, which a policy's file may refer to."""
    return dict(os.environ)


def claims_folder(stack: Path) -> Path:
    """Return where the stack in folder *stack* keeps large bodies, unless it is told otherwise."""
    return stack.absolute() / "claims"


def wall_clock() -> int:
    """Return microseconds since the epoch; the clock that processes pass down."""
    return time.time_ns() // 1000
