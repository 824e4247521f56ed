"""The differentiable search: its step, its runs and its reports."""
