"""Images from torchvision's data sets and from array files, and what is said about those that cannot be read."""

import gzip
import shutil
import struct

import numpy as np
import pytest
import torch

from cxrfast.errors import CxrfastError, UsageError
from cxrfast.experiments.bags import read_source


def test_array_file(array_file):
    source = read_source(str(array_file), positive_class="square")
    assert (source.name, source.positive_class) == ("squares", "square")
    assert source.train.images.shape == (600, 1, 32, 32)
    assert source.train.images.dtype == torch.uint8
    with np.load(array_file) as file:
        assert np.array_equal(source.test.images[:, 0].numpy(), file["test_images"])
        assert np.array_equal(source.test.positive.numpy(), file["test_labels"] == 1)
        assert source.mean.item() == pytest.approx(file["train_images"].mean(), rel=1e-5)
        assert source.std.item() == pytest.approx(file["train_images"].std(), rel=1e-5)
    by_number = read_source(str(array_file), positive_class="1")
    assert torch.equal(by_number.train.positive, source.train.positive)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NHW"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_layouts_and_sizes(tmp_path, layout, dtype):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (40, 1, 20, 24) if layout == "NHW" else (40, 3, 20, 24), dtype=np.uint8)
    images = {"NHWC": grey.transpose(0, 2, 3, 1), "NCHW": grey, "NHW": grey[:, 0]}[layout]
    labels = np.array(["dog", "cat"] * 20)
    np.savez(tmp_path / "x.npz", images=images if dtype == np.uint8 else images / np.float32(255), labels=labels)
    source = read_source(str(tmp_path / "x.npz"), positive_class="dog", seed=4)
    assert source.train.images.shape == (30, grey.shape[1], 32, 32)
    assert source.test.images.shape == (10, grey.shape[1], 32, 32)
    # Resizing keeps the mean of an image (bilinear, edges aside)
    together = torch.cat([source.train.images, source.test.images]).float().mean((2, 3)).sort(0).values
    expected = torch.from_numpy(grey).float().mean((2, 3)).sort(0).values
    torch.testing.assert_close(together, expected, rtol=0, atol=6)
    again = read_source(str(tmp_path / "x.npz"), positive_class="dog", seed=4)
    assert torch.equal(again.test.images, source.test.images)


def medmnist(labels, **others):
    """Arrays under MedMNIST's names: three parts, one grey value an image."""
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None].repeat(28, 1).repeat(28, 2)
    return {
        f"{p}_{k}": v for p in ("train", "val", "test") for k, v in (("images", images), ("labels", labels))
    } | others


def test_medmnist_with_one_label_in_a_column(tmp_path):
    """MedMNIST#46: labels are [N, 1]."""
    labels = (np.arange(8) % 3)[:, None].astype(np.uint8)
    np.savez(tmp_path / "pneumoniamnist.npz", **medmnist(labels))
    source = read_source(str(tmp_path / "pneumoniamnist.npz"), positive_class="2")
    assert source.train.positive.tolist() == (labels[:, 0] == 2).tolist()
    assert source.test.positive.tolist() == (labels[:, 0] == 2).tolist()
    assert source.train.images[:, 0, 5, 5].tolist() == list(range(8))


def test_medmnist_with_a_column_for_each_class(tmp_path):
    """ChestMNIST: [N, 14] of zeros and ones, no names of classes."""
    labels = np.random.default_rng(0).integers(0, 2, (40, 14)).astype(np.uint8)
    path = tmp_path / "chestmnist.npz"
    np.savez(path, **medmnist(labels))
    source = read_source(str(path), positive_class="3")
    assert source.train.positive.tolist() == (labels[:, 3] == 1).tolist()
    with pytest.raises(UsageError, match="positive-class: there is no '14'; the classes are 0, 1, .*, 13$"):
        read_source(str(path), positive_class="14")
    np.savez(path, **medmnist(labels[:, :2], class_names=np.array(["mass", "nodule"])))
    named = read_source(str(path), positive_class="nodule")
    assert named.test.positive.tolist() == (labels[:, 1] == 1).tolist()
    np.savez(path, **medmnist(labels[:, :2], class_names=np.array(["mass"])))
    with pytest.raises(CxrfastError, match="labels: expected one number of columns, got 2, 2, 1"):
        read_source(str(path), positive_class="mass")
    np.savez(path, **medmnist(labels + 1))
    with pytest.raises(CxrfastError, match=r"train_labels \[40, 14\] have several columns, expected only 0 and 1"):
        read_source(str(path), positive_class="1")


