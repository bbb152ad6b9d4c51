"""Every protocol against a plain implementation that counts cells, and the entries against the papers' table."""

import dataclasses
import itertools
from fractions import Fraction

import pytest
import torch

from cxrfast.errors import UsageError
from cxrfast.evaluation import PROTOCOLS, BoxSource, Folds, GroundTruth, MapSource, find_protocol, score_localization
from cxrfast.evaluation.ground_truth import Units
from cxrfast.evaluation.localization import LEVELS
from cxrfast.evaluation.oracle import oracle
from cxrfast.metrics import Boxes
from cxrfast.published.numbers import rows
from cxrfast.regions.rule import MethodDefaults, RegionRule
from tests.published.test_numbers import BOXES, counts

GRID, FINE, IMAGES, CLASSES = 4, 12, 10, ("Mass", "Nodule", "Hernia")
VALUES = torch.tensor([0.0, 30.0, 60.0, 127.5, 180.0, 220.0, 255.0]) / 255
T = (0.25, 1 / 3, 0.5, 1.0)
EXACT = (Fraction(1, 4), Fraction(1, 3), Fraction(1, 2), Fraction(1))


def scene(seed):
    """Maps, scores and up to three boxes an image and class, on lines where overlaps often equal T."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high, size=(1,), low=0):
        return torch.randint(low, high, size, generator=generator)

    maps = VALUES[draw(len(VALUES), (IMAGES, 3, GRID, GRID))]
    maps[0] = 0  # regions are empty
    maps[1] = 0.5  # all equal
    rows = []
    for image in range(IMAGES):
        for k in range(2):  # Hernia has no boxes
            for _ in range(int(draw(4)) if image != 9 else 0):
                x, y = draw(FINE // 2, (2,)).tolist()
                rows.append((image, k, x, y, x + int(draw(7, low=1)), y + int(draw(7, low=1))))
    table = torch.tensor(rows)
    boxes = Boxes(table[:, 0], table[:, 1], table[:, 2:].double() / FINE)
    scores = torch.tensor([0.3, 0.5, 0.7])[draw(3, (IMAGES, 3))]
    patients = [f"p{n // 2}" for n in range(IMAGES)]
    ground_truth = GroundTruth(CLASSES, [f"{n}.png" for n in range(IMAGES)], patients, torch.zeros(IMAGES, 3), boxes)
    return ground_truth, MapSource(torch.arange(IMAGES), maps), scores


def box_cells(box):
    x1, y1, x2, y2 = box
    return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}


def patch_cells(patches):
    size = FINE // GRID
    return {cell for y, x in patches for cell in box_cells((x * size, y * size, (x + 1) * size, (y + 1) * size))}


def components(patches):
    rest, found = set(patches), []
    while rest:
        stack, part = [rest.pop()], set()
        while stack:
            y, x = stack.pop()
            part.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & rest
            rest -= near
            stack += near
        found.append(part)
    return sorted(found, key=min)


def around(patches):
    ys, xs = [y for y, _ in patches], [x for _, x in patches]
    return {(y, x) for y in range(min(ys), max(ys) + 1) for x in range(min(xs), max(xs) + 1)}


def plain_regions(name, values, level):
    """Cells of every region of a map [P][P] at one level."""
    positive = {(y, x) for y in range(GRID) for x in range(GRID) if values[y][x] >= level}
    if not positive:
        return []
    if name == "union":
        return [patch_cells(positive)]
    if name == "one box":
        return [patch_cells(around(positive))]
    parts = components(positive)
    if name == "peak box":
        top = max(values[y][x] for y, x in positive)
        parts = [next(part for part in parts if any(values[y][x] == top for y, x in part))]
    return [patch_cells(around(part)) for part in parts]


def stretch(values):
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else torch.zeros_like(values)


def overlaps(region, target):
    return Fraction(len(region & target), len(region | target)), Fraction(len(region & target), len(region))


def plain_units(ground_truth, unit):
    units = {}
    for index, (image, k, box) in enumerate(zip(*(column.tolist() for column in ground_truth.boxes[:3]), strict=True)):
        key = (image, k, index) if unit == "box" else (image, k)
        cells = box_cells([round(value * FINE) for value in box])
        units[key] = units.get(key, set()) | cells
    return dict(sorted(units.items(), key=lambda item: item[0] if unit != "box" else item[0][2]))


def best(regions, target):
    pairs = [overlaps(region, target) for region in regions]
    return max((p[0] for p in pairs), default=Fraction(0)), max((p[1] for p in pairs), default=Fraction(0))


SHAPES = {
    "rozenberg2019": "union",
    "li2018": "union",
    "seibold2020": "peak box",
    "zhang2020": "one box",
    "zhang2020-pooled": "one box",
    "wang2017": "every box",
    "strict": "union",
    "own": "union",
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_against_counting_cells(name, seed):
    ground_truth, source, scores = scene(seed)
    own = MethodDefaults(RegionRule(gate=0.5), torch.tensor([0.25, 0.5, 0.75]), torch.tensor([0.5, 0.7, 0.1]))
    protocol = find_protocol(name).with_thresholds(*T)
    result = score_localization(protocol, source, ground_truth, scores, own, resamples=10)
    units = plain_units(ground_truth, protocol.unit)
    maps = [[stretch(m) if protocol.minmax_normalised else m for m in of_image] for of_image in source.maps]

    def regions(image, k, level):
        return plain_regions(SHAPES[name], maps[image][k].tolist(), level)

    def levels_of(key, position):
        k = key[1]
        if name in ("rozenberg2019", "li2018"):
            return [0.5]
        if name in ("seibold2020", "own"):
            return [own.thresholds[k].item()]
        if name == "wang2017":
            return [VALUES[2].item(), VALUES[4].item()]
        others = [
            (other, target)
            for p, (other, target) in enumerate(units.items())
            if (other[1] == k or name == "zhang2020-pooled") and result.fold[p] != result.fold[position]
        ]
        means = [
            sum(float(best(regions(*other[:2], level), target)[0]) for other, target in others)
            for level in LEVELS.tolist()
        ]
        return [LEVELS[max(range(len(means)), key=lambda i: round(means[i], 9))].item()]

    found = []
    for position, (key, target) in enumerate(units.items()):
        candidates = [region for level in levels_of(key, position) for region in regions(*key[:2], level)]
        found.append((key[1], key[0], *best(candidates, target)))
    assert result.n_units.tolist() == [sum(k == c for k, *_ in found) for c in range(3)]
    assert len(result.tables) == len(protocol.criteria) * len(protocol.gates)
    for table in result.tables:
        column = 2 if table.criterion.measure == "iou" else 3
        for row, t in enumerate(EXACT):
            for c in range(3):
                expected = 0
                for k, image, *values in found:
                    score = scores[image, k].item()
                    open_gate = {"": True, "score > 0.5": score > 0.5}.get(
                        str(table.gate), score >= own.operating_points[k].item()
                    )
                    value = values[column - 2]
                    expected += k == c and open_gate and (value >= t if table.criterion.inclusive else value > t)
                assert table.hits[row, c] == expected, (table.criterion, t, c)
        n = result.n_units
        torch.testing.assert_close(table.accuracy, table.hits.double() / n, equal_nan=True)
        assert (table.oracle[:, :2] >= table.accuracy[:, :2]).all()
        if name == "wang2017":
            assert_false_positives(table, ground_truth, regions, column)


def assert_false_positives(table, ground_truth, regions, column):
    annotated = set(ground_truth.boxes.image.tolist())
    targets = plain_units(ground_truth, "box")
    for row, t in enumerate(EXACT):
        for c in range(3):
            count = 0
            for image in annotated:
                for level in (VALUES[2].item(), VALUES[4].item()):
                    for region in regions(image, c, level):
                        own = [overlaps(region, target) for key, target in targets.items() if key[:2] == (image, c)]
                        count += not any(pair[column - 2] > t for pair in own)
            assert table.false_positives[row, c] == count
            assert table.afp[row, c] == count / len(targets)


def test_the_entries_are_those_of_the_papers():
    def row(p):
        return (
            p.unit,
            p.region and (p.region.shape, p.region.select),
            p.threshold,
            [(c.measure, c.inclusive, c.thresholds) for c in p.criteria],
            p.gates,
        )

    tenths = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    fixed = ("annotation", ("patches", "all"), 0.5)
    assert row(PROTOCOLS["rozenberg2019"]) == (*fixed, [("iou", True, (0.1,)), ("ior", True, (0.1,))], (None,))
    assert row(PROTOCOLS["li2018"]) == (*fixed, [("iou", True, tenths), ("ior", True, tenths)], (None,))
    seibold = ("box", ("boxes", "peak"), "the method's", [("iou", False, (0.1, 0.3, 0.5, 0.7))], (0.5,))
    assert row(PROTOCOLS["seibold2020"]) == seibold
    morphology = {name: (p.region.opening, p.region.closing) for name, p in PROTOCOLS.items() if p.region}
    assert {name for name, sides in morphology.items() if any(sides)} == {"seibold2020"}
    assert morphology["seibold2020"] == (1 / 16, 1 / 8)
    # Table 2 has four T
    zhang = ("box", ("rectangle", "all"), Folds(10, "box"), [("iou", False, (0.1, 0.3, 0.5, 0.7))], (None,))
    assert row(PROTOCOLS["zhang2020"]) == zhang
    assert row(PROTOCOLS["zhang2020-pooled"]) == (*zhang[:2], Folds(10, "box", pooled=True), *zhang[3:])
    wang = [("iou", False, tenths), ("ior", False, (0.1, 0.25, 0.5, 0.75, 0.9))]
    assert row(PROTOCOLS["wang2017"]) == ("box", ("boxes", "all"), None, wang, (None,))
    assert PROTOCOLS["wang2017"].region.levels == (60 / 255, 180 / 255)
    four = (0.1, 0.3, 0.5, 0.7)
    strict = [("iou", True, four), ("ior", True, four)]
    assert row(PROTOCOLS["own"]) == ("annotation", None, "the method's", strict, ("the method's",))
    folds = {name: p.training_folds for name, p in PROTOCOLS.items() if p.training_folds}
    by_image = Folds(5, "image")
    assert folds == {"strict": Folds(5, "patient"), "rozenberg2019": by_image, "li2018": by_image}
    without = {name for name, p in PROTOCOLS.items() if p.training_validation is not None}
    assert without == {"rozenberg2019", "li2018"}
    assert all(PROTOCOLS[name].training_validation == 0 for name in without)
    assert row(PROTOCOLS["strict"]) == ("annotation", None, Folds(5, "patient"), strict, (None, "operating point"))


def test_seibolds_morphology_keeps_a_patch_of_their_map_and_fills_gaps_of_one():
    maps = torch.zeros(1, 1, 16, 16)
    maps[0, 0, 2, 3] = 0.9
    maps[0, 0, 2, 5] = 0.7
    maps[0, 0, 2, 8] = 0.7
    rule, threshold = PROTOCOLS["seibold2020"].region, torch.tensor([0.5])
    assert rule.find(maps, threshold).boxes.boxes.tolist() == [[3, 2, 6, 3]]
    fine = torch.nn.functional.interpolate(maps, scale_factor=2, mode="nearest-exact")
    fine[0, 0, 20:21, 20] = 0.95  # smaller than a patch of their map
    assert rule.find(fine, threshold).boxes.boxes.tolist() == [[6, 4, 12, 6]]


def test_a_larger_opening_would_leave_fewer_nodules_than_the_paper_finds(real_data):
    """Table 2 has 0.10 of the nodules at T = 0.5: more than any region of two patches of 16×16 reaches."""
    with open(real_data / "nih" / "BBox_List_2017.csv", encoding="utf-8") as file:
        lines = [line.split(",") for line in file.read().splitlines()[1:]]
    corner, size = (
        torch.tensor([[float(v) for v in line[first : first + 2]] for line in lines if line[1] == "Nodule"]) / 1024
        for first in (2, 4)
    )
    boxes = torch.cat([corner, corner + size], dim=1).double()
    n = len(boxes)
    nodules = Units(torch.arange(n), torch.zeros(n).long(), boxes[:, None], torch.ones(n, 1).bool())
    found = {
        opening: (oracle(nodules, (16, 16), RegionRule("boxes", "peak", opening=opening), "iou") > 0.5).sum().item()
        for opening in (1 / 16, 1 / 16 + 1e-6)
    }
    assert n == 79
    assert found[1 / 16] / n > 0.4
    assert found[1 / 16 + 1e-6] / n < 0.10 - 0.005


@pytest.mark.parametrize("inclusive", [True, False])
def test_a_tie_at_t(inclusive):
    """The region is half of the box at T = 0.5."""
    maps = torch.zeros(1, 1, 4, 4)
    maps[0, 0, 0, :2] = 1
    ground_truth = GroundTruth(
        ("Mass",), ["a"], ["p"], torch.ones(1, 1), Boxes(*torch.zeros(2, 1).long(), torch.tensor([[0, 0, 0.5, 0.5]]))
    )
    protocol = find_protocol("li2018").with_thresholds(0.5)
    protocol = dataclasses.replace(
        protocol, criteria=tuple(dataclasses.replace(c, inclusive=inclusive) for c in protocol.criteria)
    )
    own = MethodDefaults(RegionRule(), torch.tensor([0.5]), torch.tensor([0.5]))
    iou, ior = score_localization(
        protocol, MapSource(torch.tensor([0]), maps), ground_truth, torch.ones(1, 1), own
    ).tables
    assert iou.hits.item() == inclusive
    assert ior.hits.item() == 1


def test_nested_thresholds_do_not_see_the_scored_fold():
    """Turning the maps of one fold's images upside down changes thresholds of all folds but its own."""
    ground_truth, source, scores = scene(7)
    own = MethodDefaults(RegionRule(), torch.full((3,), 0.5), torch.full((3,), 0.5))
    protocol = find_protocol("strict")
    before = score_localization(protocol, source, ground_truth, scores, own, resamples=10)
    changed = source.maps.clone()
    images = before.units.image[before.fold == 0].unique()
    changed[images] = 1 - changed[images]
    after = score_localization(protocol, MapSource(source.images, changed), ground_truth, scores, own, resamples=10)
    assert torch.equal(after.fold, before.fold)
    assert torch.equal(after.thresholds[0], before.thresholds[0])
    assert not torch.equal(after.thresholds[1:], before.thresholds[1:])


