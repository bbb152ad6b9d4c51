"""Whole experiments: evaluating a run, cross-validation, bags, published tables, the study on phantoms, the demo."""
