"""Image data: sources, splits, preprocessing, augmentation and the one input pipeline."""

from tas_tf.data.augmentation import Augmentation
from tas_tf.data.pipeline import epochs, evaluation, paired_epochs, steps_per_epoch
from tas_tf.data.preprocessing import Preprocessing
from tas_tf.data.source import ArraySource, Source, StreamedSource
from tas_tf.data.sources import load_source
from tas_tf.data.split import stratified_halves, stratified_subset

__all__ = [
    "ArraySource",
    "Augmentation",
    "Preprocessing",
    "Source",
    "StreamedSource",
    "epochs",
    "evaluation",
    "load_source",
    "paired_epochs",
    "steps_per_epoch",
    "stratified_halves",
    "stratified_subset",
]