def write_mnist(folder, packed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Forty small images in MNIST's files, training and test alike."""
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8), np.arange(40, dtype=np.uint8) % 10
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            content = struct.pack(f">{array.ndim + 1}i", 0x800 + array.ndim, *array.shape) + array.tobytes()
            with (gzip.open if packed else open)(raw / f"{part}-{name}-ubyte{'.gz' if packed else ''}", "wb") as file:
                file.write(content)
    return images, labels


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_files(tmp_path, packed):
    images, labels = write_mnist(tmp_path, packed)
    before = sorted(tmp_path.rglob("*"))
    source = read_source("mnist", tmp_path)
    assert source.positive_class == "9"
    assert np.array_equal(source.train.positive.numpy(), labels == 9)
    means = torch.from_numpy(images).float().mean((1, 2))
    torch.testing.assert_close(source.test.images.float().mean((1, 2, 3)), means, rtol=0, atol=4)
    assert sorted(tmp_path.rglob("*")) == before  # unpacked elsewhere
    assert read_source("mnist", tmp_path, positive_class="3").train.positive.sum() == 4


def test_real_mnist(real_data):
    source = read_source("mnist", real_data / "mnist")
    assert source.train.images.shape == (60000, 1, 32, 32)
    assert (int(source.train.positive.sum()), int(source.test.positive.sum())) == (5949, 1009)


def test_real_cifar_subset(real_data):
    source = read_source(str(real_data / "cifar10_subset.npz"), positive_class="dog")
    assert source.train.images.shape == (6000, 3, 32, 32)
    assert len(source.test.images) == 2000


@pytest.mark.parametrize(
    ("dataset", "root", "positive_class", "message"),
    [
        ("svhn", None, None, r"dataset: expected mnist, cifar10 or an \.npz file, got 'svhn'"),
        ("mnist", None, None, r"root: expected the folder of mnist, got None; give --root DIR"),
        ("cifar10", "absent", None, r"root: expected the folder of cifar10, got .*absent; give --root"),
        ("absent.npz", None, "1", r"dataset: expected a file, got absent\.npz"),
        (
            "ARRAYS",
            None,
            None,
            r"positive-class: expected a class of .*, got none; the classes are cross, square, other cross",
        ),
        ("ARRAYS", None, "dog", r"positive-class: unknown class 'dog'; the classes are cross, square"),
        ("ARRAYS", None, "7", r"positive-class: expected positive train images, got none for '7'"),
    ],
)
def test_wrong_usage(array_file, tmp_path, dataset, root, positive_class, message):
    path = str(array_file) if dataset == "ARRAYS" else dataset
    with pytest.raises(UsageError, match=message) as raised:
        read_source(path, tmp_path / root if root else None, positive_class=positive_class)
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read(tmp_path, array_file):
    def refused(message, dataset=None, **arrays):
        path = tmp_path / "x.npz"
        if arrays:
            np.savez(path, **arrays)
        with pytest.raises(CxrfastError, match=message) as raised:
            read_source(dataset or str(path), tmp_path, positive_class="1")
        assert "\n" not in str(raised.value)

    labels = np.arange(8) % 2
    (tmp_path / "x.npz").write_bytes(array_file.read_bytes()[:5000])
    refused(r"x\.npz cannot be read as an \.npz file")
    refused("cannot be read as an .npz file of plain arrays", images=np.array([{}], dtype=object), labels=labels[:1])
    refused(r"expected arrays test_images, test_labels, train_labels, got only train_images", train_images=labels)
    refused(
        r"expected a label for each image of images, got arrays \[7, 8, 8\] and \[8\]",
        images=np.zeros((7, 8, 8)),
        labels=labels,
    )
    refused(r"channels, got an array \[6, 8, 8, 5\]", images=np.zeros((8, 8, 8, 5)), labels=labels)
    refused(r"in \[0, 1\], got values outside", images=np.full((8, 8, 8), 255.0), labels=labels)
    refused("expected uint8 or floating-point images, got int64", images=np.zeros((8, 8, 8), np.int64), labels=labels)
    refused(r"cannot read mnist \(.*\); give --download", dataset="mnist")
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(b"not gzip")
    refused(r"train-images-idx3-ubyte\.gz cannot be unpacked", dataset="mnist")
    shutil.rmtree(raw)
