"""What a kill run did and found, as Markdown: OUT/report.md, to be copied where numbers are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.live.checker import Verdict
from tests.live.kill_schedule import PHASES

_OTHER = ("starting", "unknown", "exited", "terminated")


def markdown(out: Path, meta: Mapping[str, Any], verdict: Verdict) -> str:
    """Return the report of the run in *out*."""
    before, after = (", ".join(f"{n:.1f}" for n in meta[f"load_{when}"]) for when in ("before", "after"))
    command = f"make kill ROUNDS={meta['rounds']} SEED={meta['seed']}"
    command += f" BROKER={meta['broker']}" if meta["broker"] != "kafka" else ""
    command += f" SABOTAGE={meta['sabotage']}" if meta["sabotage"] else ""
    lines = [
        f"`{command}`: **{'nothing lost, nothing doubled' if verdict.ok else 'DEFECTIVE'}**",
        f"({meta['took_s']:.0f} s; load average before {before}, after {after}; at least",
        f"{meta['least_in_flight']} requests in flight).",
        "",
        *_table(verdict),
        "",
        *(f"- {name}: {count}" for name, count in verdict.totals.items()),
        "",
        "Cells hit fewer than five times: " + (", ".join(meta["missing_cells"]) or "none") + ".",
        "",
        *_disturbances(out / "disturbances.jsonl"),
    ]
    for kind, found in verdict.defects.items():
        if found:
            lines += ["", f"DEFECT {kind}: {len(found)}, first {found[0]}"]
    return "\n".join(lines) + "\n"


def _table(verdict: Verdict) -> list[str]:
    columns = (*PHASES, *_OTHER)
    rows = [f"| role | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for role, found in sorted(verdict.kills.items()):
        rows.append(f"| {role} | " + " | ".join(str(found[phase]) for phase in columns) + " |")
    return rows


def _disturbances(path: Path) -> list[str]:
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return ["Beside the kills:", "", *(f"- {row['kind']}: {row['what']}" for row in rows)]
