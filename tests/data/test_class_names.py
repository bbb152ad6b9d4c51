"""Names of one finding meet; names of different findings do not."""

import pytest

from cxrfast.data.class_names import ClassMatcher, class_key, describe_matches, is_no_finding
from cxrfast.errors import CxrfastError


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Infiltrate", "Infiltration"),
        ("Pleural Effusion", "Effusion"),
        ("pleural effusion", "EFFUSION"),
        ("Pleural_Thickening", "Pleural thickening"),
        ("pleural-thickening ", "Pleural  Thickening"),
        ("No finding", "No_Finding"),
        ("Pulmonary edema", "Edema"),
    ],
)
def test_spellings_of_one_finding(one, other):
    assert class_key(one) == class_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Lung Opacity", "Infiltration"),
        ("Mass", "Nodule"),
        ("Pleural Other", "Pleural Effusion"),
        ("Enlarged Cardiomediastinum", "Cardiomegaly"),
        ("Consolidation", "Infiltration"),
    ],
)
def test_different_findings_stay_apart(one, other):
    assert class_key(one) != class_key(other)


def test_the_matcher_returns_the_names_of_its_list():
    matcher = ClassMatcher(["Effusion", "Pleural_Thickening"])
    assert matcher.matches(["Pleural Effusion", "pleural thickening", "Fracture"]) == {
        "Pleural Effusion": "Effusion",
        "pleural thickening": "Pleural_Thickening",
    }


def test_a_list_with_one_finding_twice_is_refused():
    with pytest.raises(CxrfastError, match="'Effusion' and 'Pleural Effusion' mean the same finding"):
        ClassMatcher(["Effusion", "Pleural Effusion"])


def test_only_other_spellings_are_described():
    assert describe_matches({"Mass": "Mass"}) is None
    assert describe_matches({"Mass": "Mass", "Infiltrate": "Infiltration"}) == (
        "class names matched: Infiltrate = Infiltration"
    )


def test_no_finding():
    assert all(map(is_no_finding, ("No Finding", "no_finding", "NORMAL", " No findings ")))
    assert not any(map(is_no_finding, ("Mass", "Finding", "abnormal", "")))
