"""Networks of KerasHub, built from small configurations without weights; none if KerasHub isn't installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import keras

from benchmarks.networks.catalogue import Catalogue

HUB = Catalogue()
#: A line to print if KerasHub isn't installed, otherwise empty.
HUB_IS_MISSING = (
    ""
    if importlib.util.find_spec("keras_hub")
    else "KerasHub's networks are left out. For them: pip install --no-deps keras-hub regex tokenizers sentencepiece"
)
_SHAPE = (32, 32, 3)


def _add(name: str, special: str, **options: Any) -> Callable[[Callable], Callable]:
    """Like `Catalogue.add`; the decorated function takes the module of KerasHub's models."""

    def decorate(function: Callable) -> Callable:
        def build(images: Any) -> keras.Model:
            import keras_hub

            return function(keras_hub.models)

        if not HUB_IS_MISSING:
            HUB.add(f"KerasHub {name}", special, **options)(build)
        return function

    return decorate


def _resnet(models: Any, **options: Any) -> keras.Model:
    backbone = models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[2, 2],
        stackwise_num_strides=[1, 2],
        image_shape=_SHAPE,
        **options,
    )
    return models.ResNetImageClassifier(backbone=backbone, num_classes=10)


@_add("ResNet", "ResNetImageClassifier, basic blocks")
def _resnet_v1(models: Any) -> keras.Model:
    return _resnet(models, block_type="basic_block")


@_add("ResNet V2", "bottleneck blocks, activation first")
def _resnet_v2(models: Any) -> keras.Model:
    return _resnet(models, block_type="bottleneck_block", use_pre_activation=True)


@_add("ResNet-vd", "average pooling in the shortcuts")
def _resnet_vd(models: Any) -> keras.Model:
    return _resnet(models, block_type="basic_block_vd")


@_add("MobileNet V3", "blocks that are layer classes of KerasHub")
def _mobilenet(models: Any) -> keras.Model:
    backbone = models.MobileNetBackbone(
        stackwise_expansion=[[40, 56], [64, 144]],
        stackwise_num_blocks=[2, 2],
        stackwise_num_filters=[[16, 16], [24, 24]],
        stackwise_kernel_size=[[3, 3], [5, 5]],
        stackwise_num_strides=[[2, 1], [2, 1]],
        stackwise_se_ratio=[[None, None], [0.25, 0.25]],
        stackwise_activation=[["relu", "relu"], ["hard_swish", "hard_swish"]],
        stackwise_padding=[[1, 1], [2, 2]],
        output_num_filters=96,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        last_layer_filter=96,
        squeeze_and_excite=0.5,
        image_shape=_SHAPE,
    )
    return models.MobileNetImageClassifier(backbone=backbone, num_classes=10, num_features=128)


def _efficientnet(models: Any, kinds: list[str], **options: Any) -> keras.Model:
    backbone = models.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0] * 3,
        stackwise_depth_coefficients=[1.0] * 3,
        stackwise_kernel_sizes=[3, 3, 5],
        stackwise_num_repeats=[1, 2, 2],
        stackwise_input_filters=[16, 16, 24],
        stackwise_output_filters=[16, 24, 32],
        stackwise_expansion_ratios=[1, 4, 4],
        stackwise_strides=[1, 2, 2],
        stackwise_squeeze_and_excite_ratios=[0.25, 0.25, 0.25],
        stackwise_block_types=kinds,
        dropout=0.0,
        num_features=96,
        input_shape=_SHAPE,
        **options,
    )
    return models.EfficientNetImageClassifier(backbone=backbone, num_classes=10)


@_add("EfficientNet", "inverted residuals with gates")
def _efficientnet_v1(models: Any) -> keras.Model:
    return _efficientnet(models, ["v1"] * 3)


@_add("EfficientNet V2", "fused and other blocks, layer classes of KerasHub")
def _efficientnet_v2(models: Any) -> keras.Model:
    return _efficientnet(models, ["fused", "fused", "unfused"])


@_add("DenseNet", "growth 16")
def _densenet(models: Any) -> keras.Model:
    backbone = models.DenseNetBackbone(stackwise_num_repeats=[2, 3], growth_rate=16, image_shape=_SHAPE)
    return models.DenseNetImageClassifier(backbone=backbone, num_classes=10)


def _cspnet(models: Any, stage: str, block: str) -> keras.Model:
    backbone = models.CSPNetBackbone(
        stem_filters=16,
        stem_kernel_size=3,
        stem_strides=2,
        stackwise_depth=[1, 2],
        stackwise_strides=[1, 2],
        stackwise_num_filters=[24, 48],
        block_type=block,
        stage_type=stage,
        bottle_ratio=[0.5],
        block_ratio=[0.5],
        image_shape=_SHAPE,
    )
    return models.CSPNetImageClassifier(backbone=backbone, num_classes=10)


@_add("CSPNet", "each stage splits its channels: CSPDarkNet")
def _csp_darknet(models: Any) -> keras.Model:
    return _cspnet(models, "csp", "dark_block")


@_add("CSPNet CS3", "one transition, edge blocks")
def _cs3_edgenet(models: Any) -> keras.Model:
    return _cspnet(models, "cs3", "edge_block")


@_add("HGNetV2", "several features from one backbone, of which one is used")
def _hgnet(models: Any) -> keras.Model:
    backbone = models.HGNetV2Backbone(
        depths=[1, 2],
        embedding_size=16,
        hidden_sizes=[32, 64],
        stem_channels=[3, 8, 16],
        hidden_act="relu",
        use_learnable_affine_block=False,
        stackwise_stage_filters=[(16, 12, 32, 1, 2, 3), (32, 16, 64, 1, 2, 3)],
        apply_downsample=[False, True],
        use_lightweight_conv_block=[False, True],
        image_shape=_SHAPE,
    )
    return models.HGNetV2ImageClassifier(backbone=backbone, preprocessor=None, num_classes=10, head_filters=96)


@_add("VGG", "hidden convolutions as head")
def _vgg(models: Any) -> keras.Model:
    backbone = models.VGGBackbone([1, 1, 2], [16, 24, 32], image_shape=(56, 56, 3))
    return models.VGGImageClassifier(backbone=backbone, num_classes=10, pooling_hidden_dim=64, pooling="avg")


@_add("Xception", "separable convolutions")
def _xception(models: Any) -> keras.Model:
    filters = [[16, 24], [32, 32], [32, 32, 32], [48, 64]]
    backbone = models.XceptionBackbone(filters, [False, True, False, False], image_shape=_SHAPE)
    return models.XceptionImageClassifier(backbone=backbone, num_classes=10)
