"""Where an archive lies: addresses that hold no secret, and errors that tell the place from the way to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import signalbox
from agents.errors import ConfigError, Unavailable
from replay.archive_cli import open_archive
from replay.archive_files import Files
from replay.archive_place import filesystem_at
from tests.replay.logs import POLICY_YAML
from tests.replay.places import bucket, s3

__all__ = ["s3"]

SECRET = "swordfish"


@pytest.mark.parametrize(
    "where",
    [
        f"s3://key:{SECRET}@bucket/folder",
        f"s3://key:{SECRET}@bucket/folder?endpoint=http://127.0.0.1:1",
        f"s3://key:{SECRET} @bucket/folder",
        f"s3://key:{SECRET}@bucket/folder?colour=blue",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_quoted(where: str) -> None:
    """The error names the place and the variables that hold them instead."""
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID") as caught:
        Files(where)

    assert SECRET not in str(caught.value)
    assert "s3://bucket/folder" in str(caught.value)


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("s3://bucket/folder?colour=blue", "colour"),
        ("s3://bucket/folder?endpoint=127.0.0.1:1", "endpoint must look like"),
        ("s3://bucket/folder?endpoint=ftp://127.0.0.1", "endpoint must look like"),
        ("nothing://bucket/folder", "s3://bucket/folder"),
    ],
)
def test_an_address_that_cannot_be_used_says_how_one_looks(where: str, why: str) -> None:
    """Unknown options, endpoints without a scheme and filesystems that nobody knows are refused at once."""
    with pytest.raises(ConfigError, match=why):
        filesystem_at(where)


def test_arrow_s_own_options_go_on_to_work(s3: str) -> None:
    """What an address said before `endpoint` was known, it may still say."""
    short = bucket(s3)
    long = f"{short.partition('?')[0]}?scheme=http&endpoint_override={s3}&region=us-east-1"
    Files(short).put_bytes("a", b"b")

    assert Files(long).read_bytes("a") == b"b"


def test_a_place_that_does_not_answer_is_no_missing_archive(s3: str, tmp_path: Path) -> None:
    """Exit 3 where nothing listens; 2 where the place answers that there is no archive, or no such bucket."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY_YAML)
    here = bucket(s3)
    away = here.replace(s3, "127.0.0.1:1")

    def ran(*command: str) -> tuple[int, str]:
        done = CliRunner().invoke(signalbox.app, ["replay", *command])
        return done.exit_code, done.stderr

    empty = ran("decide", "--log", here, "--policy", str(policy))
    nowhere = ran("compact", "--archive", here.replace("s3://archive", "s3://nowhere"))
    gone = ran("decide", "--log", away, "--policy", str(policy))

    assert (empty[0], "no archive" in empty[1]) == (2, True)
    assert nowhere[0] == 2
    assert (gone[0], "no archive" in gone[1]) == (3, False)


def test_a_worker_is_told_apart_what_does_not_answer_from_what_is_not_there(s3: str) -> None:
    """Who does not answer may come back; a bucket that does not exist has to be made first."""
    with pytest.raises(Unavailable, match="s3://bucket/folder"):
        open_archive("s3://bucket/folder?endpoint=http://127.0.0.1:1", ("c", "p", False))
    with pytest.raises(OSError, match="nobody-made-it"):
        open_archive(f"s3://nobody-made-it/folder?endpoint=http://{s3}", ("c", "p", False))
