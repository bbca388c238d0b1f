"""Files made wrong: bytes, and what the bytes say (sizes, offsets, names, shapes, cycles)."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

EXTREMES = (
    0,
    1,
    -1,
    2,
    127,
    255,
    2**15,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    -(2**31),
    2**40,
    2**63,
)
WORDS = tuple(value & 0xFFFFFFFF for value in EXTREMES)


def bytes_changed(content: bytes, rng: random.Random) -> bytes:
    """Bytes exchanged, cut off, repeated, or overwritten by sizes that lead far."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 5)):
        place, kind = rng.randrange(len(data)), rng.randrange(5)
        if kind == 0:
            data[place] = rng.randrange(256)
        elif kind == 1:
            data[place : place + 4] = rng.randbytes(4)
        elif kind == 2:
            aligned = place & ~3
            data[aligned : aligned + 4] = rng.choice(WORDS).to_bytes(4, "little")
        elif kind == 3:
            data = data[: max(place, 1)]
        else:
            data[place:place] = data[place : place + rng.randint(1, 200)]
    return bytes(data)


def _leaves(node: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything inside JSON values."""
    keys = node.keys() if isinstance(node, dict) else range(len(node))
    for key in list(keys):
        yield node, key
        if isinstance(node[key], dict | list):
            yield from _leaves(node[key])


def program_changed(content: bytes, rng: random.Random) -> bytes:
    """A program's document with values exchanged, inside a sound zip file."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    document = json.loads(members["program.json"])
    for _ in range(rng.randint(1, 3)):
        places = list(_leaves(document))
        node, key = rng.choice(places)
        other, from_key = rng.choice(places)
        kind = rng.randrange(4)
        if kind == 0:
            node[key] = rng.choice((*EXTREMES, None, True, "", "x", [], {}, 0.5, 1e308))
        elif kind == 1:
            node[key] = json.loads(json.dumps(other[from_key]))
        elif kind == 2 and isinstance(node, list):
            node.append(json.loads(json.dumps(node[key])))
        else:
            del node[key]
    members["program.json"] = json.dumps(document).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, part in members.items():
            archive.writestr(name, part)
    return buffer.getvalue()


def _messages(message: Any) -> Iterator[Any]:
    """A protocol buffer's messages, itself first."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in value if not hasattr(value, "ListFields") else (value,):
                if hasattr(item, "ListFields"):
                    yield from _messages(item)


def onnx_changed(content: bytes, rng: random.Random) -> bytes:
    """An ONNX file with fields exchanged: names of other tensors, sizes, types, parts missing."""
    import onnx

    model = onnx.ModelProto()
    model.ParseFromString(content)
    names = [name for node in model.graph.node for name in (*node.input, *node.output)]
    for _ in range(rng.randint(1, 3)):
        message = rng.choice([m for m in _messages(model) if m.ListFields()])
        field, value = rng.choice(message.ListFields())
        if hasattr(value, "append") or hasattr(value, "add"):
            place = rng.randrange(len(value))
            if rng.random() < 0.3 or field.message_type is not None:
                del value[place]
            elif field.cpp_type == field.CPPTYPE_STRING:
                value[place] = rng.choice(names)
            else:
                value[place] = _fitting(rng, field)
        elif field.message_type is not None:
            message.ClearField(field.name)
        elif field.cpp_type == field.CPPTYPE_STRING:
            text = rng.choice((*names, "", "ai.onnx", "x" * 300))
            is_bytes = field.type == field.TYPE_BYTES
            setattr(
                message, field.name, value[: rng.randrange(len(value) + 1)] if is_bytes else text
            )
        else:
            setattr(message, field.name, _fitting(rng, field))
    return model.SerializeToString()


def _fitting(rng: random.Random, field: Any) -> Any:
    """A number that a field's type takes."""
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice((0.0, -1.0, float("nan"), float("inf"), 1e-30, 1e30))
    wide = field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64)
    if field.cpp_type == field.CPPTYPE_ENUM:
        return rng.randrange(1, 12)
    top = 2**63 if wide else 2**31
    least = 0 if field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64) else -top
    return rng.choice([value for value in EXTREMES if least <= value < top])


def _objects(node: Any) -> Iterator[Any]:
    """The schema's objects below one, itself first."""
    yield node
    for value in vars(node).values():
        for item in value if isinstance(value, list) else (value,):
            if type(item).__module__ == type(node).__module__:
                yield from _objects(item)


def tflite_changed(content: bytes, rng: random.Random) -> bytes:
    """A .tflite file with fields exchanged: tensor numbers, shapes, options, buffers, types."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    while True:
        model = schema.ModelT.InitFromPackedBuf(content)
        for _ in range(rng.randint(1, 3)):
            node = rng.choice([found for found in _objects(model) if vars(found)])
            name = rng.choice(list(vars(node)))
            value: Any = getattr(node, name)
            if isinstance(value, bool) or value is None:
                continue
            if isinstance(value, int):
                setattr(node, name, rng.choice(EXTREMES))
            elif isinstance(value, list) and value and isinstance(value[0], int | float):
                value[rng.randrange(len(value))] = rng.choice(EXTREMES)
            elif isinstance(value, np.ndarray) and value.size:
                changed: list = value.tolist()
                changed[rng.randrange(len(changed))] = rng.choice(EXTREMES)
                setattr(
                    node,
                    name,
                    changed[: rng.randint(0, len(changed))] if rng.random() < 0.3 else changed,
                )
            elif isinstance(value, list) and value:
                del value[rng.randrange(len(value))]
        builder = flatbuffers.Builder(1024)
        try:
            builder.Finish(model.Pack(builder), b"TFL3")
        except Exception:  # a number that the schema's type cannot hold: draw again
            continue
        return bytes(builder.Output())


MEANING: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "program": program_changed,
    "onnx": onnx_changed,
    "tflite": tflite_changed,
}
"""By format: what changes a file's meaning while its outer form stays sound."""


def changed(form: str, content: bytes, seed: int) -> bytes:
    """One wrong file; two thirds of them of sound form."""
    rng = random.Random(f"{form} {seed}")
    return (bytes_changed if seed % 3 == 0 else MEANING[form])(content, rng)
