# ruff: noqa: INP001 - Triton asks for this file name and folder
"""Triton's Python backend for the encoder: tokenises, and runs ONNX Runtime over texts of similar length."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer

# On CPU a larger batch gains nothing, and padding costs what it adds.
BATCH = 8
PADDING = 1.25


class TritonPythonModel:
    """One instance of the encoder: a tokeniser and a single-threaded session."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load tokeniser, session and version from the served folder."""
        folder = Path(args["model_repository"])
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        self._characters = int(card["max_characters"])
        self._tokenizer = Tokenizer.from_file(str(folder / args["model_version"] / "tokenizer.json"))
        self._tokenizer.enable_truncation(int(card["max_tokens"]))
        self._tokenizer.no_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = str(folder / args["model_version"] / "model.onnx")
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        parameters = json.loads(args["model_config"])["parameters"]
        self._version = parameters["version"]["string_value"].encode()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request with one vector and the version per text."""
        inputs = [
            pb_utils.get_input_tensor_by_name(request, "text").as_numpy().ravel() for request in requests
        ]
        vectors = self._encode([self._tokens(text) for texts in inputs for text in texts])
        ends = np.cumsum([len(texts) for texts in inputs])
        return [self._response(rows) for rows in np.split(vectors, ends[:-1])]

    def _tokens(self, text: bytes) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text.decode("utf-8", "replace")[: self._characters]).ids
        return ids

    def _encode(self, texts: Sequence[list[int]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        vectors: list[Any] = [None] * len(texts)
        for rows in similar(texts):
            ids = np.zeros((len(rows), len(texts[rows[-1]])), np.int64)
            mask = np.zeros_like(ids)
            for place, row in enumerate(rows):
                ids[place, : len(texts[row])], mask[place, : len(texts[row])] = texts[row], 1
            answer = self._session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": mask})[0]
            for place, row in enumerate(rows):
                vectors[row] = answer[place]
        return np.stack(vectors)

    def _response(self, vectors: np.ndarray[Any, np.dtype[np.float32]]) -> Any:  # noqa: ANN401 - Triton's own
        version = np.full((len(vectors), 1), self._version, np.object_)
        outputs = [pb_utils.Tensor("sentence_embedding", vectors), pb_utils.Tensor("version", version)]
        return pb_utils.InferenceResponse(output_tensors=outputs)


def similar(texts: Sequence[list[int]]) -> Iterator[list[int]]:
    """Yield the indices of *texts* in groups of similar length, the longest of a group last."""
    group: list[int] = []
    for row in sorted(range(len(texts)), key=lambda row: len(texts[row])):
        if group and (len(group) == BATCH or len(texts[row]) > PADDING * len(texts[group[0]])):
            yield group
            group = []
        group.append(row)
    if group:
        yield group