def test_pooled_thresholds_are_one_for_all_classes():
    ground_truth, source, scores = scene(3)
    own = MethodDefaults(RegionRule(), torch.full((3,), 0.5), torch.full((3,), 0.5))
    single, pooled = (
        score_localization(find_protocol(name), source, ground_truth, scores, own, resamples=10)
        for name in ("zhang2020", "zhang2020-pooled")
    )
    assert (single.thresholds[:, 0] != single.thresholds[:, 1]).any()
    assert (pooled.thresholds == pooled.thresholds[:, :1]).all()  # of Hernia too, which has no box
    assert torch.equal(single.fold, pooled.fold)
    assert str(find_protocol("zhang2020-pooled").threshold) == "10 folds by box, one for all classes"


def test_a_class_that_no_other_fold_has_is_scored_at_the_methods_own_threshold():
    boxes = Boxes(torch.tensor([0]), torch.tensor([0]), torch.tensor([[0.0, 0.0, 0.5, 0.5]]))
    ground_truth = GroundTruth(("Mass",), ["a"], ["p"], torch.ones(1, 1), boxes)
    maps = torch.full((1, 1, 4, 4), 0.1)
    maps[0, 0, :2, :2] = 0.3
    own = MethodDefaults(RegionRule(), torch.tensor([0.2]), torch.tensor([0.5]))
    result = score_localization(
        find_protocol("strict"), MapSource(torch.tensor([0]), maps), ground_truth, torch.ones(1, 1), own
    )
    assert result.fallbacks == 1
    assert result.tables[0].accuracy.tolist() == [[1.0]] * 4


