"""How the lock of Triton's environment is made; needs uv, a tool of developers.

The server's wheel carries the tritonserver binary and the Python backend; its Python
dependencies (gRPC and HTTP clients) are not needed and therefore not locked.
"""

import subprocess
import sys
from pathlib import Path

SERVER = "nvidia-pytriton==0.7.0"
_OPTIONS = (
    "--generate-hashes", "--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_35",
    "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--quiet",
)  # fmt: skip


def compiled(requirements: str, *options: str, folder: Path) -> str:
    """Return *requirements* (a file's text) resolved, with the hashes of every file.

    Raises:
        subprocess.CalledProcessError: uv could not resolve them.
    """
    command = (sys.executable, "-m", "uv", "pip", "compile", *_OPTIONS, *options, "-")
    done = subprocess.run(
        command, input=requirements, text=True, stdout=subprocess.PIPE, check=True, cwd=folder
    )
    return done.stdout


def locked(source: Path) -> str:
    """Return the whole lock for the requirements in *source*."""
    models = compiled(source.read_text(encoding="utf-8"), folder=source.parent)
    server = compiled(SERVER, "--no-deps", folder=source.parent)
    return f"# python -m infra.local.triton_env --lock\n{models}{server}"
