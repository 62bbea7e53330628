"""Writes the TFLite flatbuffer, without TensorFlow: tensors, operators, metadata, bytes.

What the file means (which operator, which layout, which scale) is `write`'s business; `flat` reads it. Needs the
optional packages ai-edge-litert and flatbuffers, imported on first use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from research.graph.flat import unpack

IDENTIFIER = b"TFL3"
MISSING = "needs the optional package {}: pip install '.[npu]'"


def schema() -> ModuleType:
    """The generated object API of TFLite's schema. ModuleNotFoundError where it is not installed."""
    try:
        from ai_edge_litert import schema_py_generated
    except ModuleNotFoundError:
        raise ModuleNotFoundError("writing or reading TFLite " + MISSING.format("ai-edge-litert")) from None
    module: ModuleType = schema_py_generated
    return module


def _aligned_buffer(module: ModuleType) -> Any:
    """A BufferT whose data starts at a multiple of 16 bytes, as the schema asks; the generated writer forgets."""

    def pack(self: Any, builder: Any) -> Any:
        builder.Prep(16, len(self.data))
        return module.BufferT.Pack(self, builder)

    return type("AlignedBufferT", (module.BufferT,), {"Pack": pack})()


def _sharing(module: ModuleType) -> Any:
    """A flatbuffer builder that writes equal vectors of zero points once: they are an eighth of a small network."""

    def create(self: Any, numbers: np.ndarray) -> int:
        if numbers.dtype != np.int64:
            return int(module.Builder.CreateNumpyVector(self, numbers))
        key = numbers.tobytes()
        if key not in self.written:
            self.written[key] = module.Builder.CreateNumpyVector(self, numbers)
        return int(self.written[key])

    def begin(self: Any, size: int) -> None:
        module.Builder.__init__(self, size)
        self.written = {}

    return type("SharingBuilder", (module.Builder,), {"__init__": begin, "CreateNumpyVector": create})


class Writer:
    """A TFLite model of one subgraph while it is written. The same calls give the same bytes."""

    def __init__(self, description: str) -> None:
        self._schema = schema()
        self._model = self._schema.ModelT()
        self._model.version = 3
        self._model.description = description
        self._model.operatorCodes = []
        self._model.buffers = [self._schema.BufferT()]
        self._model.metadata = []
        self._graph = self._schema.SubGraphT()
        self._graph.name = "main"
        self._graph.tensors = []
        self._graph.operators = []
        self._model.subgraphs = [self._graph]
        self._codes: dict[tuple[int, int], int] = {}
        self._buffers: dict[bytes, int] = {}

    def _buffer(self, data: bytes) -> int:
        """Index of the buffer with these bytes; equal bytes are kept once."""
        if data not in self._buffers:
            buffer = _aligned_buffer(self._schema)
            buffer.data = np.frombuffer(data, np.uint8)
            self._model.buffers.append(buffer)
            self._buffers[data] = len(self._model.buffers) - 1
        return self._buffers[data]

    def tensor(
        self, name: str, shape: Sequence[int], dtype: type[np.generic],
        scale: np.ndarray | float | None = None, zero_point: int = 0,
        data: np.ndarray | None = None, axis: int = 0,
    ) -> int:  # fmt: skip
        """Adds a tensor and returns its index.

        scale: one number, or one for each index along `axis`, None for plain numbers. data: of a constant.
        """
        tensor = self._schema.TensorT()
        tensor.name, tensor.shape, tensor.hasRank = name, [int(s) for s in shape], True
        tensor.type = getattr(self._schema.TensorType, np.dtype(dtype).name.upper())
        tensor.buffer = 0 if data is None else self._buffer(np.ascontiguousarray(data, dtype).tobytes())
        if scale is not None:
            quantisation = self._schema.QuantizationParametersT()
            quantisation.scale = np.atleast_1d(np.asarray(scale, np.float32))
            quantisation.zeroPoint = np.full(quantisation.scale.shape, zero_point, np.int64)
            quantisation.quantizedDimension = axis
            tensor.quantization = quantisation
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def operator(
        self, code: str, version: int, inputs: Sequence[int], output: int, options: str | None,
        fields: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """Adds an operator. code and options: names in TFLite's schema ("CONV_2D", "Conv2DOptions")."""
        number = getattr(self._schema.BuiltinOperator, code)
        if (number, version) not in self._codes:
            entry = self._schema.OperatorCodeT()
            entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = number, min(number, 127), version
            self._model.operatorCodes.append(entry)
            self._codes[number, version] = len(self._model.operatorCodes) - 1
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._codes[number, version]
        operator.inputs, operator.outputs = list(inputs), [output]
        if options is not None:
            operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(self._schema, options + "T")()
            for name, value in fields.items():
                if not hasattr(operator.builtinOptions, name):
                    raise ValueError(f"{options} has no field {name!r}")
                setattr(operator.builtinOptions, name, value)
        self._graph.operators.append(operator)

    def finish(self, inputs: Sequence[int], outputs: Sequence[int], metadata: Mapping[str, str]) -> bytes:
        """The file: a flatbuffer whose metadata entries hold the strings of `metadata`, in name order."""
        try:
            import flatbuffers
        except ModuleNotFoundError:
            raise ModuleNotFoundError("writing TFLite " + MISSING.format("flatbuffers")) from None
        for name in sorted(metadata):
            entry = self._schema.MetadataT()
            entry.name, entry.buffer = name, self._buffer(metadata[name].encode())
            self._model.metadata.append(entry)
        self._graph.inputs, self._graph.outputs = list(inputs), list(outputs)
        builder = _sharing(flatbuffers)(1 << 16)
        builder.Finish(self._model.Pack(builder), IDENTIFIER)
        return bytes(builder.Output())


def read_metadata(model: bytes) -> dict[str, str]:
    """{name: text} of the metadata entries of a .tflite file; what is no UTF-8 is replaced.

    ValueError where the bytes are no sound TFLite model (`unpack`).
    """
    return {name: data.decode(errors="replace") for name, data in unpack(model).metadata.items()}