def test_names_and_t_are_checked():
    with pytest.raises(UsageError, match="protocol is 'strickt'; expected one of strict, own, rozenberg2019"):
        find_protocol("strickt")
    for t in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(UsageError, match="T is"):
            find_protocol("strict").with_thresholds(0.5, t)


# Wang et al. 2017: boxes per class, and for every T the published accuracy and average number of false positives (AFP).
WANG_BOXES = BOXES
WANG_CLASSES = tuple(BOXES)


def wang_table(table):
    """Hits and false positives by T, per class."""
    found = {}
    for line in rows(paper="wang2017", table=table):
        found.setdefault(line.T, {})[line.metric] = counts(line)
    return found


def wang_files(measure, table):
    """984 boxes and, per class, predictions that hit as many of them and miss as often at every T of the table."""
    thresholds = sorted(table)
    annotated, predicted = [], []
    for k, (name, n) in enumerate(WANG_BOXES.items()):
        hits = [table[t]["accuracy"][name] for t in thresholds]
        false = [table[t]["afp"][name] for t in thresholds]
        first = len(annotated)
        annotated += [(first + i, k, (0.0, 0.0, 0.5, 0.5)) for i in range(n)]
        total = max(f + h for f, h in zip(false, hits, strict=True))
        # Every found box is hit once, as well as the largest T asks; further hits, on the first box, are extra.
        extra = [total - f - h for f, h in zip(false, hits, strict=True)]
        assert all(a >= b for a, b in itertools.pairwise(extra)), (name, extra)
        for level, (found, more) in enumerate(zip(hits, extra, strict=True)):
            above = (hits[level + 1], extra[level + 1]) if level + 1 < len(hits) else (0, 0)
            overlap = thresholds[level] + 0.05
            box = (
                (0.0, 0.0, 0.5, 0.5 * overlap)
                if measure == "iou"
                else (0.5 - 0.2 * overlap, 0.0, 0.5 + 0.2 * (1 - overlap), 0.1)
            )
            predicted += [(first + i, k, box) for i in range(above[0], found)]
            predicted += [(first, k, box)] * (more - above[1])
        predicted += [(first, k, (0.9, 0.9, 1.0, 1.0))] * (total - hits[0] - extra[0])
    return annotated, predicted


