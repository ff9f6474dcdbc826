"""A worker starts with what it needs: libraries of analysis are imported by the commands that use them."""

import subprocess
import sys

HEAVY = ("matplotlib", "pandas", "pyarrow", "pymilvus", "ruamel.yaml", "scipy", "sklearn")


def test_the_command_line_imports_no_library_of_analysis() -> None:
    """Every worker is a process of its own: a second and 150 MB for each would be paid many times."""
    code = f"import signalbox, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert found.stdout.strip() == "[]"
