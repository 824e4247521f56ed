"""Random parts of networks: layers, gates, branches and blocks."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import keras
from keras import layers

from benchmarks.random_channels import LAYER_NORM_FROM, cut, halves, normalise, reduce, shared, u_shaped

#: Smallest side of features: statistics over fewer positions would amplify rounding.
SMALLEST = 3
ACTIVATIONS = (
    *("relu", "silu", "sigmoid", "hard_sigmoid", "tanh", "gelu", "softplus", "leaky_relu"),
    *("elu", "selu", "relu6", "hard_silu", "softsign", "mish", "celu", "hard_tanh", "tanh_shrink", "log_sigmoid"),
)
INSIDE = (None, None, None, "relu", "sigmoid", "silu")
MERGES = (layers.Add, layers.Add, layers.Average, layers.Subtract, layers.Maximum, layers.Minimum, layers.Multiply)


class Parts:
    """Draws parts of networks and applies them to features `[batch, height, width, channels]`."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._again = layers.Activation(self.one_of(*ACTIVATIONS))  # one layer for many places

    def one_of(self, *options):
        """Returns one of the options, all equally likely."""
        return self.rng.choice(options)

    def rarely(self) -> bool:
        """Returns True with probability 1/4."""
        return self.rng.randrange(4) == 3

    def width(self) -> int:
        """Returns a number of filters."""
        return self.rng.randint(5, 12)

    def strides(self, x) -> int:
        """Returns strides that the features are large enough for."""
        return self.one_of(1, 2) if min(x.shape[1:3]) >= 2 * SMALLEST - 1 else 1

    def activate(self, x):
        """Applies an activation of any kind."""
        if not self.rarely():
            return layers.Activation(self.one_of(*ACTIVATIONS))(x)
        layer = self.one_of(
            lambda: layers.ReLU(6.0, negative_slope=0.1),
            lambda: layers.LeakyReLU(0.1),
            lambda: layers.PReLU(alpha_initializer="uniform", shared_axes=[*range(1, len(x.shape) - 1)]),
            lambda: layers.PReLU(alpha_initializer="uniform"),
            lambda: keras.ops.relu,
            lambda: keras.ops.sigmoid,
            lambda: self._again,
            lambda: self._again,
        )()
        return layer(x)

    def normalise(self, x):
        """Applies a normalisation of any kind, usually of the batch, or none."""
        return normalise(self, x)

    def convolve(self, x, filters: int, strides: int = 1, size=None, padding: str = "same"):
        """Applies a convolution of any class, sometimes with another one before it."""
        bias, inside = self.one_of(False, True), self.one_of(*INSIDE)
        size = size or self.one_of(1, 1, 3, 3, 3, 2, 5, (1, 3), (3, 1))
        dilation = self.one_of(1, 1, 1, 2, (1, 2)) if strides == 1 and padding == "same" else 1
        options = {"strides": strides, "padding": padding, "dilation_rate": dilation, "use_bias": bias}
        kind = self.one_of(*["conv"] * 7, "separable", "depthwise", "grouped", "transposed", "dense", "odd")
        if isinstance(strides, tuple) and kind in ("separable", "depthwise"):
            kind = "conv"  # these layers only support equal strides
        if kind == "depthwise":
            x = layers.DepthwiseConv2D(size, depth_multiplier=self.one_of(1, 1, 2, 3), **options)(x)
            return layers.Conv2D(filters, 1, activation=inside)(x)
        if kind == "grouped":
            return layers.Conv2D(filters, 1, activation=inside)(self.grouped(x, size, **options))
        if kind == "separable":
            multiplier = self.one_of(1, 1, 2)
            return layers.SeparableConv2D(filters, size, depth_multiplier=multiplier, activation=inside, **options)(x)
        if kind == "transposed" and strides == 1 and padding == "same":
            options["dilation_rate"] = 1  # TensorFlow has no other one on CPUs
            return layers.Conv2DTranspose(filters, size, activation=inside, **options)(x)
        if kind == "odd":
            x = self.frozen(x)
        if kind == "dense" and strides == 1:
            return layers.Dense(filters, use_bias=bias, activation=inside)(x)
        return layers.Conv2D(filters, size, activation=inside, **options)(x)

    def grouped(self, x, size, **options):
        """Applies a convolution with several groups, usually as many filters as channels."""
        channels = x.shape[-1]
        groups = self.one_of(*(groups for groups in range(2, channels + 1) if channels % groups == 0), channels)
        filters = self.one_of(channels, channels, groups, 2 * groups)
        return layers.Conv2D(filters, size, groups=groups, **options)(x)

    def frozen(self, x):
        """Applies a layer that usually needs all channels of its input or must keep its own."""
        layer = self.one_of(
            lambda: layers.DepthwiseConv2D(3, padding="same", activation="softmax"),
            lambda: layers.Conv2DTranspose(6, 3, padding="same", activation="softmax"),
            lambda: layers.GroupNormalization(groups=-1),
            lambda: layers.Softmax(),
        )()
        return layer(x)

    def unit(self, x, filters: int, strides: int = 1, *, before: bool = False, size=None):
        """Applies convolution, normalisation and activation, in this order or with the convolution last."""
        if before:
            return self.convolve(self.activate(self.normalise(x)), filters, strides, size)
        return self.activate(self.normalise(self.convolve(x, filters, strides, size)))

    def extra(self, x):
        """Applies unusual layers between blocks, usually none."""
        while self.rarely():
            kinds = (self.normalise, self.activate, self.arithmetic, self.gate, self.resample, self.drop)
            x = self.one_of(*kinds, partial(reduce, self), self.cut)(x)
        return x

    def drop(self, x):
        """Applies a dropout or noise layer with rate 0, which does nothing."""
        layer = self.one_of(layers.Dropout, layers.SpatialDropout2D, layers.GaussianNoise, layers.GaussianDropout)
        return layer(0.0)(x)

    def arithmetic(self, x):
        """Applies arithmetic without a layer, or a rescaling."""
        return self.one_of(
            lambda: x + 0.5,
            lambda: x * 2.0 - 1.0,
            lambda: x * keras.ops.relu6(x + 3.0) / 6.0,
            lambda: 1.0 - x,
            lambda: x / 3.0,
            lambda: x - keras.ops.mean(x, axis=(1, 2), keepdims=True),
            lambda: x + x,
            lambda: layers.Rescaling(2.0, offset=self.one_of(0.0, 1.0))(x),
        )()

    def cut(self, x):
        """Takes a part of the features if there are enough, or adds channels."""
        return cut(self, x, min(x.shape[1:3]) <= SMALLEST or x.shape[-1] < LAYER_NORM_FROM)

    def resample(self, x):
        """Resizes, pools, pads, crops or stacks features, within limits of their size."""
        small, large = min(x.shape[1:3]) < 2 * SMALLEST, max(x.shape[1:3]) > 8
        kind = self.one_of("pool", *[] if small else ["shrink", "crop"], *[] if large else ["pad", "enlarge", "stack"])
        pooling = self.one_of(layers.MaxPooling2D, layers.AveragePooling2D)
        return {
            "pool": lambda: pooling(self.one_of(2, 3), strides=1, padding="same")(x),
            "shrink": lambda: pooling(2, padding="valid")(x),
            "crop": lambda: layers.Cropping2D(((0, 1), (1, 0)))(x),
            "pad": lambda: layers.ZeroPadding2D(((1, 0), (0, 2)))(x),
            "stack": lambda: layers.Concatenate(axis=self.one_of(1, 2))([x, self.unit(x, x.shape[-1])]),
            "enlarge": lambda: self.enlarge(x),
        }[kind]()

    def enlarge(self, x):
        """Doubles the size of features, by interpolation or a transposed convolution."""
        if self.rng.randrange(2):
            return layers.UpSampling2D(2, interpolation=self.one_of("nearest", "bilinear"))(x)
        return layers.Conv2DTranspose(self.width(), self.one_of(2, 3), strides=2, padding="same")(x)

    def gate(self, x):
        """Applies a variant of squeeze-and-excitation, or multiplies by a map of one channel."""
        squash, channels = self.one_of("sigmoid", "hard_sigmoid", "tanh"), x.shape[-1]
        pool = self.one_of(layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)
        kind = self.one_of("conv", "dense", "reshaped", "map", "shared")
        if kind == "shared":
            squeeze, excite = layers.Dense(self.width(), activation="relu"), layers.Dense(channels)
            pools = (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)
            left, right = (excite(squeeze(one(keepdims=True)(x))) for one in pools)
            y = layers.Activation(squash)(left + right)
        elif kind == "map":
            y = layers.Conv2D(1, 3, padding="same", activation=squash)(x)
        elif kind == "conv":
            y = layers.Conv2D(self.width(), 1, activation=self.one_of(*ACTIVATIONS))(pool(keepdims=True)(x))
            y = layers.Conv2D(channels, 1, activation=squash)(y)
        elif kind == "dense":
            y = layers.Dense(self.width(), activation=self.one_of(*ACTIVATIONS))(pool()(x))
            y = layers.Reshape((1, 1, channels))(layers.Dense(channels, activation=squash)(y))
        else:
            y = layers.Reshape((1, 1, channels))(pool()(x))
            y = self.activate(layers.Dense(channels)(y))
        return layers.Multiply()([x, y]) if self.rng.randrange(2) else x * y

    def merge(self, tensors):
        """Combines tensors of the same shape."""
        if self.rarely():
            return tensors[0] + tensors[1] if self.rng.randrange(2) else tensors[0] * tensors[1]
        layer = self.one_of(*MERGES)
        return layer()(tensors[:2] if layer is layers.Subtract else tensors)

    def shortcut(self, x, filters: int, strides: int):
        """Brings the input of a block to the shape of its output; may leave it unchanged if the shapes are equal."""
        if strides == 1 and x.shape[-1] == filters and self.rng.randrange(2):
            return x
        added = filters - x.shape[-1]
        if added > 0 and self.rarely():
            x = x[:, ::strides, ::strides] if self.rng.randrange(2) else layers.MaxPooling2D(1, strides=strides)(x)
            before = self.rng.randint(0, added)
            return keras.ops.pad(x, [[0, 0], [0, 0], [0, 0], [before, added - before]])
        if strides > 1 and self.rng.randrange(2):
            x, strides = layers.AveragePooling2D(strides, padding="same")(x), 1
        x = layers.Conv2D(filters, 1, strides=strides, use_bias=self.one_of(False, True))(x)
        return self.normalise(x) if self.rng.randrange(2) else x

    def residual(self, x, *, before: bool = False, gated: bool = False):
        """Applies blocks of two or three convolutions with a shortcut."""
        filters, strides, after = self.width(), self.strides(x), self.one_of(*ACTIVATIONS)
        for block in range(self.rng.randint(1, 4)):
            y = self.unit(x, self.width(), 1 if block else strides, before=before)
            y = self.unit(y, self.width(), before=before, size=1) if self.rarely() else y
            y = self.convolve(self.activate(self.normalise(y)) if before else y, filters)
            y = y if before else self.normalise(y)
            y = self.gate(y) if gated or self.rarely() else y
            y = self.drop(y) if self.rarely() else y
            identity = x if block else self.shortcut(x, filters, strides)
            x = self.merge([identity, y]) if self.rarely() else layers.Add()([identity, y])
            x = x if before else layers.Activation(after)(x)
        return self.activate(self.normalise(x)) if before else x

    def preactivation(self, x):
        """Applies residual blocks that normalise and activate before each convolution."""
        return self.residual(x, before=True)

    def gated(self, x):
        """Applies residual blocks with a gate on their branch."""
        return self.residual(x, gated=True)

    def dense(self, x):
        """Applies layers that read all earlier channels, and usually a transition."""
        for _ in range(self.rng.randint(2, 4)):
            y = self.unit(x, self.width(), before=True, size=1) if self.rarely() else x
            y = self.unit(y, self.width(), before=self.rng.randrange(2) == 0)
            x = layers.Concatenate()([x, y] if self.rng.randrange(2) else [y, x])
        if self.rarely():
            return x
        x = self.unit(x, self.width(), before=True, size=1)
        return layers.AveragePooling2D(2, padding="same")(x) if self.strides(x) > 1 else x

    def branches(self, x):
        """Applies parallel branches, concatenated or merged, sometimes added to their input."""
        strides, added = self.strides(x), self.rarely()
        makers = (self.one_by_one, self.tower, self.asymmetric, self.pooled, self.context)
        made = [self.one_of(*makers)(x, 1 if added else strides) for _ in range(self.rng.randint(2, 4))]
        if self.rng.randrange(3) == 2:
            filters = self.width()
            y = self.merge([self.unit(branch, filters, size=1) for branch in made])
        else:
            y = layers.Concatenate()([*made, made[0]] if self.rarely() else made)
        if not added:
            return y
        y = layers.Conv2D(x.shape[-1], 1)(y)
        return self.activate(x + y * 0.5)

    def one_by_one(self, x, strides: int):
        """Applies a branch of one 1x1 convolution."""
        return self.unit(x, self.width(), strides, size=1)

    def tower(self, x, strides: int):
        """Applies a branch of a 1x1 and a 3x3 convolution."""
        return self.unit(self.unit(x, self.width(), size=1), self.width(), strides, size=3)

    def asymmetric(self, x, strides: int):
        """Applies a branch of a 1x1, a 1x3 and a 3x1 convolution."""
        y = self.unit(self.unit(x, self.width(), size=1), self.width(), size=(1, 3))
        return self.unit(y, self.width(), strides, size=(3, 1))

    def pooled(self, x, strides: int):
        """Applies a branch of pooling, sometimes followed by a 1x1 convolution."""
        pooling = self.one_of(layers.MaxPooling2D, layers.AveragePooling2D)
        x = pooling(3, strides=strides, padding="same")(x)
        return x if self.rng.randrange(2) else self.unit(x, self.width(), size=1)

    def context(self, x, strides: int):
        """Applies a branch of global pooling whose features are repeated at all positions."""
        height, width = (-(-size // strides) for size in x.shape[1:3])
        y = layers.Conv2D(self.width(), 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(x))
        return layers.UpSampling2D((height, width))(y)

    def inverted(self, x):
        """Applies inverted bottlenecks: expansion, depthwise convolution, projection; a shortcut if shapes match."""
        filters, strides = self.width(), self.strides(x)
        for block in range(self.rng.randint(1, 4)):
            channels = self.rng.randint(8, 16)
            y = layers.Conv2D(channels, 1, use_bias=False)(x) if self.rng.randrange(4) else x
            y = self.activate(self.normalise(y))
            options = {"padding": "same", "strides": 1 if block else strides, "use_bias": self.one_of(False, True)}
            if self.rng.randrange(2):
                y = layers.DepthwiseConv2D(self.one_of(3, 5), activation=self.one_of(*INSIDE), **options)(y)
            else:
                y = layers.Conv2D(y.shape[-1], 3, groups=y.shape[-1], activation=self.one_of(*INSIDE), **options)(y)
            y = self.activate(self.normalise(y))
            y = self.gate(y) if self.rarely() else y
            y = self.normalise(layers.Conv2D(filters, 1, use_bias=False)(y))
            x = layers.Add()([x, self.drop(y)]) if y.shape == x.shape else y
        return x

    def next(self, x):
        """Applies residual blocks of grouped convolutions, as ResNeXt does."""
        filters, strides = self.width(), self.strides(x)
        for block in range(self.rng.randint(1, 3)):
            y = self.unit(x, self.one_of(8, 12, 16), size=1)
            y = self.grouped(y, 3, padding="same", strides=1 if block else strides, use_bias=self.one_of(False, True))
            y = self.activate(self.normalise(y))
            y = self.gate(y) if self.rarely() else y
            y = self.normalise(layers.Conv2D(filters, 1, use_bias=False)(y))
            identity = x if block else self.shortcut(x, filters, strides)
            x = self.activate(layers.Add()([identity, y]))
        return x

    def plain(self, x):
        """Applies a sequence of convolutions with any padding, sometimes with resampling in between."""
        for _ in range(self.rng.randint(2, 4)):
            shortest = min(x.shape[1:3])
            if shortest < SMALLEST + 2 or self.rng.randrange(2):
                x = self.convolve(x, self.width(), self.strides(x))
            else:
                strides = self.one_of(1, 2, (2, 1)) if shortest >= 2 * SMALLEST + 1 else 1
                x = self.convolve(x, self.width(), strides, self.one_of(1, 2, 3), "valid")
            x = self.normalise(self.activate(x)) if self.rarely() else self.activate(self.normalise(x))
            x = self.resample(x) if self.rarely() else x
        return x


#: Groups of blocks by kind, each a function from features to features; a network has the kind of its first group.
BLOCK_KINDS: dict[str, Callable] = {
    "residual": Parts.residual,
    "preactivation": Parts.preactivation,
    "dense": Parts.dense,
    "branches": Parts.branches,
    "inverted": Parts.inverted,
    "gated": Parts.gated,
    "next": Parts.next,
    "u_shaped": u_shaped,
    "plain": Parts.plain,
    "shared": shared,
    "halves": halves,
}
