"""Many kinds of networks, checked from graph to TFLite file; see `__main__.py`."""
