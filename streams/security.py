"""How a client proves itself to the broker and the broker to it: one value for every Kafka client of ours.

Read from a file (`--broker-settings`), from the environment, or both. Passwords are secrets: no
representation, error or log shows them, and they are never arguments of a process.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, model_validator

from agents.errors import ConfigError

_TRITON_FILES = {"root_certificates", "private_key", "certificate_chain"}
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class BrokerSecurity(BaseModel):
    """TLS and SASL of a Kafka client; the names are those of the client library, files are PEM."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_plain_username: str | None = None
    sasl_plain_password: SecretStr | None = None
    sasl_plain_password_file: Path | None = None
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    ssl_password: SecretStr | None = None
    ssl_password_file: Path | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.uses_sasl:
            if self.sasl_mechanism is None:
                raise ValueError(f"{self.security_protocol} needs sasl_mechanism: {', '.join(MECHANISMS)}")
            password = self.sasl_plain_password or self.sasl_plain_password_file
            if not self.sasl_plain_username or password is None:
                raise ValueError("SASL needs sasl_plain_username and sasl_plain_password (or ..._file)")
        elif self.sasl_mechanism is not None:
            raise ValueError("sasl_mechanism needs security_protocol SASL_SSL or SASL_PLAINTEXT")
        if not self.uses_tls and (self.ssl_cafile or self.ssl_certfile or self.ssl_keyfile):
            raise ValueError("ssl_* files need security_protocol SSL or SASL_SSL")
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("a client certificate needs both ssl_certfile and ssl_keyfile")
        return self

    @property
    def uses_tls(self) -> bool:
        """Return whether the connection is encrypted."""
        return self.security_protocol in {"SSL", "SASL_SSL"}

    @property
    def uses_sasl(self) -> bool:
        """Return whether the client logs in by name."""
        return self.security_protocol.startswith("SASL_")

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of a client; reads the files, and raises `ConfigError` if one will not do."""
        found: dict[str, Any] = {"security_protocol": self.security_protocol}
        if self.uses_tls:
            found["ssl_context"] = self._context()
        if self.uses_sasl:
            password = self.sasl_plain_password or _secret(self.sasl_plain_password_file)
            found |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_plain_username,
                "sasl_plain_password": password.get_secret_value() if password else "",
            }
        return found

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=self.ssl_cafile)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"cannot read the CA certificates in {self.ssl_cafile}: {_why(error)}"
            ) from None
        if self.ssl_certfile is None or self.ssl_keyfile is None:
            return context
        secret = self.ssl_password or _secret(self.ssl_password_file)
        # Without a password the library would ask on the terminal for that of an encrypted key.
        password = secret.get_secret_value() if secret else ""
        try:
            context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile, password=lambda: password)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise ConfigError(
                f"cannot use the client certificate {self.ssl_certfile} with key {self.ssl_keyfile}: "
                f"{_why(error)}; is it PEM, does the key belong to it, is ssl_password(_file) right?"
            ) from None
        return context


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    return str(reason or type(error).__name__)


def _secret(path: Path | None) -> SecretStr | None:
    return None if path is None else read_secret(path, "the password")


def read_secret(path: Path, what: str) -> SecretStr:
    """Return the one line in *path*; raises `ConfigError`, quoting nothing."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ConfigError(f"cannot read {what} from {path}: {reason}") from None
    if not text or "\n" in text:
        raise ConfigError(f"{path} holds not one line with {what}")
    return SecretStr(text)


def security_of(values: Mapping[str, Any], source: str) -> BrokerSecurity:
    """Return the security that *values* state; raises `ConfigError` naming *source* and what to change."""
    try:
        return BrokerSecurity.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the settings"
        raise ConfigError(f"{source}: {where}: {first['msg'].removeprefix('Value error, ')}") from None


def read_values(path: Path) -> Mapping[str, Any]:
    """Return the flat object in the YAML or JSON file *path*; raises `ConfigError`, quoting nothing.

    Paths in it are relative to its folder.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ConfigError(f"cannot read the settings file {path}: {reason}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"the settings file {path} is not valid YAML{where}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"the settings file {path} has to hold one object: name: value per line")
    return {str(name): _placed(str(name), value, path.parent) for name, value in values.items()}


def _placed(name: str, value: Any, folder: Path) -> Any:
    is_file = name.endswith("file") or name in _TRITON_FILES
    return str(folder / value) if is_file and isinstance(value, str) else value
