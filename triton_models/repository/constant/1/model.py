# ruff: noqa: INP001 - Triton asks for this file name and folder
"""Triton's Python backend for `constant`: a unit vector from a hash of the text, after a fixed delay."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

DIMENSIONS = 384


class TritonPythonModel:
    """A classifier without meaning whose cost is known."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read version and delay from the model's parameters."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._version = parameters["version"]["string_value"].encode()
        self._delay_s = float(parameters["delay_ms"]["string_value"]) / 1000

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request with one vector and the version per text."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:  # noqa: ANN401 - Triton's own untyped objects
        texts = pb_utils.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1)
        if self._delay_s:
            time.sleep(self._delay_s * len(texts))
        bits = b"".join([hashlib.shake_256(text).digest(DIMENSIONS) for text in texts])
        raw = np.frombuffer(bits, np.uint8).reshape(-1, DIMENSIONS).astype(np.float32) - 127.5
        vectors = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        version = np.full((len(texts), 1), self._version, np.object_)
        outputs = [pb_utils.Tensor("sentence_embedding", vectors), pb_utils.Tensor("version", version)]
        return pb_utils.InferenceResponse(output_tensors=outputs)
