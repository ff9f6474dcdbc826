"""Record what an engine decides over the invented requests here, one packed log a policy.

Run as ``python -m tests.histories.record [CHECKOUT]``, or ``make history`` for the engine at hand. A log is
named by the date and commit of its engine and by its policy, and is never changed afterwards. Record after
any change of the engine, or of what a record holds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
LOGS = HERE / "logs"
POLICIES = HERE / "policies"


def engine_of(checkout: Path) -> str:
    """Return date and commit of the engine in *checkout*, such as 2026-11-25-7d0c020."""
    asked = ["git", "-C", str(checkout), "log", "-1", "--format=%cs-%h", "--abbrev=7"]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


def recorded(checkout: Path, policy: Path, into: Path) -> Path:
    """Run the requests under *policy* with the engine in *checkout* and return the packed log.

    Raises `subprocess.CalledProcessError` if the engine cannot.
    """
    name = f"{engine_of(checkout)}-{policy.stem}"
    target = into / f"{name}.tar.xz"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "signalbox", "run", str(HERE / "requests.jsonl")]
        options = {"--policy": policy, "--out": Path(folder) / "out", "--keep-log": Path(folder) / "log"}
        command += [str(word) for pair in options.items() for word in pair]
        environment = {**os.environ, "PYTHONPATH": str(checkout)}  # noqa: TID251 - a process of another version
        subprocess.run(command, check=True, cwd=checkout, env=environment)
        into.mkdir(exist_ok=True)
        with tarfile.open(target, "w:xz") as packed:
            packed.add(Path(folder) / "log", arcname=name, filter=_plain)
    return target


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
    return member


def main(arguments: list[str]) -> int:
    """Record with every policy that the engine takes; return 1 if it takes none."""
    checkout = Path(arguments[0] if arguments else ".").resolve()
    written = []
    for policy in sorted(POLICIES.glob("*.yaml")):
        try:
            written.append(recorded(checkout, policy, LOGS))
        except subprocess.CalledProcessError:
            sys.stderr.write(f"{policy.name}: this engine cannot run it\n")
    sys.stdout.write("".join(f"{path}\n" for path in written))
    return 0 if written else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
