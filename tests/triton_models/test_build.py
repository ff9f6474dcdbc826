"""The served repository holds what was asked for, whole, under a version of its own."""

import importlib.util
import json
from pathlib import Path

import pytest

from triton_models import build
from triton_models.build import MODELS, TEMPLATES, Options, main

CONSTANT = Options(models=("constant",))


def built(folder: Path, options: Options = CONSTANT) -> str:
    """Build into *folder* and return the version of `constant`."""
    return build.build(folder / "repository", folder / "cache", options)["constant"]


def config(folder: Path) -> str:
    """The served configuration of `constant`."""
    return (folder / "repository" / "constant" / "config.pbtxt").read_text(encoding="utf-8")


def test_a_model_is_served_with_its_settings(tmp_path: Path) -> None:
    """Instances, delay and version stand in the configuration that Triton reads."""
    version = built(tmp_path, Options(models=("constant",), instances=3, delay_ms=2.5))

    text = config(tmp_path)

    assert "count: 3" in text
    assert 'key: "delay_ms" value { string_value: "2.5" }' in text
    assert f'key: "version" value {{ string_value: "{version}" }}' in text
    assert (tmp_path / "repository" / "constant" / "1" / "model.py").is_file()


def test_only_what_was_asked_for_is_built(tmp_path: Path) -> None:
    """Building one model leaves nothing else behind, in the repository or beside it."""
    built(tmp_path)

    assert [path.name for path in (tmp_path / "repository").iterdir()] == ["constant"]
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]


def test_a_version_follows_the_code_and_not_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same code has the same version however often it is served; other code has another."""
    before = built(tmp_path)
    slower = built(tmp_path, Options(models=("constant",), instances=2, delay_ms=5))
    template = tmp_path / "templates" / "constant"
    (template / "1").mkdir(parents=True)
    for path in (TEMPLATES / "constant").rglob("*.*"):
        (template / path.relative_to(TEMPLATES / "constant")).write_bytes(path.read_bytes() + b"\n")
    monkeypatch.setattr(build, "TEMPLATES", tmp_path / "templates")
    after = built(tmp_path)

    assert before == slower != after


def test_a_new_build_replaces_the_old_one(tmp_path: Path) -> None:
    """Nothing of an earlier repository is served on."""
    (tmp_path / "repository" / "forgotten").mkdir(parents=True)

    built(tmp_path)

    assert not (tmp_path / "repository" / "forgotten").exists()


def test_the_command_line_says_where_and_which(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints the repository and the versions, and nothing else, to stdout."""
    out = tmp_path / "repository"

    code = main(["--models", "constant", "--out", str(out), "--cache", str(tmp_path), "--json"])

    answer = json.loads(capsys.readouterr().out)
    assert code == 0
    assert answer["repository"] == str(out)
    assert answer["versions"].keys() == {"constant"}


@pytest.mark.skipif(importlib.util.find_spec("onnx") is not None, reason="this environment could build it")
def test_an_interpreter_that_cannot_build_says_which_can(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without onnx the encoder is not built, and the error holds the command that works."""
    code = main(["--models", "encoder", "--out", str(tmp_path / "repository"), "--cache", str(tmp_path)])

    assert code == 2
    assert '--python "$(python -m infra.local.triton_env)"' in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--instances", "0"], ["--delay-ms", "-1"], ["--models", "decoder"]])
def test_impossible_settings_are_bad_usage(words: list[str]) -> None:
    """What cannot be meant ends with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main(words)

    assert ended.value.code == 2


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_described(name: str) -> None:
    """Each has a card and a configuration under its name, code, and a line in the README."""
    folder = TEMPLATES / name
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    readme = (TEMPLATES.parent / "README.md").read_text(encoding="utf-8")

    assert card["name"] == name
    assert card["licence"]
    assert f'name: "{name}"' in (folder / "config.pbtxt").read_text(encoding="utf-8")
    assert f"dims: [ {card['dimensions']} ]" in (folder / "config.pbtxt").read_text(encoding="utf-8")
    assert (folder / "1" / "model.py").is_file()
    assert f"| `{name}` |" in readme


def test_every_folder_of_the_repository_is_a_model() -> None:
    """No model lies in the repository that cannot be built."""
    assert {path.name for path in TEMPLATES.iterdir() if path.is_dir()} == set(MODELS)
