"""Profiles: what is accepted, what is refused and how the refusal reads."""

from pathlib import Path

import pytest

from infra.simulated_llm import profile


def test_the_bundled_profile_has_two_providers_and_three_models() -> None:
    """The default profile serves north-small and north-large at north and south-coder at south."""
    served = {name: set(known.models) for name, known in profile.default().providers.items()}

    assert served == {"north": {"north-small", "north-large"}, "south": {"south-coder"}}


def test_a_profile_may_be_json(tmp_path: Path) -> None:
    """A JSON file is as good as YAML."""
    path = tmp_path / "profile.json"
    path.write_text('{"providers": {"east": {"models": {"m": {}}}}}', encoding="utf-8")

    assert profile.load(path).provider_of("m") == "east"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("providers: {}", "providers"),
        ("providers: {p: {models: {m: {latancy: {}}}}}", "providers.p.models.m.latancy"),
        ("providers: {p: {models: {m: {faults: {error: 0.6, hang: 0.6}}}}}", "must not exceed 1"),
        ("providers: {p: {models: {m: {faults: {error_statuses: [200]}}}}}", "between 400 and 599"),
        ("providers: {p: {models: {m: {length: {median: 9, maximum: 8}}}}}", "minimum <= median <= maximum"),
        ("providers: {health: {models: {m: {}}}}", "cannot be called 'health'"),
        ("providers: {'a/b': {models: {m: {}}}}", "providers.a/b"),
        ("providers: [", "not YAML"),
    ],
)
def test_a_wrong_profile_is_refused_with_its_place(text: str, told: str) -> None:
    """The error names the file and the field."""
    with pytest.raises(profile.ProfileError, match=r"^my\.yaml: ") as caught:
        profile.parse(text, "my.yaml")

    assert told in str(caught.value)


def test_a_missing_profile_is_an_error_that_names_it(tmp_path: Path) -> None:
    """A path that does not exist is told, not raised as an OSError."""
    with pytest.raises(profile.ProfileError, match=r"nowhere\.yaml: cannot be read"):
        profile.load(tmp_path / "nowhere.yaml")
