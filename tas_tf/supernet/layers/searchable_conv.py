"""A convolution whose number of filters is searched, with the batch normalisation that belongs to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tas_tf.supernet.layers.mixing import normalise_and_mix, statistics_through_kernel
from tas_tf.supernet.layers.normalization import PACKAGE
from tas_tf.supernet.layers.statistics import update_running, uses_batch_statistics


@keras.saving.register_keras_serializable(package=PACKAGE)
class SearchableConv(keras.layers.Layer):
    """Convolves once at full width, then mixes the outputs of the drawn candidates.

    A candidate with c filters keeps the first c and has its own batch normalisation scale and offset. Its output is
    widened to the widest drawn candidate. The statistics of a channel are equal for all candidates, so they are shared.

    Call arguments:
        inputs: `[batch, ..., channels]`, with inactive channels zero.
        taps: The unit's taps from `ChannelPlan`.

    Args:
        conv: Config of the convolution (a layer of class Conv, Conv...Transpose, SeparableConv or Dense).
        conv_class: Class name of the convolution.
        norm: Config of the BatchNormalization that belongs to the convolution, if any.
        candidates: Filter counts to choose from.

    Reference:
        Dong and Yang 2019, section 3.2, https://arxiv.org/abs/1905.09717
    """

    def __init__(
        self,
        conv: Mapping[str, Any],
        conv_class: str,
        norm: Mapping[str, Any] | None,
        candidates: Sequence[int],
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.autocast = False  # the mixing stays in float32; `call` casts the features
        self.conv, self.conv_class, self.candidates = dict(conv), conv_class, list(candidates)
        self.norm = None if norm is None else dict(norm)
        self.momentum = None if norm is None else norm["momentum"]
        self.synchronized = bool(norm and norm.get("synchronized"))
        self.activation = keras.activations.get(conv.get("activation"))
        self.filters = conv["units"] if conv_class == "Dense" else conv["filters"]

    @property
    def is_separable(self) -> bool:
        """Whether a depthwise convolution precedes the searched one."""
        return self.conv_class.startswith("Separable")

    @property
    def is_transposed(self) -> bool:
        """Whether the convolution is transposed. Its kernel is `[..., filters, channels]`."""
        return self.conv_class.endswith("Transpose")

    def build(self, inputs_shape, taps_shape=None):
        """Makes the weights at full width, with one scale and offset per candidate."""
        channels, config = inputs_shape[-1], self.conv
        area = () if self.conv_class == "Dense" else tuple(config["kernel_size"])
        if self.is_separable:
            multiplier = config["depth_multiplier"]
            shape = (*area, channels, multiplier)
            self.depthwise_kernel = self._weight("depthwise_kernel", shape, "depthwise_initializer")
            channels, area = channels * multiplier, (1,) * len(area)
        initializer = "pointwise_initializer" if self.is_separable else "kernel_initializer"
        name = "pointwise_kernel" if self.is_separable else "kernel"
        sides = (self.filters, channels) if self.is_transposed else (channels, self.filters)
        self.kernel = self._weight(name, (*area, *sides), initializer)
        self.looks_at_one_place = all(side == 1 for side in area) and not self.is_transposed
        if config["use_bias"]:
            self.bias = self.add_weight(
                name="bias", shape=(self.filters,), initializer=_initializer(config["bias_initializer"]), autocast=False
            )
        if self.norm is not None:
            self._build_norm()

    def _weight(self, name: str, shape: tuple[int, ...], initializer: str):
        initializer = _initializer(self.conv[initializer])
        return self.add_weight(name=name, shape=shape, initializer=initializer, autocast=False)

    def _build_norm(self) -> None:
        each, shared = (len(self.candidates), self.filters), (self.filters,)
        weights = {
            "gamma": (self.norm["scale"], each, True),
            "beta": (self.norm["center"], each, True),
            "moving_mean": (True, shared, False),
            "moving_variance": (True, shared, False),
        }
        for name, (wanted, shape, trainable) in weights.items():
            if wanted:
                weight = self.add_weight(
                    name=name,
                    shape=shape,
                    initializer=_initializer(self.norm[f"{name}_initializer"]),
                    trainable=trainable,
                    autocast=False,
                    # Replicas see different batches; Keras's own layer averages their statistics too.
                    aggregation="none" if trainable else "mean",
                )
                setattr(self, name, weight)

    def call(self, inputs, taps, training=None):
        """Convolves, normalises (by the batch's statistics in training), mixes and applies the activation."""
        inputs = tf.cast(inputs, self.compute_dtype)
        if self.is_separable:
            inputs = self._convolve_depthwise(inputs)
        reads, moves, shares = taps
        bias = self.bias if self.conv["use_bias"] else None
        if self.norm is None:
            matrix = self._scatter(moves, shares)
            offset = None if bias is None else tf.linalg.matvec(matrix, bias, transpose_a=True)
            outputs = self._convolve_mixed(inputs, matrix, offset)
        else:
            scale = tf.gather_nd(self.gamma, reads) if self.norm["scale"] else 1.0
            matrix = self._scatter(moves, shares * scale)
            offset = self._offset(reads, moves, shares)
            by_batch = uses_batch_statistics(training)
            outputs = self._normalised(inputs, matrix, offset, bias, by_batch)
        return self.activation(outputs)

    def _scatter(self, moves: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        return tf.scatter_nd(moves, values, [self.filters, self.filters])

    def _offset(self, reads: tf.Tensor, moves: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
        if not self.norm["center"]:
            return tf.zeros([self.filters])
        return tf.scatter_nd(moves[:, 1:], shares * tf.gather_nd(self.beta, reads), [self.filters])

    def _normalised(self, inputs, matrix, offset, bias, by_batch):
        epsilon = self.norm["epsilon"]
        if by_batch and not self._prefers_mixed_kernel(inputs):
            features = self._convolve(inputs, self.kernel)
            outputs, mean, variance = normalise_and_mix(
                features, matrix, offset, epsilon=epsilon, synchronized=self.synchronized
            )
            self._update(mean, variance, bias)
            return outputs
        if by_batch:
            places = inputs if self.is_separable else _strided(inputs, self.conv)
            kernel = tf.reshape(self.kernel, [-1, self.filters])
            mean, variance = statistics_through_kernel(places, kernel, synchronized=self.synchronized)
            self._update(mean, variance, bias)
        else:
            variance = self.moving_variance
            mean = self.moving_mean if bias is None else self.moving_mean - bias
        scaled = tf.math.rsqrt(variance + epsilon)[:, None] * matrix
        return self._convolve_mixed(inputs, scaled, offset - tf.linalg.matvec(scaled, mean, transpose_a=True))

    def _prefers_mixed_kernel(self, inputs) -> bool:
        return self.looks_at_one_place and inputs.shape[-1] <= self.filters

    def _update(self, mean, variance, bias) -> None:
        # A bias before batch normalisation cancels out, but shifts the running mean.
        update_running(self, mean if bias is None else mean + bias, variance)

    def _convolve_mixed(self, inputs, matrix, offset):
        """Folds the mixing of the outputs into the kernel, which is exact because both are linear."""
        if self.is_transposed:
            mixed = tf.einsum("...oi,om->...mi", self.kernel, matrix)
        else:
            mixed = tf.reshape(tf.reshape(self.kernel, [-1, self.filters]) @ matrix, tf.shape(self.kernel))
        outputs = self._convolve(inputs, mixed)
        return outputs if offset is None else tf.nn.bias_add(outputs, tf.cast(offset, outputs.dtype))

    def _convolve(self, inputs, kernel):
        kernel = tf.cast(kernel, inputs.dtype)
        if self.conv_class == "Dense":
            flat = tf.reshape(inputs, [-1, inputs.shape[-1]]) @ tf.reshape(kernel, [-1, self.filters])
            return tf.reshape(flat, tf.concat([tf.shape(inputs)[:-1], [self.filters]], 0))
        if self.is_separable:
            return keras.ops.conv(inputs, kernel, padding="valid")
        if self.is_transposed:
            padding = self.conv["output_padding"]
            return keras.ops.conv_transpose(inputs, kernel, output_padding=padding, **_geometry(self.conv))
        return keras.ops.conv(_padded(inputs, self.conv), kernel, **_geometry(self.conv))

    def _convolve_depthwise(self, inputs):
        kernel = tf.cast(self.depthwise_kernel, inputs.dtype)
        return keras.ops.depthwise_conv(inputs, kernel, **_geometry(self.conv))

    def compute_output_shape(self, inputs_shape, taps_shape=None):
        """Returns the output shape at full width."""
        if self.conv_class == "Dense":
            return (*inputs_shape[:-1], self.filters)
        layer = getattr(keras.layers, self.conv_class).from_config(self.conv)
        return tuple(layer.compute_output_shape(inputs_shape))  # transposed convolutions return a list

    def get_config(self):
        """Returns the constructor arguments."""
        config = super().get_config()
        own = {"conv": self.conv, "conv_class": self.conv_class, "norm": self.norm, "candidates": self.candidates}
        return {**config, **own}


def _initializer(config: Any) -> Any:
    return keras.initializers.get(config)


def _geometry(config: Mapping[str, Any]) -> dict[str, Any]:
    dilation = config["dilation_rate"]
    one = all(rate == 1 for rate in (dilation if isinstance(dilation, (list, tuple)) else [dilation]))
    strides = tuple(config["strides"])
    return {
        "strides": strides[0] if len(set(strides)) == 1 else strides,
        "padding": "valid" if config["padding"] == "causal" else config["padding"],
        "data_format": "channels_last",
        "dilation_rate": 1 if one else tuple(dilation),
    }


def _padded(inputs: tf.Tensor, config: Mapping[str, Any]) -> tf.Tensor:
    """Pads a sequence in front if the convolution is causal. Keras layers do this, but Keras ops don't."""
    if config["padding"] != "causal":
        return inputs
    (size,), (rate,) = config["kernel_size"], config["dilation_rate"]
    return tf.pad(inputs, [[0, 0], [rate * (size - 1), 0], [0, 0]])


def _strided(inputs: tf.Tensor, config: Mapping[str, Any]) -> tf.Tensor:
    """The positions that a 1x1 convolution reads."""
    strides = config.get("strides", ())
    strides = (strides,) if isinstance(strides, int) else strides
    if all(step == 1 for step in strides):
        return inputs
    return inputs[(slice(None), *(slice(None, None, step) for step in strides))]
