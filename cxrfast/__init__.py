"""Weakly supervised localisation of thoracic diseases, and the fast operators it is made of."""

import logging

logging.getLogger("cxrfast").addHandler(logging.NullHandler())  # nothing is shown where logging is not configured

__version__ = "0.1.0"
