# ruff: noqa: INP001 - Triton asks for this file name and folder
"""Triton's Python backend for the encoder: tokenises and runs ONNX Runtime, one text at a time.

int8 activations are scaled per tensor, so within a batch a text's vector would depend on its neighbours
(cosine down to 0.98, measured). One at a time it depends on the text alone, which on CPU costs little more.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer


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
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:  # noqa: ANN401 - Triton's own untyped objects
        texts = pb_utils.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1)
        vectors = np.stack([self._encode(text) for text in texts])
        version = np.full((len(texts), 1), self._version, np.object_)
        outputs = [pb_utils.Tensor("sentence_embedding", vectors), pb_utils.Tensor("version", version)]
        return pb_utils.InferenceResponse(output_tensors=outputs)

    def _encode(self, text: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
        encoding = self._tokenizer.encode(text.decode("utf-8", "replace")[: self._characters])
        ids = np.array([encoding.ids], np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        return np.asarray(self._session.run(["sentence_embedding"], feed)[0][0], np.float32)
