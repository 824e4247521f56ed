"""Error for networks that can't be trained quantisation-aware."""

from tas_tf.errors import UserError


class QatError(UserError):
    """The network can't be trained quantisation-aware."""
