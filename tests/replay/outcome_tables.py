"""Third-party outcome tables in the one form that is read.

``python -m tests.replay.outcome_tables DATA OUT`` writes a Parquet file a table to OUT, without any text of
the questions: an id, the models' scores, the tokens of their answers as cost where they are known, the kind
of question and its length.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]
_TIERS = {"BASIC": 0, "INTERMEDIATE": 1, "ADVANCED": 2, "UNSOLVED": 3}
_TIER_TOKENS = (1.0, 4.0, 16.0)
"""An invented price of each pipeline: only the order of the tiers is in the data."""


def mmlu_pro(data: Path) -> Iterator[Row]:
    """Yield MMLU-Pro: right or wrong of 29 models."""
    yield from _outcomes(data / "mmlu_pro_outcomes/dev", "category")


def zeroeval(data: Path) -> Iterator[Row]:
    """Yield ZeroEval: right or wrong of up to 51 models, of three kinds of tasks."""
    yield from _outcomes(data / "zeroeval_outcomes/dev", "task")


def llmrouter(data: Path) -> Iterator[Row]:
    """Yield LLMRouter: nine models' scores between 0 and 1."""
    for number, asked in enumerate(json.loads((data / "llmrouter_dcrouter/train.json").read_bytes())):
        about = {"x_kind": str(asked["cluster_id"]), "x_length": math.log1p(len(asked["question"]))}
        for model, score in asked["scores"].items():
            yield {"question": str(number), "model": model, "score": score, **about}


def elliesql(data: Path) -> Iterator[Row]:
    """Yield EllieSQL on BIRD: tiers of pipelines; a dearer one is taken to solve what a cheaper one does."""
    with (data / "elliesql_bird/bird_pipeline_label.jsonl").open() as lines:
        for number, line in enumerate(lines):
            asked = json.loads(line)
            about = {"x_kind": asked["difficulty"], "x_length": math.log1p(len(asked["question"]))}
            least = _TIERS[asked["pipeline_type"]]
            for tier, tokens in enumerate(_TIER_TOKENS):
                name = list(_TIERS)[tier].lower()
                score = float(tier >= least)
                yield {"question": str(number), "model": name, "score": score, "cost": tokens, **about}


TABLES: Mapping[str, Callable[[Path], Iterable[Row]]] = {
    "mmlu_pro": mmlu_pro,
    "zeroeval": zeroeval,
    "llmrouter": llmrouter,
    "elliesql": elliesql,
}


def _outcomes(folder: Path, kind: str) -> Iterator[Row]:
    about = {}
    with gzip.open(folder / "questions.jsonl.gz") as lines:
        for line in lines:
            asked = json.loads(line)
            about[str(asked["qid"])] = {"x_kind": asked[kind], "x_length": math.log1p(len(asked["question"]))}
    with gzip.open(folder / "outcomes.csv.gz", "rt", newline="") as file:
        for row in csv.DictReader(file):
            # Answers with stray quotes break a few lines of ZeroEval's file.
            if (
                row["score"] in {"0", "1"}
                and row["qid"] in about
                and (row["out_tokens_cl100k"] or "").isdigit()
            ):
                own: Row = {"model": row["model"], "score": float(row["score"])}
                own["cost"] = float(row["out_tokens_cl100k"])
                yield {"question": row["qid"], **own, **about[row["qid"]]}


def main(data: str, out: str) -> None:
    """Write every table that *data* has to *out*."""
    Path(out).mkdir(parents=True, exist_ok=True)
    for name, rows in TABLES.items():
        pq.write_table(pa.Table.from_pylist(list(rows(Path(data)))), Path(out) / f"{name}.parquet")


if __name__ == "__main__":
    main(*sys.argv[1:])
