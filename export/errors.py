"""The error of an export that can't be trusted."""

from tas_tf.errors import UserError


class ExportError(UserError):
    """A model that can't be converted, or an artefact that doesn't compute what its model computes."""
