"""Random damage to files: cut, changed, repeated and removed bytes, and wrong values in JSON."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

_VALUES = (
    None,
    True,
    -1,
    0,
    0.5,
    1e300,
    math.nan,
    math.inf,
    "",
    "x",
    "a" * 5000,
    [],
    {},
    [[]],
    [None],
    {"x": 1},
    10**30,
)


def damage_file(chance: random.Random, path: Path) -> None:
    """Damages a file: the values in JSON, or its bytes."""
    content = path.read_bytes()
    if path.suffix == ".json" and chance.random() < 0.6:
        content = json.dumps(_damage_value(chance, json.loads(content))).encode()
    else:
        content = damage(chance, content)
    path.write_bytes(content)


def _damage_value(chance: random.Random, value: Any) -> Any:
    """Replaces, removes or renames something inside."""
    if isinstance(value, (dict, list)) and value and chance.random() < 0.85:
        key = chance.choice([*value] if isinstance(value, dict) else range(len(value)))
        how = chance.random()
        if how < 0.15:
            kept = [*value.items()] if isinstance(value, dict) else [*enumerate(value)]
            kept = [(name, item) for name, item in kept if name != key]
            return dict(kept) if isinstance(value, dict) else [item for _, item in kept]
        if how < 0.25 and isinstance(value, dict):
            return {(f"{name}x" if name == key else name): item for name, item in value.items()}
        changed = _damage_value(chance, value[key])
        if isinstance(value, dict):
            return {**value, key: changed}
        return [changed if number == key else item for number, item in enumerate(value)]
    if isinstance(value, (int, float)) and chance.random() < 0.5:
        return value * chance.choice([-1, 0, 2, 1000, 0.5])
    return chance.choice(_VALUES)


def damage(chance: random.Random, content: bytes) -> bytes:
    """Cuts, changes, repeats or removes bytes."""
    if not content:
        return b"x"
    first, last = sorted(chance.sample(range(len(content) + 1), 2))
    how = chance.randrange(6)
    if how == 0:
        return content[:first]
    if how == 1:
        return content[:first] + content[last:]
    if how == 2:
        return content[:last] + content[first:last] + content[last:]
    if how == 3:
        return content[:first] + chance.randbytes(chance.randint(1, 20)) + content[first:]
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 10, 200])):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def noise(chance: random.Random) -> str:
    """A random text."""
    return "".join(chr(chance.choice([*range(32, 127), 0xE4, 0x4E2D])) for _ in range(chance.randint(1, 30)))
