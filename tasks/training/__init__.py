"""Training of PETs on a frozen backbone: rows in, an artifact's tensors out.

The only part of `tasks` that imports torch, transformers and scikit-learn.
"""
