"""The ONNX graph of a BERT sentence encoder, assembled from its tensors without any training framework.

Names of tensors are those of Hugging Face's `BertModel`; nothing here reads or writes a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Tensors = Mapping[str, NDArray[np.float32]]

# LayerNormalization arrived with opset 17; nothing newer is needed, and older runtimes can read it.
OPSET = 17
IR_VERSION = 8


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a BERT encoder; `epsilon` is that of its layer norms."""

    layers: int
    hidden: int
    heads: int
    epsilon: float = 1e-12

    @property
    def head(self) -> int:
        """The width of one attention head."""
        return self.hidden // self.heads


def sentence_encoder(tensors: Tensors, shape: Shape, *, int8: bool) -> onnx.ModelProto:
    """Return the graph: token ids and mask in, token states and a unit vector per text out.

    Inputs are `input_ids` and `attention_mask` (int64, [batch, tokens]); outputs are `sentence_embedding`
    ([batch, hidden], the mean over unmasked tokens, L2-normalised) and `last_hidden_state`. With *int8*,
    dense layers and word embeddings are quantised. To rounding, a text's vector is the same in any batch.

    Raises:
        KeyError: a tensor of the architecture is missing.
    """
    graph = _Int8Graph(tensors, shape) if int8 else _Graph(tensors, shape)
    state = graph.embeddings()
    bias = graph.attention_bias()
    for layer in range(shape.layers):
        state = graph.layer(f"encoder.layer.{layer}", state, bias)
    graph.output("Identity", [state], "last_hidden_state")
    graph.pool(state)
    return graph.model()


class _Graph:
    """Nodes and constants in the making; every method returns the name of the value that it adds."""

    def __init__(self, tensors: Tensors, shape: Shape) -> None:
        self._tensors = tensors
        self._shape = shape
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401 - ONNX attributes are open
        """Add a node with one output."""
        name = f"{op.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def output(self, op: str, inputs: list[str], name: str) -> None:
        """Add a node whose result is an output of the graph."""
        self._nodes.append(helper.make_node(op, inputs, [name], name=name))

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add a constant once."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def ints(self, *values: int) -> str:
        """Add a one-dimensional int64 constant."""
        return self.constant(f"ints_{'_'.join(map(str, values))}", np.array(values, np.int64))

    def number(self, name: str, value: float) -> str:
        """Add a scalar constant."""
        return self.constant(name, np.array(value, np.float32))

    def weight(self, name: str) -> str:
        """Add a tensor of the model under its own name."""
        return self.constant(name, self._tensors[name])

    def embeddings(self) -> str:
        """Sum word and position embeddings; texts are always of token type 0, so that row is folded in."""
        words = self.rows_of("word_embeddings", self._tensors["embeddings.word_embeddings.weight"])
        positions = self._tensors["embeddings.position_embeddings.weight"]
        first_type = self._tensors["embeddings.token_type_embeddings.weight"][0]
        table = self.constant("position_and_type", positions + first_type)
        tokens = self.node("Slice", self.node("Shape", "input_ids"), self.ints(1), self.ints(2))
        rows = self.node("Slice", table, self.ints(0), tokens, self.ints(0))
        return self.layer_norm("embeddings.LayerNorm", self.node("Add", words, rows))

    def rows_of(self, name: str, table: NDArray[np.float32]) -> str:
        """The rows of *table* that the tokens name."""
        return self.node("Gather", self.constant(name, table), "input_ids")

    def attention_bias(self) -> str:
        """Turn the mask into what is added to attention scores: 0 to keep, a large negative to drop."""
        mask = self.node("Cast", "attention_mask", to=TensorProto.FLOAT)
        dropped = self.node("Sub", self.number("one", 1), mask)
        scaled = self.node("Mul", dropped, self.number("minus_large", -10_000))
        return self.node("Unsqueeze", scaled, self.ints(1, 2))

    def layer(self, prefix: str, state: str, bias: str) -> str:
        """One transformer layer: attention, then the feed-forward block, each with a residual and a norm."""
        attended = self.linear(f"{prefix}.attention.output.dense", self.attention(prefix, state, bias))
        state = self.layer_norm(f"{prefix}.attention.output.LayerNorm", self.node("Add", attended, state))
        wide = self.gelu(self.linear(f"{prefix}.intermediate.dense", state))
        narrow = self.linear(f"{prefix}.output.dense", wide)
        return self.layer_norm(f"{prefix}.output.LayerNorm", self.node("Add", narrow, state))

    def attention(self, prefix: str, state: str, bias: str) -> str:
        """Multi-head self-attention; one product makes queries, keys and values."""
        scale = np.float32(self._shape.head**-0.5)
        parts = [f"{prefix}.attention.self.{part}" for part in ("query", "key", "value")]
        weights = [self._tensors[f"{part}.weight"] for part in parts]
        biases = [self._tensors[f"{part}.bias"] for part in parts]
        weights[0], biases[0] = weights[0] * scale, biases[0] * scale
        joined = self.product(f"{prefix}.qkv", state, np.concatenate(weights), np.concatenate(biases))
        names = [f"{prefix}.{part}" for part in ("query", "key", "value")]
        sizes = self.ints(*[self._shape.hidden] * 3)
        self._nodes.append(helper.make_node("Split", [joined, sizes], names, name=f"{prefix}.split", axis=2))
        query, value = (self.by_head(name, (0, 2, 1, 3)) for name in (names[0], names[2]))
        key = self.by_head(names[1], (0, 2, 3, 1))
        scores = self.node("Add", self.node("MatMul", query, key), bias)
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), value)
        back = self.node("Transpose", mixed, perm=(0, 2, 1, 3))
        return self.node("Reshape", back, self.ints(0, 0, self._shape.hidden))

    def by_head(self, value: str, order: tuple[int, int, int, int]) -> str:
        """Split the last axis into heads, then reorder the axes."""
        split = self.node("Reshape", value, self.ints(0, 0, self._shape.heads, self._shape.head))
        return self.node("Transpose", split, perm=order)

    def linear(self, prefix: str, value: str) -> str:
        """A dense layer of the model."""
        weight, bias = self._tensors[f"{prefix}.weight"], self._tensors[f"{prefix}.bias"]
        return self.product(prefix, value, weight, bias)

    def product(self, name: str, value: str, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> str:
        """Value times weight (stored [out, in], as PyTorch does) plus bias."""
        product = self.node("MatMul", value, self.constant(f"{name}.weight", weight.T))
        return self.node("Add", product, self.constant(f"{name}.bias", bias))

    def layer_norm(self, prefix: str, value: str) -> str:
        """A layer norm of the model."""
        weight, bias = self.weight(f"{prefix}.weight"), self.weight(f"{prefix}.bias")
        return self.node("LayerNormalization", value, weight, bias, axis=-1, epsilon=self._shape.epsilon)

    def gelu(self, value: str) -> str:
        """The exact GELU, written so that ONNX Runtime recognises and fuses it."""
        erf = self.node("Erf", self.node("Div", value, self.number("sqrt_2", 2**0.5)))
        product = self.node("Mul", value, self.node("Add", erf, self.number("one", 1)))
        return self.node("Mul", product, self.number("half", 0.5))

    def pool(self, state: str) -> None:
        """Mean over the unmasked tokens, then unit length."""
        mask = self.node("Cast", "attention_mask", to=TensorProto.FLOAT)
        column = self.node("Unsqueeze", mask, self.ints(2))
        total = self.node("ReduceSum", self.node("Mul", state, column), self.ints(1), keepdims=0)
        tiny = self.number("tiny", 1e-9)
        count = self.node("Max", self.node("ReduceSum", mask, self.ints(1), keepdims=1), tiny)
        mean = self.node("Div", total, count)
        length = self.node("Max", self.node("ReduceL2", mean, axes=[1], keepdims=1), tiny)
        self.output("Div", [mean, length], "sentence_embedding")

    def model(self) -> onnx.ModelProto:
        """Close the graph and check it."""
        pooled = ["batch", self._shape.hidden]
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask")
        ]
        outputs = [
            helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, pooled),
            helper.make_tensor_value_info(
                "last_hidden_state", TensorProto.FLOAT, [pooled[0], "tokens", pooled[1]]
            ),
        ]
        constants = list(self._constants.values())
        graph = helper.make_graph(self._nodes, "sentence_encoder", inputs, outputs, constants)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="signalbox"
        )
        onnx.checker.check_model(model)
        return model


