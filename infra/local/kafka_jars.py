"""The jars of Apache Kafka: listed with their checksums, fetched by jgo, verified.

``python -m infra.local.kafka_jars`` fetches them; with ``--resolve`` it resolves the list anew
and prints it instead. The committed ``kafka-jars.sha256`` is what every machine gets.
jgo takes a third of a second to import, so it is imported where something is to be fetched.
"""

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import requests

from infra.local.downloads import exclusively
from infra.local.errors import DownloadFailed, StackError, explain_os_error
from infra.local.machine import cache_folder

KAFKA_VERSION = "4.3.1"
# Kafka logs through SLF4J 1.7; its log4j2 binding is packaged apart from the broker.
COORDINATES = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4",
)
MANIFEST = "kafka-jars.sha256"
PARALLEL = 8
# Seconds between the tries of one jar: a repository under load refuses now and then.
WAITS = (1.0, 4.0)


@dataclass(frozen=True, slots=True)
class Jar:
    """A pinned file: its place in a Maven repository and its SHA-256."""

    path: str
    sha256: str

    @property
    def coordinate(self) -> tuple[str, str, str]:
        """Group, artifact and version, as the path spells them."""
        *group, artifact, version, _ = self.path.split("/")
        return ".".join(group), artifact, version


def parse_manifest(text: str) -> tuple[Jar, ...]:
    """Return the jars of a manifest in the format of sha256sum."""
    lines = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return tuple(Jar(path=path, sha256=digest) for digest, path in lines)


def manifest() -> tuple[Jar, ...]:
    """Return the jars that this version is pinned to."""
    return parse_manifest(resources.files("infra.local").joinpath(MANIFEST).read_text(encoding="ascii"))


def verified(jar: Jar, repository: Path) -> bool:
    """Return whether *jar* lies in *repository* with the pinned content."""
    try:
        with (repository / jar.path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == jar.sha256
    except OSError:
        return False


def ensure_jars(cache: Path, jars: Iterable[Jar] | None = None) -> tuple[Path, ...]:
    """Return the verified jars, fetching what the cache lacks.

    Raises:
        DownloadFailed: a jar cannot be reached, or is not the pinned one.
        DiskFull: the cache has no room.
    """
    wanted = tuple(manifest() if jars is None else jars)
    with exclusively(cache / "maven") as repository:
        missing = [jar for jar in wanted if not verified(jar, repository)]
        if missing:
            _fetch(missing, repository)
    return tuple(repository / jar.path for jar in wanted)


def _fetch(jars: list[Jar], repository: Path) -> None:
    from jgo.config import GlobalSettings  # noqa: PLC0415
    from jgo.constants import MAVEN_CENTRAL_URL  # noqa: PLC0415
    from jgo.maven import MavenContext  # noqa: PLC0415

    repositories = {**GlobalSettings.load().repositories, "central": MAVEN_CENTRAL_URL}
    context = MavenContext(repo_cache=repository, remote_repos=repositories, timeout=60)

    def fetch(jar: Jar) -> None:
        group, artifact, version = jar.coordinate
        _fetch_one(jar, repository, context.project(group, artifact).at_version(version).artifact().resolve)

    with ThreadPoolExecutor(PARALLEL) as pool:
        # list() so that the first failure is raised here.
        list(pool.map(fetch, jars))


def _insistently(file: Path, resolve: Callable[[], object]) -> None:
    for wait in (*WAITS, None):
        # A half-written or foreign file is in the way of a good one.
        file.unlink(missing_ok=True)
        try:
            resolve()
        except (RuntimeError, requests.RequestException):
            if wait is None:
                raise
            time.sleep(wait)
        else:
            return


def _fetch_one(jar: Jar, repository: Path, resolve: Callable[[], object]) -> None:
    try:
        _insistently(repository / jar.path, resolve)
    except (RuntimeError, requests.RequestException) as error:
        raise DownloadFailed(
            f"cannot fetch {jar.path} of Apache Kafka {KAFKA_VERSION}: {error}. Check the network and "
            "the proxy "
            "(HTTPS_PROXY), or name a mirror of Maven Central in ~/.config/jgo.conf: [repositories] "
            "name = URL. "
            "Without a broker, `signalbox run FILE` routes a file in one process"
        ) from error
    except OSError as error:
        raise explain_os_error(error, repository) from error
    if not verified(jar, repository):
        (repository / jar.path).unlink(missing_ok=True)
        raise DownloadFailed(
            f"{jar.path} is not the pinned file: its SHA-256 differs from {jar.sha256}. It was deleted; "
            "a proxy or mirror may have changed it: fetch again from another network or mirror"
        )


def resolve_manifest() -> str:
    """Return a manifest resolved from the coordinates, with the digests of the files.

    Trusts what it downloads: read the difference before committing it.
    """
    import jgo  # noqa: PLC0415

    lines = {}
    for coordinate in COORDINATES:
        for found in jgo.resolve(coordinate):
            file = Path(found.resolve())
            path = f"{found.component.path_prefix}/{found.filename}"
            lines[path] = hashlib.sha256(file.read_bytes()).hexdigest()
    listed = "".join(f"{digest}  {path}\n" for path, digest in sorted(lines.items()))
    how = f"python -m infra.local.kafka_jars --resolve > infra/local/{MANIFEST}"
    return f"# {' '.join(COORDINATES)}\n# {how}\n{listed}"


def main() -> int:
    """Fetch the pinned jars, so that a first start finds them; prints their folder."""
    parser = argparse.ArgumentParser(prog="python -m infra.local.kafka_jars", description=main.__doc__)
    parser.add_argument("--cache", type=Path, help="where downloads live (default: ~/.cache/signalbox)")
    parser.add_argument("--resolve", action="store_true", help="print the list, resolved anew, instead")
    arguments = parser.parse_args()
    if arguments.resolve:
        sys.stdout.write(resolve_manifest())
        return 0
    cache = cache_folder(arguments.cache)
    try:
        ensure_jars(cache)
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{cache / 'maven'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
