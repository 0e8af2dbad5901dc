"""Synthetic texts: paraphrases with known similarity for text-matching, code with docstrings for code."""
