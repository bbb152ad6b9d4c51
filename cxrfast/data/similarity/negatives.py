"""Images without a finding, used as negatives for comparison, and reading of subsets of a data set."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from cxrfast.data.images import read_image
from cxrfast.data.records import Record
from cxrfast.data.transforms import resize
from cxrfast.errors import CxrfastError


def draw_records(records: Sequence[Record], seed: int) -> list[int]:
    """The indices of the records in a random order that depends only on the seed and the images' names."""

    def chance(place: int) -> str:
        return hashlib.sha256(f"{seed}/{records[place].image}".encode()).hexdigest()

    return sorted(range(len(records)), key=chance)


def without_finding(records: Sequence[Record]) -> list[int]:
    """The indices of the images that have no label and no box, and whose labels are all known.

    A label is unknown if some of the records know its class, and this record does not.
    """
    classes = frozenset[str]().union(*{record.known for record in records if record.known is not None})
    return [
        place
        for place, record in enumerate(records)
        if not record.labels
        and not any(record.boxes.values())
        and (record.known is None or record.known.issuperset(classes))
    ]


def read_some(
    records: Sequence[Record],
    places: Sequence[int],
    count: int,
    size: int,
    *,
    title: str,
    progress: bool = True,
) -> tuple[list[int], np.ndarray, list[str]]:  # places [M], images float32 [M, size, size] in [0, 1], notes
    """The first ``count`` readable images among these indices. Unreadable ones are listed in the notes."""
    from tqdm import tqdm

    read: list[int] = []
    images: list[np.ndarray] = []
    notes: list[str] = []
    bar = tqdm(total=min(count, len(places)), desc=title, unit="image", disable=None if progress else True)
    with bar:
        for place in places:
            if len(read) == count:
                break
            try:
                images.append(resize(read_image(records[place].path), size).astype(np.float32))
            except CxrfastError as error:
                notes.append(f"{records[place].image} is left out of {title}: {error}")
                continue
            read.append(place)
            bar.update()
    return read, np.stack(images) if images else np.zeros((0, size, size), np.float32), notes


class SubsetBatches:
    """A batch sampler over a subset of a data set, with a new random order every epoch.

    The order depends on the seed and the epoch. Each of ``world_size`` processes takes an equal share of every epoch; a
    few images are repeated if their number is not divisible. A last batch of a single image is dropped, because batch
    norm cannot compute a variance from it, unless it is the only batch.
    """

    def __init__(self, places: Sequence[int], batch_size: int, *, seed: int = 0, rank: int = 0, world_size: int = 1):
        self.places = np.asarray(places, dtype=np.int64)
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, starting at 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        share = -(-len(self.places) // self.world_size)
        batches = -(-share // self.batch_size)
        return batches - 1 if batches > 1 and share % self.batch_size == 1 and self.batch_size > 1 else batches

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([_ORDER, self.seed, self.epoch]).permutation(self.places)
        share = -(-len(order) // self.world_size)
        own = np.resize(order, share * self.world_size)[self.rank :: self.world_size]
        for batch in range(len(self)):
            yield own[batch * self.batch_size : (batch + 1) * self.batch_size].tolist()


_ORDER = 3  # the stream of random numbers
