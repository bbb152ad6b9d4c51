"""Experiments: evaluation of a run, cross-validation, bags, published tables, the study on phantoms, the demo."""
