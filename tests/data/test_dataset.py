"""Items of the data set, alone and collated."""

import pytest
import torch
from torch.utils.data import DataLoader

from cxrfast.data.dataset import XrayDataset
from cxrfast.data.datasets.chestxray14 import read_chestxray14
from cxrfast.data.labels import BOXED_CLASSES, CLASSES
from cxrfast.data.transforms import Augmentation
from cxrfast.errors import CxrfastError, UsageError


@pytest.fixture
def records(release):
    return read_chestxray14(release.root).records


def test_item(records):
    item = XrayDataset(records, CLASSES, 32)[2]
    assert item["image"].shape == (1, 32, 32)
    assert item["image"].dtype == item["labels"].dtype == item["boxes"].dtype == torch.float32
    assert item["image"].min() >= -1
    assert item["image"].max() <= 1
    assert item["image"].min() < -0.2
    assert item["labels"].nonzero().flatten().tolist() == [CLASSES.index("Infiltration")]
    assert item["boxes"].shape == (14, 1, 4)
    assert item["has_box"].nonzero().tolist() == [[CLASSES.index("Infiltration"), 0]]
    assert item["boxes"][CLASSES.index("Infiltration"), 0].tolist() == [8, 4, 24, 6]
    assert item["boxes"].sum() == 8 + 4 + 24 + 6
    assert item["index"] == 2


def test_classes_may_be_fewer_and_in_any_order(records):
    item = XrayDataset(records, ["Effusion", "Cardiomegaly", "Mass"], 16)[0]
    assert item["labels"].tolist() == [1, 1, 0]


def test_several_boxes_of_a_class(release):
    release.boxes.append("00000002_000.png,Infiltrate,0,0,102.4,102.4")
    data = XrayDataset(read_chestxray14(release.write()).records, BOXED_CLASSES, 10)
    item = data[2]
    assert item["boxes"].shape == (8, 2, 4)
    assert item["has_box"].sum() == 2
    assert data[0]["has_box"].sum() == 0
    torch.testing.assert_close(item["boxes"][3, 1], torch.tensor([0.0, 0.0, 1.0, 1.0]))


def test_collates_and_reproduces_with_workers(records):
    data = XrayDataset(records, CLASSES, 32, augment=Augmentation())
    batches = []
    for _ in range(2):
        loader = DataLoader(data, batch_size=4, num_workers=1, generator=torch.Generator().manual_seed(3))
        batches.append(next(iter(loader)))
    assert batches[0]["image"].shape == (4, 1, 32, 32)
    assert batches[0]["index"].tolist() == [0, 1, 2, 3]
    assert torch.equal(batches[0]["image"], batches[1]["image"])
    assert torch.equal(batches[0]["boxes"], batches[1]["boxes"])
    assert not torch.equal(batches[0]["boxes"][2], XrayDataset(records, CLASSES, 32)[2]["boxes"])


def test_cache_changes_nothing_and_saves_reading(records):
    cached, plain = XrayDataset(records, CLASSES, 20, cache=True), XrayDataset(records, CLASSES, 20)
    cached.preload(progress=False)
    expected = [plain[index]["image"] for index in range(len(plain))]
    for record in records:
        record.path.unlink()
    for index, image in enumerate(expected):
        assert torch.equal(cached[index]["image"], image)


def test_augmentation_leaves_the_cache_alone(records):
    data = XrayDataset(records, CLASSES, 20, augment=Augmentation(), cache=True)
    data[0]
    stored = data._cache[0].clone()
    data[0]
    assert torch.equal(data._cache[0], stored)


def test_broken_file_is_named(records):
    records[1].path.write_bytes(records[1].path.read_bytes()[:100])
    data = XrayDataset(records, CLASSES, 20)
    with pytest.raises(CxrfastError, match=r"00000001_001\.png"):
        data[1]


def test_wrong_use(records):
    with pytest.raises(UsageError, match="image size is 0"):
        XrayDataset(records, CLASSES, 0)
    with pytest.raises(UsageError, match="classes are"):
        XrayDataset(records, ["Mass", "Mass"], 8)
    with pytest.raises(UsageError, match="no cache"):
        XrayDataset(records, CLASSES, 8).preload()
    with pytest.raises(IndexError):
        XrayDataset(records, CLASSES, 8)[4]
    assert XrayDataset(records, CLASSES, 8)[-1]["index"] == 3


def test_real_boxes_scale_with_the_input(real_data):
    records = [record for record in read_chestxray14(real_data / "nih").records if record.boxes]
    small, large = (XrayDataset(records, BOXED_CLASSES, size) for size in (64, 128))
    for index in range(3):
        torch.testing.assert_close(small[index]["boxes"] * 2, large[index]["boxes"])
        assert large[index]["has_box"].any()
