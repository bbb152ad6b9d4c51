"""Objects of torchxrayvision, by stand-ins with the attributes that its documentation names.

The package is not needed for the tests. It has been tried with version 1.5.7: NIH, CheX, Subset, Filter and Merge.
"""

import numpy as np
import pytest
import torch

from cxrfast.data import XrayDataset, from_torchxrayvision
from cxrfast.errors import CxrfastError, UsageError
from tests.data.datasets.files import write_png

NAN = float("nan")


class Column(list):
    def tolist(self):
        return list(self)


class Frame:
    """What is used of a pandas table: names of columns, columns, number of rows."""

    def __init__(self, **columns):
        self._values = {name.replace("__", " "): list(values) for name, values in columns.items()}
        self.columns = list(self._values)

    def __getitem__(self, name):
        return Column(self._values[name])

    def __len__(self):
        return len(next(iter(self._values.values()), []))


class NIH_Dataset:
    """Three images of two patients; a mask of two areas on the first."""

    transform = data_aug = None

    def __init__(self, folder, pathology_masks=False):
        self.imgpath = str(folder)
        self.pathologies = ["Effusion", "Mass", "Nodule"]
        self.labels = np.array([[0, 1, NAN], [1, 0, 0], [NAN, NAN, NAN]], dtype=np.float32)
        self.pathology_masks = pathology_masks
        self.read = []
        self.csv = Frame(
            Image__Index=["a.png", "b.png", "c.png"],
            patientid=["1", "2", "2"],
            view=["PA", "AP", "UNKNOWN"],
            age_years=[58.0, 414.0, NAN],
            sex_male=[True, False, False],
            sex_female=[False, True, False],
            has_masks=[True, False, False],
        )

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.read.append(index)
        sample = {"img": np.zeros((1, 8, 16)), "lab": self.labels[index]}
        if self.pathology_masks:
            mask = np.zeros((1, 8, 16))
            mask[0, 2:4, 4:8] = mask[0, 6:8, 12:16] = 1
            sample["pathology_masks"] = {2: mask, 0: np.zeros((1, 8, 16))} if index == 0 else {}
        return sample if self.transform is None else self.transform(sample)


class CheX_Dataset(NIH_Dataset):
    def __init__(self, folder):
        super().__init__(folder)
        self.csv = Frame(
            Path=[f"CheXpert-v1.0-small/train/patient0000{n}/study1/view1_frontal.jpg" for n in (1, 2, 3)],
            patientid=["00001", "00002", "00003"],
            view=["AP", "L", "AP Supine"],
        )


class SubsetDataset:
    def __init__(self, dataset, idxs):
        self.dataset, self.idxs = dataset, idxs
        self.pathologies, self.labels, self.csv = dataset.pathologies, dataset.labels[idxs], object()

    def __len__(self):
        return len(self.idxs)


class MergeDataset:
    def __init__(self, datasets):
        self.datasets = datasets
        self.which_dataset = np.repeat(np.arange(len(datasets)), [len(part) for part in datasets])
        self.pathologies = datasets[0].pathologies
        self.labels = np.concatenate([part.labels for part in datasets])
        self.csv = object()

    def __len__(self):
        return len(self.labels)


@pytest.fixture
def nih(tmp_path):
    for name in "abc":
        write_png(tmp_path / "nih" / f"{name}.png", 16, 8)
    return NIH_Dataset(tmp_path / "nih")


@pytest.fixture
def chexpert(tmp_path):
    for n in (1, 2, 3):
        write_png(tmp_path / "chexpert" / f"train/patient0000{n}/study1/view1_frontal.jpg")
    return CheX_Dataset(tmp_path / "chexpert")


def known(source):
    return [[record.label(name) for name in source.class_names] for record in source.records]


def test_labels_and_details(nih):
    source = from_torchxrayvision(nih)
    assert (source.layout, source.label_version, source.grouping) == ("torchxrayvision", "NIH_Dataset", "patient")
    assert source.class_names == ("Effusion", "Mass", "Nodule")
    np.testing.assert_array_equal(known(source), [[0, 1, NAN], [1, 0, 0], [NAN, NAN, NAN]])
    assert [(r.image, r.patient, r.view, r.age, r.sex) for r in source.records] == [
        ("a.png", "1", "PA", 58, "M"),
        ("b.png", "2", "AP", None, "F"),
        ("c.png", "2", None, None, None),
    ]
    assert "no boxes: the data set was made without pathology_masks=True" in source.notes
    assert nih.read == []


def test_it_trains(nih):
    """The records go where those of a reader go."""
    nih.pathology_masks = True
    source = from_torchxrayvision(nih)
    item = XrayDataset(source.records, source.class_names, image_size=16)[0]
    assert item["image"].shape == (1, 16, 16)
    assert item["labels"].tolist() == [0, 1, 1]
    assert item["boxes"][item["has_box"]].tolist() == [[4, 4, 8, 8], [12, 12, 16, 16]]
    assert torch.isnan(XrayDataset(source.records, source.class_names, 16)[2]["labels"]).all()


def test_masks_become_boxes(nih):
    """One for each connected area, in fractions; transforms, which would move them, are not applied."""
    nih.pathology_masks = True
    nih.transform = lambda sample: pytest.fail("a transform was applied")
    source = from_torchxrayvision(nih)
    first, *others = source.records
    assert first.boxes == {"Nodule": ((0.25, 0.25, 0.5, 0.5), (0.75, 0.75, 1, 1))}
    assert [record.boxes for record in others] == [{}, {}]
    assert first.label("Nodule") == 1  # unknown without its box
    assert nih.read == [0]  # images without masks are not read
    assert "masks became boxes, one for each connected area" in source.notes
    assert nih.transform is not None


