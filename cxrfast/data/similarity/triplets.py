"""Mining of triplets of images for distance learning (Zhang et al. 2020), and batches of triplets.

A positive shares a label with the anchor, a negative shares none (§3.2). Hard positives are those whose perceptual hash
is far from the anchor's; hard negatives are those whose hash is near.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch.utils.data import Sampler

from cxrfast.data.similarity.label_sets import ALL_CLASSES, LabelSets
from cxrfast.errors import CxrfastError, UsageError
from cxrfast.ops import hamming_topk
from cxrfast.ops.hamming import LabelRule

Sampling = Literal["paper", "all", "random"]
PartialOf = Literal["picks", "list"]
_DRAWS, _ORDER = 1, 2  # streams of random numbers


class Triplets(NamedTuple):
    """Indices into the data set, one triplet per row."""

    anchors: np.ndarray  # [B] int64
    positives: np.ndarray  # [B] int64
    negatives: np.ndarray  # [B] int64


class TripletMiner:
    """Selects a positive and a negative for an anchor: easy ones in the first epochs, harder ones later.

    A positive has the same set of labels as the anchor (exact match) or a different set that shares a label (partial
    match). ``partial`` is the proportion of partial matches. If the anchor has no match of one kind, the other kind is
    used, except that ``partial=0`` allows only exact matches. A negative shares no label with the anchor. Images
    without a finding are exact matches of each other and negatives of all others. Images without any positive or any
    negative are not :attr:`anchors` but :attr:`unmatched`; they can still be negatives.

    Two images with unknown labels are compared through the classes that are known in both. Images without a known
    finding match exactly if some class is absent in both. A negative shares no label with the anchor, and some class is
    present in one and absent in the other. (:func:`cxrfast.losses.certain_triplets` has the same rule.)

    Candidates are ranked from the hardest (rank 0): positives by decreasing Hamming distance to the anchor, negatives
    by increasing distance. ``sampling`` determines the candidates:

    - ``"paper"``: up to ``positives`` and ``negatives`` random images (500 and 1000 in Zhang et al.), drawn again for
      every anchor and epoch;
    - ``"all"``: the hardest ``positives`` or ``negatives`` of *all* images;
    - ``"random"``: all images with equal probability in every epoch, independently of the hash (§4.2: "without
      considering hardness").

    In epoch e (starting at 0) of a schedule of E epochs, the candidate with this rank among n is selected::

        r = ⌊ max((1 − t)·n, min(h, n)) · u^(1/(2 − t)) ⌋,    t = min(e / E, 1),    u uniform in [0, 1)

    In the first epoch the probability increases linearly towards the easy end of the list. Later the easiest candidates
    are excluded and the probability becomes more uniform. From epoch E on it is uniform over the h hardest candidates.
    By default h is 1 for ``"paper"``, whose candidates already vary between epochs, and 10 for ``"all"``.

    ``partial_of`` defines the proportion ``partial``. With ``"picks"``, a positive is a partial match with this
    probability, and is selected among the matches of its kind. With ``"list"``, the candidates are up to ``partial ·
    positives`` partial matches and up to ``(1 − partial) · positives`` exact matches, ranked together.

    A triplet depends only on the seed, the epoch and the anchor.

    Args:
        hashes: perceptual hashes ``[N]``, int64, of all images of the data set; None with ``"random"``.
        labels: the labels as bit masks ``[N]``, int64 (:func:`label_bits`).
        known: bool ``[N]``; False excludes an image, for example one without a hash.
        known_labels: the classes whose label is known, as bit masks ``[N]``, int64; None: all. Not with ``"all"``.
        partial: proportion of positives that are partial matches; 0: only exact matches.
        epochs: E.
        hardest: h.

    Raises:
        UsageError: an option out of range, or lengths that differ.
        CxrfastError: no image has both a positive and a negative.
    """

    def __init__(
        self,
        hashes: np.ndarray | None,  # [N] int64
        labels: np.ndarray,  # [N] int64
        *,
        known: np.ndarray | None = None,  # [N] bool
        known_labels: np.ndarray | None = None,  # [N] int64
        sampling: Sampling = "paper",
        negatives: int = 1000,
        positives: int = 500,
        partial: float = 0.25,
        partial_of: PartialOf = "picks",
        epochs: int = 10,
        hardest: int | None = None,
    ):
        _check_miner_options(sampling, negatives, positives, partial, partial_of, epochs, hardest)
        if hashes is None:
            if sampling != "random":
                raise UsageError(f"hashes: expected one for each image, as sampling is {sampling!r}, got None")
            hashes = np.zeros(len(labels), dtype=np.int64)
        known = np.ones(len(hashes), dtype=bool) if known is None else np.asarray(known)
        if known_labels is None:
            known_labels = np.full(len(labels), ALL_CLASSES)
        elif sampling == "all" and (known_labels != known_labels.max(initial=0)).any():
            raise UsageError("sampling: expected paper or random, because some labels are unknown, got all")
        if not len(hashes) == len(labels) == len(known) == len(known_labels):
            raise UsageError(
                f"{len(hashes)} hashes, {len(labels)} labels, {len(known)} known, {len(known_labels)} known labels; "
                "expected as many of each"
            )
        self.sampling = sampling
        self.negatives, self.positives = negatives, positives
        self.partial, self.partial_of, self.epochs = partial, partial_of, epochs
        self.hardest = hardest if hardest is not None else {"all": 10}.get(sampling, 1)
        self._places = np.flatnonzero(known)  # of the images that take part, in the data set
        self._index = np.full(len(hashes), -1)
        self._index[self._places] = np.arange(len(self._places))
        self._hashes = torch.from_numpy(np.asarray(hashes, dtype=np.int64)[known])
        self._labels = torch.from_numpy(np.asarray(labels, dtype=np.int64)[known])
        self._sets = LabelSets(self._labels.numpy(), np.asarray(known_labels, dtype=np.int64)[known])
        self._counts = self._sets.counts()
        exact, partly, disjoint = self._counts.values()
        usable = ((exact + partly if partial else exact) > 0) & (disjoint > 0)
        self.anchors = self._places[usable]  # [A], rising
        self.unmatched = self._places[~usable]  # rising
        self._is_anchor = np.isin(np.arange(len(hashes)), self.anchors)
        self.notes = tuple(_describe(usable, exact, disjoint, known, partial))
        if not len(self.anchors):
            positive = "a shared label" if partial else "the same labels, as partial is 0"
            raise CxrfastError(
                f"none of {len(self._places)} images has both a positive ({positive}) and a negative (no shared "
                "label), so there are no triplets; add images of other labels"
            )

    def mine(self, anchors: Sequence[int] | np.ndarray, *, seed: int, epoch: int) -> Triplets:
        """Select a positive and a negative for each anchor: an index into the data set that is in :attr:`anchors`."""
        anchors = np.asarray(anchors, dtype=np.int64)
        if not self._is_anchor[anchors].all():
            raise UsageError(
                f"{anchors[~self._is_anchor[anchors]][0]} is no anchor; expected some of the miner's anchors"
            )
        if not len(anchors):
            return Triplets(anchors, anchors, anchors)
        index = self._index[anchors]
        generators = [np.random.default_rng([_DRAWS, seed, epoch, int(anchor)]) for anchor in anchors]
        uniform = np.array([generator.random(3) for generator in generators]).reshape(-1, 3)
        negatives = self._choose(index, "disjoint", epoch, uniform[:, 2], generators)
        if self.partial_of == "list":
            listed = zip(index.tolist(), uniform[:, 1], generators, strict=True)
            positives = np.array([self._choose_from_list(i, epoch, u, generator) for i, u, generator in listed])
        else:
            partial = self._counts["partial"][index] > 0
            partial &= (uniform[:, 0] < self.partial) | (self._counts["exact"][index] == 0)
            positives = np.zeros_like(index)
            kinds: tuple[tuple[LabelRule, np.ndarray], ...] = (("exact", ~partial), ("partial", partial))
            for rule, rows in kinds:
                at = np.flatnonzero(rows)
                if len(at):
                    of_rows = [generators[i] for i in at]
                    positives[at] = self._choose(index[at], rule, epoch, uniform[at, 1], of_rows)
        return Triplets(anchors, self._places[positives.astype(np.int64)], self._places[negatives])

    def _choose(
        self,
        index: np.ndarray,  # [B] of anchors, among the images that take part
        rule: LabelRule,
        epoch: int,
        u: np.ndarray,  # [B]
        generators: Sequence[np.random.Generator],
    ) -> np.ndarray:  # [B]
        limit = self.negatives if rule == "disjoint" else self.positives
        if self.sampling == "random":
            drawn = [self._sets.draw(i, rule, 1, generator) for i, generator in zip(index, generators, strict=True)]
            return np.concatenate(drawn)
        rank = self._rank(np.minimum(self._counts[rule][index], limit), epoch, u)
        if self.sampling == "all":
            return self._ranked(index, rank, rule, None)
        one = zip(index, rank, generators, strict=True)
        chosen = [self._ranked(i[None], r[None], rule, self._sets.draw(i, rule, limit, g))[0] for i, r, g in one]
        return np.array(chosen, dtype=np.int64)

    def _choose_from_list(self, i: int, epoch: int, u: float, generator: np.random.Generator) -> int:
        """A positive of image `i` from exact and partial matches that are ranked together."""
        partly = round(self.partial * self.positives)
        limits: dict[LabelRule, int] = {"exact": self.positives - partly, "partial": partly}
        counts = {rule: int(self._counts[rule][i]) for rule in limits}
        rules = [rule for rule in limits if limits[rule] and counts[rule]]
        if not rules:  # no match of the only kind that the list would contain
            rules, limits = [rule for rule in limits if counts[rule]], dict.fromkeys(limits, self.positives)
        # Shuffled, because ties are resolved by position, which would otherwise favour one kind.
        among = generator.permutation(np.concatenate([self._candidates(i, r, limits[r], generator) for r in rules]))
        if self.sampling == "random":
            return int(among[int(u * len(among))])
        rank = self._rank(np.array([len(among)]), epoch, np.array([u]))
        return int(self._ranked(np.array([i]), rank, "shared", among)[0])

    def _candidates(self, i: int, rule: LabelRule, limit: int, generator: np.random.Generator) -> np.ndarray:
        """Indices of up to `limit` matches of image `i`, among the images that are not excluded."""
        if self.sampling != "all":
            return self._sets.draw(i, rule, limit, generator)
        here, labels = torch.tensor([i]), self._labels
        return hamming_topk(
            self._hashes[here],
            self._hashes,
            min(limit, int(self._counts[rule][i])),
            query_labels=labels[here],
            labels=labels,
            rule=rule,
            farthest=True,
            query_indices=here,
        ).indices.numpy()[0]

    def _rank(self, n: np.ndarray, epoch: int, u: np.ndarray) -> np.ndarray:
        t = min(epoch / self.epochs, 1.0) if self.epochs else 1.0
        reach = np.maximum((1 - t) * n, np.minimum(self.hardest, n))
        return np.minimum((reach * u ** (1 / (2 - t))).astype(np.int64), n - 1)

    def _ranked(self, index: np.ndarray, rank: np.ndarray, rule: LabelRule, among: np.ndarray | None) -> np.ndarray:
        """The candidate of the given rank for every anchor, from all images or from those with indices `among`."""
        hashes, labels = self._hashes, self._labels
        if among is not None:  # matches, so that no label excludes one of them
            hashes, labels = hashes[among], torch.zeros(len(among), dtype=torch.int64)
        found = hamming_topk(
            self._hashes[index],
            hashes,
            int(rank.max()) + 1,
            query_labels=self._labels[index] if among is None else torch.zeros(len(index), dtype=torch.int64),
            labels=labels,
            rule=rule if among is None else "exact",
            farthest=rule != "disjoint",
            query_indices=torch.from_numpy(index) if among is None else None,
        )
        candidate = found.indices.numpy()[np.arange(len(index)), rank]
        return candidate if among is None else among[candidate]


def _check_miner_options(
    sampling: str, negatives: int, positives: int, partial: float, partial_of: str, epochs: int, hardest: int | None
) -> None:
    for name, choice, known in (
        ("sampling", sampling, get_args(Sampling)),
        ("partial_of", partial_of, get_args(PartialOf)),
    ):
        if choice not in known:
            raise UsageError(f"{name} is {choice!r}; expected one of {', '.join(known)}")
    for name, value in (("negatives", negatives), ("positives", positives), ("hardest", hardest)):
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}; expected at least 1")
    if not 0 <= partial <= 1:
        raise UsageError(f"partial is {partial}; expected a share from 0 to 1")
    if epochs < 0:
        raise UsageError(f"epochs of the schedule is {epochs}; expected 0 or more")


def _describe(
    usable: np.ndarray, exact: np.ndarray, disjoint: np.ndarray, known: np.ndarray, partial: float
) -> Iterator[str]:
    if unknown := int((~known).sum()):
        yield f"{unknown} images have no hash and are in no triplet"
    unique = (exact == 0) & (disjoint > 0)
    if not partial and (unmatched := int(unique.sum())):
        yield (
            f"{unmatched} images share their set of labels with no other image and are not anchors of triplets, as "
            "partial matches are no positives"
        )
        usable = usable | unique  # said already
    if alone := int((~usable).sum()):
        yield f"{alone} images have no positive or no negative and are not anchors of triplets"
    if without := int((usable & (exact == 0)).sum()) if partial else 0:
        yield f"{without} anchors share their set of labels with no other image: all of their positives are partial"


class TripletBatchSampler(Sampler[list[int]]):
    """A ``batch_sampler`` for :class:`torch.utils.data.DataLoader`. A batch consists of the data-set indices of B
    anchors, then of their B positives, then of their B negatives.

    The data set is unchanged; split a batch with ``features.chunk(3)``. Every anchor of the miner occurs once per
    epoch, in random order. Every unmatched image also occurs once, as anchor, positive and negative of its own triplet:
    it is classified like the others, but must be excluded from a triplet loss.

    Batches are selected in the main process and data-loader workers only read images, so the number of workers does not
    change the batches. With ``world_size`` processes and the same seed, each process takes the anchors of its ``rank``.
    A few anchors are repeated if their number is not divisible, so that all processes have the same number of batches.

    The sampler has no state between batches: after ``set_epoch(e, start_batch=b)`` it returns the same batches as an
    uninterrupted one from batch b of epoch e on.
    """

    def __init__(
        self,
        miner: TripletMiner,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ):
        super().__init__()
        if batch_size < 1:
            raise UsageError(f"batch size is {batch_size}; expected at least 1 anchor")
        if not 0 <= rank < world_size:
            raise UsageError(f"rank is {rank} of {world_size} processes; expected 0 to {world_size - 1}")
        if seed < 0:
            raise UsageError(f"seed is {seed}; expected 0 or more")
        self.miner = miner
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.drop_last = drop_last
        self.set_epoch(0)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Continue with batch `start_batch` of an epoch. Epoch 0 is the first, with the easiest triplets."""
        for name, value in (("epoch", epoch), ("start batch", start_batch)):
            if value < 0:
                raise UsageError(f"{name} is {value}; expected 0 or more")
        self.epoch, self.start_batch = epoch, start_batch

    def __len__(self) -> int:
        """The number of remaining batches of the epoch."""
        share = -(-len(self._images()) // self.world_size)
        batches = share // self.batch_size if self.drop_last else -(-share // self.batch_size)
        return max(batches - self.start_batch, 0)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([_ORDER, self.seed, self.epoch]).permutation(self._images())
        share = -(-len(order) // self.world_size)
        own = np.resize(order, share * self.world_size)[self.rank :: self.world_size]
        matched = np.isin(own, self.miner.anchors)
        epoch, first = self.epoch, self.start_batch
        for batch in range(first, first + len(self)):
            part = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
            triplets = np.tile(own[part], (3, 1))
            triplets[:, matched[part]] = self.miner.mine(own[part][matched[part]], seed=self.seed, epoch=epoch)
            yield triplets.ravel().tolist()

    def _images(self) -> np.ndarray:
        return np.concatenate([self.miner.anchors, self.miner.unmatched])
