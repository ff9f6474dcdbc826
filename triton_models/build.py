"""Build the Triton model repository: `python -m triton_models.build [--out DIR]`.

Building the encoder needs the packages of `triton_models/requirements.in`. They live in Triton's environment,
not in the project's: started from another one, name an interpreter that has them with `--python`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triton_models.weights import Source, WeightsCorrupt, WeightsUnavailable, fetch, parse_safetensors

MODELS = ("encoder", "constant")
PRECISIONS = ("int8", "fp32")
TEMPLATES = Path(__file__).parent / "repository"
_VERSION_DIGITS = 12
_BAD_INPUT, _DEPENDENCY_DOWN = 2, 3


@dataclass(frozen=True, slots=True)
class Options:
    """What can be chosen about a served repository; *delay_ms* concerns `constant` alone, per text."""

    models: tuple[str, ...] = MODELS
    precision: str = "int8"
    instances: int = 1
    delay_ms: float = 0.0


def build(out: Path, cache: Path, options: Options) -> dict[str, str]:
    """Assemble the served repository in *out*, replacing it; return the version of each model.

    A version is the first 12 hex digits of the SHA-256 over all that can change a vector: graph, weights,
    tokeniser, serving code and limits. What has been built before is taken from *cache*.

    Raises:
        WeightsUnavailable: the weights could not be downloaded.
        WeightsCorrupt: a download does not have the pinned checksum.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".building-") as folder:
        staged = Path(folder) / "repository"
        staged.mkdir(mode=0o755)
        versions = {name: _assemble(name, staged / name, cache, options) for name in options.models}
        if out.exists():
            out.rename(Path(folder) / "replaced")
        staged.rename(out)
    return versions


def _assemble(name: str, folder: Path, cache: Path, options: Options) -> str:
    template = TEMPLATES / name
    shutil.copytree(template, folder, ignore=shutil.ignore_patterns("__pycache__"))
    card = json.loads((template / "card.json").read_text(encoding="utf-8"))
    parameters = {}
    if "source" in card:
        for path in _weights(card, cache, options.precision):
            shutil.copyfile(path, folder / "1" / path.name)
        card["precision"] = options.precision
    else:
        parameters["delay_ms"] = f"{options.delay_ms:g}"
    parameters["version"] = card["version"] = _digest(folder)
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    with (folder / "config.pbtxt").open("a", encoding="utf-8") as config:
        config.write(_settings(options.instances, parameters))
    return parameters["version"]


def _weights(card: Mapping[str, Any], cache: Path, precision: str) -> list[Path]:
    """The built graph and the tokeniser, made once per set of inputs."""
    source = Source.from_card(card)
    folder = cache / "models" / "built" / f"{card['name']}-{precision}-{_recipe(source)}"
    paths = [folder / "model.onnx", folder / "tokenizer.json"]
    if not all(path.is_file() for path in paths):
        files = fetch(source, cache / "wheels")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as staging:
            made = Path(staging) / "made"
            made.mkdir()
            _export(files["model.safetensors"], card["architecture"], precision, made / "model.onnx")
            (made / "tokenizer.json").write_bytes(files["tokenizer.json"])
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)
    return paths


def _export(weights: bytes, architecture: Mapping[str, int], precision: str, path: Path) -> None:
    import onnx  # noqa: PLC0415 - `constant` alone is built without it

    from triton_models import bert  # noqa: PLC0415 - as above

    shape = bert.Shape(**architecture)
    onnx.save(bert.sentence_encoder(parse_safetensors(weights), shape, int8=precision == "int8"), path)


def _recipe(source: Source) -> str:
    """Digest of what a built graph is made of: checked inputs, this code and onnx's version."""
    code = [Path(__file__).with_name(name).read_bytes() for name in ("build.py", "bert.py")]
    library = f"onnx {importlib.metadata.version('onnx')}"
    parts = [*code, json.dumps(dict(source.files), sort_keys=True).encode(), library.encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:_VERSION_DIGITS]


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()[:_VERSION_DIGITS]


def _settings(instances: int, parameters: Mapping[str, str]) -> str:
    lines = [f"instance_group [ {{ kind: KIND_CPU count: {instances} }} ]"]
    for key, value in parameters.items():
        lines.append(f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}')
    return "\n".join(lines) + "\n"


def default_cache() -> Path:
    """Where downloads and built models are kept.

    Precedence: `SIGNALBOX_CACHE`, `XDG_CACHE_HOME/signalbox`, `~/.cache/signalbox`.
    """
    environment = os.environ  # noqa: TID251 - a build has no settings to read this from
    if own := environment.get("SIGNALBOX_CACHE"):
        return Path(own)
    root = environment.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "signalbox"


def default_repository(cache: Path) -> Path:
    """Where the served repository lies unless `--out` says otherwise."""
    return cache / "models" / "repository"


def main(arguments: Sequence[str] | None = None) -> int:
    """Build as the command line says and print where the repository is; return the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    given = _parser().parse_args(words)
    if given.python and Path(given.python).absolute() != Path(sys.executable).absolute():
        _hand_over(given.python, words)
    if "encoder" in given.models and importlib.util.find_spec("onnx") is None:
        _say(
            f"{sys.executable} lacks onnx, which the encoder is built with; run this with"
            ' --python "$(python -m infra.local.triton_env)", or install triton_models/requirements.in'
        )
        return _BAD_INPUT
    out = given.out or default_repository(given.cache)
    options = Options(tuple(given.models), given.precision, given.instances, given.delay_ms)
    try:
        versions = build(out, given.cache, options)
    except (WeightsUnavailable, WeightsCorrupt) as error:
        _say(str(error))
        return _DEPENDENCY_DOWN
    answer = {"repository": str(out.absolute()), "versions": versions}
    text = json.dumps(answer) if given.json else f"{answer['repository']}: {_listing(versions)}"
    sys.stdout.write(f"{text}\n")
    return 0


def _hand_over(python: str, words: Sequence[str]) -> None:
    """Become *python* running this module; its own packages come before those next to ours."""
    root = str(Path(__file__).resolve().parents[1])
    code = (
        f"import runpy, sys; sys.path.append({root!r});"
        " runpy.run_module('triton_models.build', run_name='__main__', alter_sys=True)"
    )
    os.execv(python, [python, "-c", code, *words])  # noqa: S606 - the interpreter that the caller names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m triton_models.build", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder of the served repository (default: in the cache)")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="downloads and built models")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--precision", choices=PRECISIONS, default=PRECISIONS[0])
    parser.add_argument("--instances", type=_positive, default=1, help="copies, one thread each")
    parser.add_argument("--delay-ms", type=_not_negative, default=0.0, help="sleep of `constant` per text")
    parser.add_argument("--python", help="interpreter that has triton_models/requirements.in")
    parser.add_argument("--json", action="store_true", help="print repository and versions as JSON")
    return parser


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def _not_negative(text: str) -> float:
    if not (number := float(text)) >= 0:
        raise ValueError
    return number


def _listing(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name}@{version}" for name, version in versions.items())


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
