"""The steps of a run as objects, which running, planning and reporting all read."""
