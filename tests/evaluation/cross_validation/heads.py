"""The head of a made-up cross-validation, for every test that pools runs."""

from typing import Any

from cxrfast.evaluation import CrossValidationHead


def head_of(protocol: str, **settings: Any) -> CrossValidationHead:
    """Two complete folds of one seed, without validation images; `settings` replace the fields that a test needs."""
    defaults = {
        "method": "made-up",
        "label_version": "2017",
        "folds": 2,
        "by": "patient",
        "of": "boxes",
        "seeds": (0,),
        "unannotated": 0.2,
        "validation_images": (0, 0),
        "classes_left_out": {},
        "splits_hash": "0123456789abcdef",
        "complete": True,
        "missing": (),
        "n_patients": 20,
        "shared_patients": 0,
    }
    return CrossValidationHead(protocol=protocol, **{**defaults, **settings})
