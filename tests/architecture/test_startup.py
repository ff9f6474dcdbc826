"""A worker starts with what it needs: libraries of analysis and gRPC are imported by those that use them."""

import subprocess
import sys

HEAVY = (
    "grpc",
    "matplotlib",
    "pandas",
    "pyarrow",
    "pymilvus",
    "ruamel.yaml",
    "scipy",
    "sklearn",
    "tritonclient",
)


def test_the_command_line_imports_no_library_that_few_commands_need() -> None:
    """Every worker is a process of its own: a second and 150 MB for each would be paid many times."""
    code = f"import signalbox, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert found.stdout.strip() == "[]"
