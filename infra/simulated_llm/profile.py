"""The profile: how each simulated provider and model behaves, validated.

The only module that reads a profile file.
"""

from __future__ import annotations

from functools import cached_property
from importlib.resources import files
from math import log
from typing import TYPE_CHECKING, Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

if TYPE_CHECKING:
    from pathlib import Path

Probability = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Spread = Annotated[float, Field(ge=0, le=4)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")]


class ProfileError(Exception):
    """A profile that cannot be read or is not valid; the message says where."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Latency(_Section):
    """Time to the first token (lognormal) and time for each later one, in ms."""

    ttft_median_ms: NotNegative = 0.0
    ttft_sigma: Spread = 0.0
    per_token_ms: NotNegative = 0.0

    @cached_property
    def mu(self) -> float:
        """Return the location of the lognormal in log seconds."""
        return log(self.ttft_median_ms / 1000.0) if self.ttft_median_ms else float("-inf")


class Length(_Section):
    """Completion tokens: lognormal, cut to [minimum, maximum]."""

    median: Annotated[int, Field(ge=1)] = 64
    sigma: Spread = 0.0
    minimum: Annotated[int, Field(ge=1)] = 1
    maximum: Annotated[int, Field(ge=1)] = 4096

    @cached_property
    def mu(self) -> float:
        """Return the location of the lognormal in log tokens."""
        return log(self.median)

    @model_validator(mode="after")
    def _ordered(self) -> Length:
        if not self.minimum <= self.median <= self.maximum:
            raise ValueError("length needs minimum <= median <= maximum")
        return self


class Price(_Section):
    """Informational: what a caller's own price table would say, USD per million tokens."""

    input_per_million: NotNegative = 0.0
    output_per_million: NotNegative = 0.0


class Faults(_Section):
    """Chances of one call going wrong; what is left of 1 succeeds."""

    error: Probability = 0.0
    error_statuses: Annotated[tuple[int, ...], Field(min_length=1)] = (500, 503)
    rate_limit: Probability = 0.0
    hang: Probability = 0.0

    @model_validator(mode="after")
    def _sum_to_one_at_most(self) -> Faults:
        if self.error + self.rate_limit + self.hang > 1.0:
            raise ValueError("error + rate_limit + hang must not exceed 1")
        if not all(400 <= status <= 599 for status in self.error_statuses):  # noqa: PLR2004 - HTTP error range
            raise ValueError("error_statuses must be between 400 and 599")
        return self


class RateLimit(_Section):
    """A token bucket: *rps* calls a second, *burst* at once."""

    rps: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    burst: Annotated[int, Field(ge=1)] = 1


class ModelProfile(_Section):
    """One model: how fast, how long, how dear and how unreliable it is."""

    latency: Latency = Latency()
    length: Length = Length()
    price: Price = Price()
    faults: Faults = Faults()
    bucket: RateLimit | None = None
    retry_after_s: NotNegative = 1.0
    context_tokens: Annotated[int, Field(ge=1)] | None = None


class ProviderProfile(_Section):
    """One provider: its models by name."""

    models: Annotated[dict[Name, ModelProfile], Field(min_length=1)]


class Profile(_Section):
    """Every simulated provider by name; the name is the first part of its path."""

    providers: Annotated[dict[Name, ProviderProfile], Field(min_length=1)]

    @model_validator(mode="after")
    def _no_reserved_name(self) -> Profile:
        reserved = {"v1", "health", "control"} & set(self.providers)
        if reserved:
            raise ValueError(
                f"a provider cannot be called {min(reserved)!r}: the server uses that path itself"
            )
        return self

    def find(self, provider: str, model: str) -> ModelProfile | None:
        """Return the model's profile, or None if there is no such provider or model."""
        known = self.providers.get(provider)
        return known.models.get(model) if known else None

    def provider_of(self, model: str) -> str | None:
        """Return the first provider that serves *model*, or None."""
        return next((name for name, known in self.providers.items() if model in known.models), None)


def parse(text: str, where: str = "profile") -> Profile:
    """Return the profile in YAML or JSON *text*.

    Raises:
        ProfileError: the text is not YAML or not a profile; *where* is named.
    """
    try:
        return Profile.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ProfileError(f"{where}: not YAML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'top level'}: {e['msg']}" for e in error.errors()
        )
        raise ProfileError(f"{where}: {problems}") from error


def load(path: Path) -> Profile:
    """Return the profile in the file at *path*.

    Raises:
        ProfileError: the file cannot be read or is not a profile.
    """
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: cannot be read: {error}") from error


def default() -> Profile:
    """Return the profile that the package ships: providers north and south."""
    return parse(
        files(__package__ or "infra.simulated_llm").joinpath("profile.yaml").read_text(encoding="utf-8"),
        "profile.yaml",
    )
