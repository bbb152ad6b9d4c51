"""Manifests for the tests of their reader."""

import math

NAMES = ("a.png", "b.png", "sub/c.png")


NAN = math.nan
WIDE = ("image,patient,Mass,Edema", "a.png,1,1,0", "b.png,1,,1", "sub/c.png,2,0,")
EXPECTED = {"a.png": [1, 0], "b.png": [NAN, 1], "sub/c.png": [0, NAN]}


def write(folder, *lines, name="manifest.csv", end="\n", encoding="utf-8"):
    (folder / name).write_bytes(end.join([*lines, ""]).encode(encoding))
    return folder


def labels(source):
    return {r.image: [r.label(name) for name in source.class_names] for r in source.records}


def same(found, expected):
    """Equal, with NaN equal to NaN."""
    assert found.keys() == expected.keys()
    for image, values in expected.items():
        assert [str(float(value)) for value in found[image]] == [str(float(value)) for value in values], image
