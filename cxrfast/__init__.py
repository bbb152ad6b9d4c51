"""Weakly supervised localisation of thoracic diseases, and the fast operators it is made of."""

__version__ = "0.1.0"
