"""Which Keras layer an operator of a `.tflite` file comes from, by the names of tensors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import keras

#: Names of the models around a layer and of the layer itself, such as `("block", "conv")`.
_Path = tuple[str, ...]


def _cut(name: str) -> str:
    return re.sub(r"_\d+$", "", name)


def _bare(name: str) -> str:
    return name.removeprefix("quant_")


#: Ways in which names of layers became names of tensors, as functions that undo them. While Keras 3 traces a network,
#: it uses each name more than once and numbers all but the first use: `conv` becomes `conv_1`, and `conv_1` `conv_1_2`.
#: Keras 2 doesn't. Networks trained with fake quantisation have a prefix. Of equals, the first counts.
_SPELLINGS: tuple[Callable[[str], str], ...] = (_cut, str, _bare, lambda name: _bare(_cut(name)))


def name_operators(texts: Sequence[Sequence[str]], model: keras.Model) -> list[str]:
    """Names the layers that operators come from; empty where that isn't known.

    A name such as `conv_1` may be that of the layer `conv` or that of another layer `conv_1`. All names in a file are
    spelt in one way, so the way that finds the most layers counts.

    Args:
        texts: For each operator with a kernel, names of its weights, then of what it makes.
        model: The network that the file was made from.
    """
    layers = _layers_with_kernels(model)
    ways = [[_first(one, layers, spelling) for one in texts] for spelling in _SPELLINGS]
    found = max(ways, key=lambda way: (len({*way} - {None}), len(way) - way.count(None)))
    missing = [layer for layer in layers if layer not in found]
    if len(missing) == found.count(None) == 1:  # the last operator may be called after the output alone
        found = [layer or missing[0] for layer in found]
    counts = Counter(layer[-1] for layer in layers)
    return ["" if layer is None else layer[-1] if counts[layer[-1]] == 1 else "/".join(layer) for layer in found]


def _layers_with_kernels(model: keras.Model) -> list[_Path]:
    """Layers that multiply by weights, also inside other layers, each once."""
    paths: dict[_Path, None] = {}
    for layer in getattr(model, "layers", ()):
        inner = [(layer.name, *path) for path in _layers_with_kernels(layer)]
        has_kernel = not inner and any(len(weight.shape) > 1 for weight in layer.weights)
        paths |= dict.fromkeys([(layer.name,)] if has_kernel else inner)
    return list(paths)


def _first(texts: Sequence[str], layers: Sequence[_Path], spelling: Callable[[str], str]) -> _Path | None:
    """The layer that one of the names mentions, as in `net/stem_relu_1/Relu;net/stem_1/convolution`."""
    for text in ";".join(texts).split(";"):
        scopes = [spelling(scope) for scope in text.split("/")]
        named = [layer for layer in layers if layer[-1] in scopes]
        if named:
            return max(named, key=lambda layer: _fit(layer, scopes))
    return None


def _fit(layer: _Path, scopes: Sequence[str]) -> tuple[int, int, int]:
    """How well scopes that mention a layer fit it: few models around it are missing, and many are there."""
    place = scopes.index(layer[-1])
    found = sum(name in scopes[:place] for name in layer[:-1])
    return found - len(layer), found, -place
