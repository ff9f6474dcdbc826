"""The encoder's forward pass in plain numpy, and how near ONNX Runtime comes to it.

Runs in Triton's environment: `python -m tests.triton_models.reference WHEELS FP32_MODEL INT8_MODEL`, with a
JSON list of texts on stdin and cosines as JSON on stdout.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from triton_models.weights import Source, fetch, parse_safetensors

Array = NDArray[np.float32]

LAYERS, HEADS, TOKENS = 6, 12, 256
erf = np.vectorize(math.erf, otypes=[np.float32])


class Bert:
    """The published architecture, written down as in its paper."""

    def __init__(self, tensors: dict[str, NDArray[Any]]) -> None:
        self.tensors = tensors

    def __call__(self, ids: list[int]) -> Array:
        """Return the unit vector of one text."""
        words, places, kinds = (
            self.tensors[f"embeddings.{kind}_embeddings.weight"]
            for kind in ("word", "position", "token_type")
        )
        state = self.norm(words[ids] + places[: len(ids)] + kinds[0], "embeddings.LayerNorm")
        for index in range(LAYERS):
            state = self.layer(state, f"encoder.layer.{index}")
        mean = state.mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), np.float32)

    def layer(self, state: Array, prefix: str) -> Array:
        """Attention and feed-forward, each with its residual."""
        query, key, value = (
            self.dense(state, f"{prefix}.attention.self.{part}").reshape(len(state), HEADS, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1])
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (shares / shares.sum(axis=-1, keepdims=True)) @ value
        attended = self.dense(mixed.swapaxes(0, 1).reshape(state.shape), f"{prefix}.attention.output.dense")
        state = self.norm(attended + state, f"{prefix}.attention.output.LayerNorm")
        wide = self.dense(state, f"{prefix}.intermediate.dense")
        bent = wide * (1 + erf(wide / math.sqrt(2))) / 2
        return self.norm(self.dense(bent, f"{prefix}.output.dense") + state, f"{prefix}.output.LayerNorm")

    def dense(self, value: Array, prefix: str) -> Array:
        """A linear layer."""
        return np.asarray(value @ self.tensors[f"{prefix}.weight"].T + self.tensors[f"{prefix}.bias"])

    def norm(self, value: Array, prefix: str) -> Array:
        """A layer norm."""
        centred = value - value.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
        return np.asarray(scaled * self.tensors[f"{prefix}.weight"] + self.tensors[f"{prefix}.bias"])


def embed(model: Path, encoded: list[list[int]]) -> Array:
    """Run a built model over all texts as one padded batch."""
    ids = np.zeros((len(encoded), max(map(len, encoded))), np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(encoded):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": mask})[0])


def main(cache: Path, fp32: Path, int8: Path) -> None:
    """Compare and print."""
    card = json.loads((int8.parents[1] / "card.json").read_text(encoding="utf-8"))
    bert = Bert(parse_safetensors(fetch(Source.from_card(card), cache)["model.safetensors"]))
    tokenizer = Tokenizer.from_file(str(int8.parent / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.no_padding()
    encoded = [encoding.ids for encoding in tokenizer.encode_batch(json.load(sys.stdin))]
    expected = np.stack([bert(ids) for ids in encoded])
    alone = np.concatenate([embed(int8, [ids]) for ids in encoded])
    cosines = {
        "fp32": (embed(fp32, encoded) * expected).sum(axis=1).tolist(),
        "int8": (alone * expected).sum(axis=1).tolist(),
    }
    json.dump({"tokens": [len(ids) for ids in encoded], **cosines}, sys.stdout)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
