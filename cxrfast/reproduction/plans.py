"""The papers' tables as data: which runs a table needs, by which protocol they are scored, what is published."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cxrfast.errors import UsageError
from cxrfast.published.numbers import Metric, PublishedRow, rows


@dataclass(frozen=True)
class PlannedRun:
    """One training on the published lists, or the folds of a cross-validation; several tables may show it.

    Settings that are not named here are the method's defaults, which are the paper's.
    """

    name: str  # of its folder
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    unannotated: float | None = None  # share of the unannotated images in training; None: the published lists
    pretrained: bool = True  # the paper starts from ImageNet weights

    @property
    def cross_validated(self) -> bool:
        return self.unannotated is not None


@dataclass(frozen=True)
class TableRow:
    """A line of a table: ours, published, or both."""

    name: str  # what --rows takes
    title: str
    run: PlannedRun | None  # None: somebody else's method, published only
    published: Mapping[str, str] | None = None  # what its published lines are found by; None: none is known


@dataclass(frozen=True)
class TablePlan:
    """A table of a paper."""

    name: str  # what the command line takes
    title: str
    protocol: str
    metrics: tuple[Metric, ...]  # what it shows, of all that an evaluation has
    rows: tuple[TableRow, ...]
    measures: tuple[str, ...] = ("iou", "ior")  # those of the protocol that it shows
    note: str | None = None
    folds: int = 5  # of rows that are cross-validated
    folds_by: Literal["patient", "image"] = "image"

    def choose(self, names: Sequence[str] | None) -> tuple[TableRow, ...]:
        """The rows of these names, in the table's order; all without names."""
        known = [row.name for row in self.rows]
        for name in names or ():
            if name not in known:
                raise UsageError(f"rows: unknown row {name!r} of {self.name}; expected {', '.join(known)}")
        return tuple(row for row in self.rows if not names or row.name in names)


def published_lines(row: TableRow, metric: Metric, measure: str | None, t: float | None) -> tuple[PublishedRow, ...]:
    """What the paper publishes in this row at this T."""
    if row.published is None:
        return ()
    found = rows(**row.published, metric=metric, measure=measure)  # type: ignore[arg-type]
    return tuple(line for line in found if t == line.T)


_ROZENBERG = {
    (method, share): PlannedRun(f"{method}-{round(100 * share)}", method, unannotated=share)
    for share in (0.0, 0.2)
    for method in ("li", "rozenberg")
}
_SGL = {
    "sgl": PlannedRun("sgl", "sgl"),
    **{loss: PlannedRun(f"sgl-{loss}", "sgl", {"loss": loss}) for loss in ("bil", "mmm", "bag")},
}
_ZHANG = {
    "neither": PlannedRun("zhang-neither", "zhang", {"triplet": 0.0, "verification": 0.0}),
    "distance learning": PlannedRun("zhang-distance", "zhang", {"verification": 0.0}),
    "region verification": PlannedRun("zhang-verification", "zhang", {"triplet": 0.0}),
    "both": PlannedRun("zhang", "zhang"),
}
_WANG = PlannedRun("wang", "wang")


def _ours(run: PlannedRun, title: str, published: Mapping[str, str] | None = None) -> TableRow:
    return TableRow(run.name, title, run, published)


_RIVALS = (
    _ours(_SGL["bil"], "BIL (Zhou 2017), same network"),
    _ours(_SGL["mmm"], "MMM (Morfi & Stowell 2018), same network"),
    _ours(_SGL["bag"], "Eq. 4 alone, same network"),
)
_WANG_PRINTED = TableRow(
    "wang2017", "Wang et al. 2017, their Table 17 (published only)", None, {"paper": "wang2017", "table": "17"}
)
_WANG_BOXES_PRINTED = TableRow(
    "wang2017", "Wang et al. 2017, their Table 7 (published only)", None, {"paper": "wang2017", "table": "7"}
)
_RIVALS_NOTE = "the rivals are ours; which of them the published table has is not known here"


def _zhang(table: str, *settings: str) -> tuple[TableRow, ...]:
    return tuple(
        _ours(_ZHANG[name], f"Zhang et al., {name}", {"paper": "zhang2020", "table": table, "row": name})
        for name in settings
    )


TABLES: dict[str, TablePlan] = {
    plan.name: plan
    for plan in (
        TablePlan(
            "rozenberg1",
            "Rozenberg et al. 2019, Table 1: localisation at T = 0.1 by IoU and IoR, few boxes",
            "rozenberg2019",
            ("accuracy",),
            tuple(
                _ours(
                    run,
                    f"{'Li et al.' if method == 'li' else 'Rozenberg et al.'}, {share:.0%} of the unannotated images",
                    {
                        "paper": "rozenberg2019",
                        "table": "1",
                        "row": f"{'Li et al.' if method == 'li' else 'ours'}, {100 * share:.0f} % unannotated",
                    },
                )
                for (method, share), run in _ROZENBERG.items()
            ),
            note="folds by image, as published: patients are in training and test",
        ),
        TablePlan(
            "seibold1",
            "Seibold et al. 2020, Table 1: AUROC",
            "seibold2020",
            ("auroc",),
            (_ours(_SGL["sgl"], "SGL", {"paper": "seibold2020", "table": "1"}), *_RIVALS, _WANG_PRINTED),
            note=_RIVALS_NOTE,
        ),
        TablePlan(
            "seibold2",
            "Seibold et al. 2020, Table 2: localisation by IoU",
            "seibold2020",
            ("accuracy",),
            (_ours(_SGL["sgl"], "SGL", {"paper": "seibold2020", "table": "2"}), *_RIVALS, _WANG_BOXES_PRINTED),
            note=_RIVALS_NOTE,
        ),
        TablePlan(
            "zhang1",
            "Zhang et al. 2020, Table 1: AUROC",
            "zhang2020",
            ("auroc",),
            (*_zhang("1", "both"), _WANG_PRINTED),
        ),
        TablePlan(
            "zhang2",
            "Zhang et al. 2020, Table 2: localisation by IoU",
            "zhang2020",
            ("accuracy",),
            (_ours(_ZHANG["neither"], "Zhang et al., neither"), *_zhang("2", "both"), _WANG_BOXES_PRINTED),
        ),
        TablePlan(
            "zhang3",
            "Zhang et al. 2020, Table 3: the ablation",
            "zhang2020",
            ("auroc",),
            _zhang("3", *_ZHANG),
        ),
        TablePlan(
            "wang17",
            "Wang et al. 2017, Table 17: AUROC",
            "wang2017",
            ("auroc",),
            (_ours(_WANG, "Wang et al., ResNet-50", {"paper": "wang2017", "table": "17"}),),
        ),
        TablePlan(
            "wang19",
            "Wang et al. 2017, Table 19: localisation by IoBB, and average number of false positives",
            "wang2017",
            ("accuracy", "afp"),
            (_ours(_WANG, "Wang et al., ResNet-50", {"paper": "wang2017", "table": "19"}),),
            measures=("ior",),
        ),
    )
}


def find_table(name: str) -> TablePlan:
    """The table of that name; :class:`UsageError` lists the names there are."""
    if name not in TABLES:
        raise UsageError(f"table is {name!r}; expected one of {', '.join(TABLES)}")
    return TABLES[name]