def test_subsets_and_merged_data_sets(nih, chexpert, tmp_path):
    subset = from_torchxrayvision(SubsetDataset(nih, [2, 0]))
    assert [record.image for record in subset.records] == ["c.png", "a.png"]
    np.testing.assert_array_equal(known(subset), [[NAN, NAN, NAN], [0, 1, NAN]])
    merged = from_torchxrayvision(MergeDataset([SubsetDataset(nih, np.array([0, 2])), chexpert]))
    assert merged.root == tmp_path
    folder = "chexpert/train/patient0000{}/study1/view1_frontal.jpg"
    assert [record.image for record in merged.records] == [
        "nih/a.png",
        "nih/c.png",
        *(folder.format(n) for n in (1, 2, 3)),
    ]
    assert [record.patient for record in merged.records] == ["0/1", "0/2", "1/1", "1/2", "1/3"]
    assert [record.view for record in merged.records[2:]] == ["AP", "lateral", "AP"]
    assert merged.label_version == "NIH_Dataset + CheX_Dataset"


def test_names_without_a_class(nih):
    """relabel_dataset fills in the names of a model, some of which are empty."""
    nih.pathologies = ["", "No Finding", "Nodule"]
    nih.labels = np.array([[NAN, 1, 0], [NAN, 0, 1], [NAN, NAN, NAN]])
    source = from_torchxrayvision(nih)
    assert source.class_names == ("Nodule",)
    assert source.class_notes == ["pathologies without a name or called No Finding, which are no classes: 2"]
    np.testing.assert_array_equal(known(source), [[0], [1], [NAN]])


def test_missing_and_repeated_images(nih, tmp_path):
    (tmp_path / "nih" / "b.png").unlink()
    source = from_torchxrayvision(nih)
    assert [record.image for record in source.records] == ["a.png", "c.png"]
    assert "images without a file, left out: 1 (first: b.png)" in source.notes
    assert len(from_torchxrayvision(nih, images_required=False).records) == 3
    twice = from_torchxrayvision(SubsetDataset(nih, [0, 0, 2]))
    assert [record.image for record in twice.records] == ["a.png", "c.png"]
    assert "images that are there twice, taken once: 1" in twice.notes
    nih.csv = Frame(Image__Index=["a.png", "a.png", "c.png"])
    with pytest.raises(CxrfastError, match="image a.png is there twice, with different values"):
        from_torchxrayvision(nih)


def test_image_paths(nih, tmp_path):
    nih.csv, nih.imgpath = Frame(other=[1, 2, 3]), None
    with pytest.raises(UsageError, match="NIH_Dataset has no folder imgpath .it is None.; give the files"):
        from_torchxrayvision(nih)
    source = from_torchxrayvision(nih, image_paths=[tmp_path / "nih" / f"{name}.png" for name in "abc"])
    assert source.root == tmp_path / "nih"
    assert [(record.image, record.patient) for record in source.records] == [(f"{n}.png", f"{n}.png") for n in "abc"]
    assert source.grouping == "image"
    assert "images without a patient, each taken as its own: 3" in source.notes
    with pytest.raises(UsageError, match="image_paths: expected 3 paths, one for each item, got 1"):
        from_torchxrayvision(nih, image_paths=["a.png"])
    nih.imgpath = str(tmp_path / "nih")
    with pytest.raises(UsageError, match="csv of NIH_Dataset names no images"):
        from_torchxrayvision(nih)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array([[0, 1, -1.0]] * 3)}, "labels have the value -1, expected 1, 0 or NaN"),
        ({"labels": np.zeros((3, 2))}, r"labels are \[3, 2\], expected \[N, 3\] for its pathologies"),
        ({"labels": np.zeros((2, 3))}, "csv of NIH_Dataset has 3 rows, labels 2; expected one row for each item"),
        ({"labels": np.zeros((0, 3))}, "it has no items; check its views and filters"),
        ({"pathologies": ["Mass", "Nodule", "Mass"]}, "pathology 'Mass' is there twice"),
        ({"pathologies": ["Mass", "", "Nodule"]}, "pathology 1 has labels but no name"),
    ],
)
def test_objects_that_contradict_themselves(nih, change, message):
    for name, value in change.items():
        setattr(nih, name, value)
    with pytest.raises(UsageError, match=message):
        from_torchxrayvision(nih)


def test_other_objects(nih, tmp_path):
    with pytest.raises(UsageError, match="dataset: list has no pathologies, labels, csv; expected an object of"):
        from_torchxrayvision([1, 2])
    for name in "abc":
        (tmp_path / "nih" / f"{name}.png").unlink()
    with pytest.raises(CxrfastError, match="none of the 3 images was found in .*nih .first: a.png."):
        from_torchxrayvision(nih)


def test_masks_that_cannot_be_read(nih):
    class Broken(NIH_Dataset):
        def __getitem__(self, index):
            raise OSError("truncated")

    broken = Broken(nih.imgpath, pathology_masks=True)
    with pytest.raises(CxrfastError, match="item 0 of Broken cannot be read .truncated.; leave it out, or make"):
        from_torchxrayvision(broken)
