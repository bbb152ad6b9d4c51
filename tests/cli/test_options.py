"""Options that several commands share."""

import pytest

from cxrfast.cli.options import class_list


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Mass", ["Mass"]),
        ("Mass, Nodule/Mass", ["Mass", "Nodule/Mass"]),
        ('"Mass, left", Edema', ["Mass, left", "Edema"]),
        ("Mass,,Edema", ["Mass", "", "Edema"]),
        ("", [""]),
    ],
)
def test_names_with_commas_are_in_quotes(text, names):
    assert class_list(text) == names
