"""Which Python interpreters here could run Triton's Python backend.

The backend's stub is built for one minor version, needs that version's shared library,
and reads numpy 1 structures, for which no wheels exist after Python 3.12.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.local.errors import MissingDependency

VERSIONS = ((3, 11), (3, 12))
_PROBE_TIMEOUT = 20.0
_PROBE = """
import importlib.util, json, os, sys, sysconfig
folder, name = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME")
print(json.dumps({
    "version": sys.version_info[:2],
    "folder": folder,
    "shared": bool(name) and ".so" in name and os.path.exists(os.path.join(folder or "", name)),
    "venv": all(importlib.util.find_spec(module) for module in ("venv", "ensurepip")),
}))
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that was asked about itself."""

    path: Path
    version: tuple[int, int]
    library_folder: Path | None
    has_shared_library: bool
    has_venv: bool

    @property
    def obstacle(self) -> str | None:
        """Why it cannot host the backend, None if it can."""
        minor = ".".join(map(str, self.version))
        if self.version not in VERSIONS:
            return f"is {minor}"
        if not self.has_shared_library:
            return f"has no libpython{minor}.so (apt install libpython{minor})"
        if not self.has_venv:
            return f"cannot make environments (apt install python{minor}-venv)"
        return None


def probe(path: Path) -> Interpreter | None:
    """Ask the interpreter at *path* about itself; None if it does not run."""
    try:
        done = subprocess.run(
            [str(path), "-I", "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT,
            check=True,
        )
        said = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    major, minor = said["version"]
    folder = said["folder"]
    return Interpreter(
        path=path,
        version=(major, minor),
        library_folder=Path(folder) if folder else None,
        has_shared_library=said["shared"],
        has_venv=said["venv"],
    )


def candidates() -> Iterator[Path]:
    """Yield this interpreter first, then those on PATH, then those that uv installed."""
    yield Path(sys.executable)
    names = [f"python{major}.{minor}" for major, minor in VERSIONS]
    for name in [*names, "python3"]:
        if found := shutil.which(name):
            yield Path(found)
    if uv := shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent)):
        for name in names:
            done = subprocess.run(
                [uv, "python", "find", "--no-project", name.removeprefix("python")],
                capture_output=True, text=True, timeout=_PROBE_TIMEOUT, check=False,
            )  # fmt: skip
            if done.returncode == 0 and done.stdout.strip():
                yield Path(done.stdout.strip())


def find_interpreter() -> Interpreter:
    """Return the first interpreter that can host Triton's Python backend.

    Raises:
        MissingDependency: none can; names each that was tried, and what to install.
    """
    tried: dict[str, str] = {}
    for path in candidates():
        found = probe(path)
        if found is None:
            tried.setdefault(str(path), "does not run")
        elif found.obstacle is None:
            return found
        else:
            tried.setdefault(str(path), found.obstacle)
    wanted = " or ".join(".".join(map(str, version)) for version in VERSIONS)
    reasons = "; ".join(f"{path} {reason}" for path, reason in tried.items())
    raise MissingDependency(
        f"Triton's Python backend runs on Python {wanted} with its shared library; tried: {reasons}. "
        "Install one "
        "(`uv python install 3.12`, or apt install python3.11-venv libpython3.11) and leave it on "
        "PATH, name an "
        "external Triton (--triton-address), or use a policy without classifiers (--no-triton)"
    )
