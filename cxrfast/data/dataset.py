"""A PyTorch data set of records."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cxrfast.data.images import read_image
from cxrfast.data.records import Record
from cxrfast.data.transforms import Augmentation, normalize, resize
from cxrfast.errors import UsageError


class XrayDataset(Dataset):
    """Images of a fixed size with labels and boxes in a fixed order of classes.

    An item is a dictionary that works with torch's default collation (S = ``image_size``, K = number of classes, M =
    the maximum number of boxes of one class on one image, at least 1)::

        image    float32 [1, S, S]   in [-1, 1]
        labels   float32 [K]         1 where the class is present, 0 where it is absent, NaN where that is unknown
        boxes    float32 [K, M, 4]   xyxy in pixels of the S×S image, half-open; zeros without a box
        has_box  bool    [K, M]
        index    int                 index into ``records``

    ``cache`` keeps the resized images in memory (2·S² bytes each), so that small data sets are decoded only once. Each
    data-loader worker has its own cache, unless :meth:`preload` is called before the workers start. Values are always
    rounded to float16, which is finer than the 8 bits of most files, so caching does not change results.

    Accessing an item whose file cannot be read raises :class:`CxrfastError` with the file's name.
    """

    def __init__(
        self,
        records: Sequence[Record],
        class_names: Sequence[str],
        image_size: int,
        *,
        augment: Augmentation | None = None,
        cache: bool = False,
    ):
        if image_size < 1:
            raise UsageError(f"image size is {image_size}; expected a number of pixels above 0")
        if not class_names or len(set(class_names)) != len(class_names):
            raise UsageError(f"classes are {list(class_names)}; expected at least one, each once")
        self.records = list(records)
        self.class_names = tuple(class_names)
        self.image_size = image_size
        self.augment = augment
        self.max_boxes = max(
            (len(record.boxes.get(name, ())) for record in self.records for name in self.class_names), default=0
        )
        self.max_boxes = max(self.max_boxes, 1)
        self._cache: dict[int, Tensor] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        index = range(len(self.records))[index]  # negative indices, and IndexError past the end
        record = self.records[index]
        image = self._image(index).float()
        labels = torch.tensor([record.label(name) for name in self.class_names])
        boxes, has_box = self._boxes(record)
        if self.augment is not None:
            image, boxes[has_box] = self.augment(image, boxes[has_box])
        return {"image": normalize(image), "labels": labels, "boxes": boxes, "has_box": has_box, "index": index}

    def preload(self, *, progress: bool = True) -> None:
        """Read all images into the cache."""
        from tqdm import tqdm

        if self._cache is None:
            raise UsageError("this data set keeps no cache; create it with cache=True")
        # disable=None: silent where stderr is not a terminal
        for index in tqdm(range(len(self)), desc="reading images", unit="image", disable=None if progress else True):
            self._image(index)

    def _image(self, index: int) -> Tensor:
        """[1, S, S] float16 in [0, 1]."""
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        image = torch.from_numpy(resize(read_image(self.records[index].path), self.image_size))[None].half()
        if self._cache is not None:
            self._cache[index] = image
        return image

    def _boxes(self, record: Record) -> tuple[Tensor, Tensor]:
        """boxes [K, M, 4], has_box [K, M]."""
        boxes = torch.zeros(len(self.class_names), self.max_boxes, 4)
        has_box = torch.zeros(len(self.class_names), self.max_boxes, dtype=torch.bool)
        for k, name in enumerate(self.class_names):
            for m, box in enumerate(record.boxes.get(name, ())):
                boxes[k, m] = torch.tensor(box) * self.image_size
                has_box[k, m] = True
        return boxes, has_box