def as_boxes(lines):
    image, k, box = zip(*lines, strict=True)
    return Boxes(torch.tensor(image), torch.tensor(k), torch.tensor(box, dtype=torch.float64), torch.ones(len(lines)))


@pytest.mark.parametrize(("measure", "number"), [("iou", "7"), ("ior", "4"), ("ior", "19")])
def test_predictions_built_for_wangs_tables_give_them(measure, number):
    published = wang_table(number)
    annotated, predicted = (as_boxes(lines) for lines in wang_files(measure, published))
    n = len(annotated.image)
    assert n == 984
    names = [str(i) for i in range(n)]
    ground_truth = GroundTruth(WANG_CLASSES, names, names, torch.ones(n, 8), annotated._replace(score=None))
    own = MethodDefaults(RegionRule(), torch.zeros(8), torch.zeros(8))
    result = score_localization(
        find_protocol("wang2017"), BoxSource(predicted), ground_truth, torch.ones(n, 8), own, resamples=10
    )
    table = next(table for table in result.tables if table.criterion.measure == measure)
    assert table.criterion.thresholds == tuple(published)
    for line in rows(paper="wang2017", table=number):
        row = table.criterion.thresholds.index(line.T)
        accuracy = line.metric == "accuracy"
        whole, share = (table.hits, table.accuracy) if accuracy else (table.false_positives, table.afp)
        assert whole[row].tolist() == [counts(line)[name] for name in WANG_CLASSES]
        values = torch.tensor([line.values[name] for name in WANG_CLASSES], dtype=torch.float64)
        torch.testing.assert_close(share[row], values, rtol=0, atol=2e-4)
