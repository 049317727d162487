"""Figures of fits and posteriors. They know frames, arrays and models, and no verdict."""
