"""Triton's own virtual environment: numpy 1, ONNX Runtime, the server's wheel, its backends.

``python -m infra.local.triton_env`` creates it if need be and prints its Python's path.
It lives in the cache, in a folder named after the lock and the Python version.
"""

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from infra.local import launch, triton_lock
from infra.local.downloads import exclusively
from infra.local.errors import DownloadFailed, MissingDependency, StackError, explain_os_error
from infra.local.interpreters import Interpreter, find_interpreter
from infra.local.machine import cache_folder, environment, require_glibc

LOCK = "triton-requirements.lock"
SOURCE = "triton-requirements.in"
# Part of the folder's name: raise it when the way of building changes.
LAYOUT = "1"
_DONE = "complete"
_TAIL = 1500


@dataclass(frozen=True, slots=True)
class TritonEnvironment:
    """A finished environment: where the server, its backends and its Python are."""

    root: Path
    version: str
    library_folder: Path | None

    @property
    def python(self) -> Path:
        """The interpreter that models are built and served with."""
        return self.root / "venv" / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        """Where its packages are."""
        return self.root / "venv" / "lib" / f"python{self.version}" / "site-packages"

    @property
    def server(self) -> Path:
        """The tritonserver binary."""
        return self.site_packages / "pytriton" / "tritonserver" / "bin" / "tritonserver"

    @property
    def backends(self) -> Path:
        """The folder for ``--backend-directory``."""
        return self.root / "backends"

    def variables(self) -> dict[str, str]:
        """Return what the server's environment needs on top of ours."""
        libraries = [str(self.site_packages / "nvidia_pytriton.libs")]
        if self.library_folder is not None:
            libraries.append(str(self.library_folder))
        return {
            "VIRTUAL_ENV": str(self.root / "venv"),
            "PATH": f"{self.root / 'venv' / 'bin'}:{environment().get('PATH', '')}",
            "LD_LIBRARY_PATH": ":".join(libraries),
            "PYTHONPATH": str(self.site_packages),
        }


def lock_text() -> str:
    """Return the lock that this version is pinned to."""
    return resources.files("infra.local").joinpath(LOCK).read_text(encoding="utf-8")


def ensure_triton_env(cache: Path) -> TritonEnvironment:
    """Return the environment, creating it in *cache* at first use (about a minute).

    Raises:
        MissingDependency: this machine's C library or interpreters cannot carry it.
        DownloadFailed: a pinned package cannot be installed.
        DiskFull: the cache has no room.
    """
    require_glibc()
    interpreter = find_interpreter()
    version = ".".join(map(str, interpreter.version))
    digest = hashlib.sha256(f"{LAYOUT}\n{lock_text()}".encode()).hexdigest()[:12]
    with exclusively(cache / "triton") as folder:
        root = folder / f"{digest}-py{version}"
        finished = TritonEnvironment(root=root, version=version, library_folder=interpreter.library_folder)
        if not (root / _DONE).exists() or not finished.python.exists():
            try:
                _create(finished, interpreter)
            except OSError as error:
                raise explain_os_error(error, root) from error
    return finished


def _create(target: TritonEnvironment, interpreter: Interpreter) -> None:
    shutil.rmtree(target.root, ignore_errors=True)
    target.root.mkdir(parents=True)
    _run(
        [str(interpreter.path), "-m", "venv", str(target.root / "venv")],
        f"cannot make an environment with {interpreter.path} (apt install python{target.version}-venv)",
    )
    lock = target.root / LOCK
    lock.write_text(lock_text(), encoding="utf-8")
    _run(
        [str(target.python), "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes",
         "--only-binary", ":all:", "--requirement", str(lock)],
        "cannot install Triton's packages: check the network, and pip's index and proxy settings "
        "(pip config list); "
        "without Triton, use a policy without classifiers (--no-triton) or an "
        "external server (--triton-address)",
    )  # fmt: skip
    _copy_backend(target)
    (target.root / _DONE).write_text(target.version, encoding="ascii")


def _copy_backend(target: TritonEnvironment) -> None:
    carried = target.server.parent.parent
    stub = carried / "python_backend_stubs" / target.version / "triton_python_backend_stub"
    if not stub.exists():
        has = ", ".join(sorted(path.name for path in (carried / "python_backend_stubs").glob("*")))
        raise MissingDependency(
            f"the Triton wheel has no Python backend for Python {target.version} (it has: {has}): put "
            "one of those "
            "interpreters on PATH"
        )
    backend = target.backends / "python"
    shutil.copytree(carried / "backends" / "python", backend)
    copied = Path(shutil.copy(stub, backend))
    copied.chmod(0o755)
    target.server.chmod(0o755)


def _run(command: list[str], failure: str) -> None:
    # A Python that was told about another environment would install into that one.
    clean = {
        key: value for key, value in environment().items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    # Nobody waits for an installation whose starter is gone.
    bound = [
        sys.executable,
        "-I",
        "-S",
        launch.__file__,
        str(os.getpid()),
        str(int(signal.SIGKILL)),
        *command,
    ]
    done = subprocess.run(bound, capture_output=True, text=True, check=False, env=clean)
    if done.returncode != 0:
        raise DownloadFailed(f"{failure}.\n{(done.stdout + done.stderr)[-_TAIL:].strip()}")


def main() -> int:
    """Create the environment if need be, and print the path of its Python."""
    parser = argparse.ArgumentParser(prog="python -m infra.local.triton_env", description=main.__doc__)
    parser.add_argument("--cache", type=Path, help="where downloads live (default: ~/.cache/signalbox)")
    parser.add_argument("--lock", action="store_true", help="write the lock anew instead (needs uv)")
    arguments = parser.parse_args()
    if arguments.lock:
        here = Path(__file__).parent
        (here / LOCK).write_text(triton_lock.locked(here / SOURCE), encoding="utf-8")
        return 0
    try:
        found = ensure_triton_env(cache_folder(arguments.cache))
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{found.python}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
