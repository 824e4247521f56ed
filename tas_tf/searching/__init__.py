"""The differentiable search: one step, a whole run, and what it reports."""