class _Int8Graph(_Graph):
    """The same with dense layers and word embeddings in int8.

    Weights have one scale per output channel and 7 bits, since CPUs without VNNI saturate on 8. Activations
    have one scale per token: with one per tensor, which is what ONNX Runtime's quantiser writes, a text's
    vector depends on the texts beside it in the batch (cosine down to 0.98), and the error is twice as large.
    """

    def rows_of(self, name: str, table: NDArray[np.float32]) -> str:
        """The rows of *table* that the tokens name, one scale each."""
        scales = _scales(table, axis=1, largest=127)
        rows = self.node("Gather", self.constant(f"{name}.int8", _rounded(table / scales)), "input_ids")
        scale = self.node("Gather", self.constant(f"{name}.scale", scales), "input_ids")
        return self.node("Mul", self.node("Cast", rows, to=TensorProto.FLOAT), scale)

    def product(self, name: str, value: str, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> str:
        """Value times weight plus bias, in integers in between."""
        scales = _scales(weight.T, axis=0, largest=63)
        matrix = self.constant(f"{name}.int8", _rounded(weight.T / scales))
        largest = self.node("ReduceMax", self.node("Abs", value), axes=[-1], keepdims=1)
        scale = self.node(
            "Div", self.node("Max", largest, self.number("tiny", 1e-9)), self.number("steps", 127)
        )
        signed = self.node("Round", self.node("Div", value, scale))
        # Unsigned times signed is the pair that CPUs multiply fastest.
        shifted = self.node("Add", signed, self.number("zero_point", 128))
        zero_point = self.constant("zero_point_u8", np.array(128, np.uint8))
        integers = self.node("Cast", shifted, to=TensorProto.UINT8)
        product = self.node("MatMulInteger", integers, matrix, zero_point)
        by_token = self.node("Mul", self.node("Cast", product, to=TensorProto.FLOAT), scale)
        scaled = self.node("Mul", by_token, self.constant(f"{name}.scale", scales[0]))
        return self.node("Add", scaled, self.constant(f"{name}.bias", bias))


def _scales(weight: NDArray[np.float32], axis: int, largest: int) -> NDArray[np.float32]:
    """What one step is worth, so that the largest number along *axis* becomes *largest*."""
    return np.asarray(np.maximum(np.abs(weight).max(axis=axis, keepdims=True), 1e-9) / largest, np.float32)


def _rounded(steps: NDArray[np.float32]) -> NDArray[np.int8]:
    return np.rint(steps).astype(np.int8)
