"""Which class names mean the same finding.

Data sets, tables of boxes, predictions and imported models spell the same class differently. Names are compared without
case, underscores, hyphens and repeated spaces, and through one table of synonyms.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from cxrfast.errors import CxrfastError

# Each row is one finding. Only names that mean the same finding are in a row: "Lung Opacity" is not Infiltration.
_SYNONYMS: tuple[tuple[str, ...], ...] = (
    ("Infiltration", "Infiltrate", "Infiltrates"),
    ("Effusion", "Pleural Effusion"),
    ("Pleural Thickening", "Pleural Thickenings"),
    ("Cardiomegaly", "Enlarged Heart"),
    ("Edema", "Oedema", "Pulmonary Edema", "Lung Edema", "Pulmonary Oedema"),
    ("Pneumothorax", "Pneumothoraces"),
    ("Fibrosis", "Pulmonary Fibrosis"),
    ("Hernia", "Hiatal Hernia", "Hiatus Hernia"),
    ("Nodule", "Lung Nodule", "Pulmonary Nodule"),
    ("Mass", "Lung Mass", "Pulmonary Mass"),
    ("Nodule/Mass", "Nodule Mass", "Mass/Nodule"),
    ("Atelectasis", "Atelectases"),
    ("Emphysema", "Pulmonary Emphysema"),
    ("Consolidation", "Consolidations"),
    ("Lung Opacity", "Lung Opacities", "Airspace Opacity"),
    ("Support Devices", "Support Device"),
    ("Fracture", "Fractures"),
    ("Other Diseases", "Other Disease"),  # the training and test tables of VinDr-CXR differ
    ("Other Lesion", "Other Lesions"),
    ("No Finding", "No Findings", "Normal"),
)


def class_key(name: str) -> str:
    """The same text for all names of one finding.

    Example::

        class_key("Pleural_Effusion") == class_key("effusion")  # True
    """
    key = _plain(name)
    return _KEYS.get(key, key)


def is_no_finding(name: str) -> bool:
    """Whether a label says that no class is present: "No Finding", "normal" and other spellings."""
    return class_key(name) == _NO_FINDING


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]+", " ", name).strip().casefold()


_KEYS = {_plain(name): _plain(row[0]) for row in _SYNONYMS for name in row}
_NO_FINDING = class_key("No Finding")


class ClassMatcher:
    """Finds classes of a fixed list by any of their names.

    Raises :class:`CxrfastError` if two classes of the list mean the same finding.
    """

    def __init__(self, class_names: Sequence[str]):
        self.class_names = tuple(class_names)
        self._by_key: dict[str, str] = {}
        for name in class_names:
            other = self._by_key.setdefault(class_key(name), name)
            if other != name:
                raise CxrfastError(f"classes: {other!r} and {name!r} mean the same finding; leave out or rename one")

    def match(self, name: str) -> str | None:
        """The class of the list that ``name`` means, or None."""
        return name if name in self.class_names else self._by_key.get(class_key(name))

    def matches(self, names: Iterable[str]) -> dict[str, str]:
        """Name -> class of the list, for all names that mean one."""
        found = ((name, self.match(name)) for name in names)
        return {name: of for name, of in found if of is not None}


def describe_matches(matches: Mapping[str, str]) -> str | None:
    """The matches between different spellings in one line, or None if there are none."""
    different = [f"{name} = {of}" for name, of in matches.items() if name != of]
    return f"class names matched: {', '.join(different)}" if different else None
