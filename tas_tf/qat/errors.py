"""The error of networks that can't be trained quantisation-aware."""

from tas_tf.errors import UserError


class QatError(UserError):
    """A network that can't be trained quantisation-aware."""
