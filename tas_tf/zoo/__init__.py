"""Networks by name: the paper's, `keras.applications`, and files."""

from tas_tf.zoo.loading import ZOO, load_network
from tas_tf.zoo.resnet_cifar import resnet_cifar
from tas_tf.zoo.resnet_imagenet import resnet_imagenet

__all__ = ["ZOO", "load_network", "resnet_cifar", "resnet_imagenet"]
