"""The papers' tables."""

from cxrfast.experiments.reproduction.plans import PlannedRow, PlannedRun, PublishedLine, TablePlan

_ROZENBERG = {
    (method, share): PlannedRun(f"{method}-{round(100 * share)}", method, unannotated=share)
    for share in (0.0, 0.2)
    for method in ("li", "rozenberg")
}
_SGL = PlannedRun("sgl", "sgl")
_RIVALS = (
    (PlannedRun("sgl-bil", "sgl", {"loss": "bil", "pool": "mean", "lam": 1.0}), "BIL (Zhou 2017) with mean pooling"),
    (PlannedRun("sgl-mmm", "sgl", {"loss": "mmm", "pool": "max"}), "MMM (Morfi & Stowell 2018) with max pooling"),
    (PlannedRun("sgl-bag", "sgl", {"loss": "bag"}), "Eq. 4 alone, same network"),
    (PlannedRun("sgl-mean", "sgl", {"loss": "bag", "pool": "mean"}), "Eq. 4 with mean pooling: baseline of Figure 7"),
    (PlannedRun("yao", "yao"), "Yao et al. 2018, multiple resolutions"),
    (PlannedRun("cia", "cia"), "after Liu et al. 2019, without boxes"),
)
_ZHANG = {
    "both": PlannedRun("zhang", "zhang"),
    "distance learning": PlannedRun("zhang-distance", "zhang", {"verification": 0.0}),
    "region verification": PlannedRun("zhang-verification", "zhang", {"triplet": 0.0}),
    "neither": PlannedRun("zhang-neither", "zhang", {"triplet": 0.0, "verification": 0.0}),
}
_WITHOUT_HARDNESS = PlannedRun("zhang-random", "zhang", {"sampling": "random"})
_EXACT = PlannedRun("zhang-exact", "zhang", {"partial": 0.0})
_WANG = PlannedRun("wang", "wang")


def _ours(run: PlannedRun, title: str, published: PublishedLine | None = None) -> PlannedRow:
    return PlannedRow(run.name, title, run, published)


def _rozenberg(method: str, share: float) -> PlannedRow:
    authors, row = ("Li et al.", "Li et al.") if method == "li" else ("Rozenberg et al.", "ours")
    return _ours(
        _ROZENBERG[method, share],
        f"{authors}, {share:.0%} of the unannotated images",
        PublishedLine("rozenberg2019", "1", f"{row}, {100 * share:.0f} % unannotated"),
    )


def _seibold(table: str) -> tuple[PlannedRow, ...]:
    return (
        _ours(_SGL, "SGL", PublishedLine("seibold2020", table, "SGL")),
        *(_ours(run, title) for run, title in _RIVALS),
        *_copied("seibold2020", table, "Liu et al."),
    )


def _zhang(table: str, *settings: str) -> tuple[PlannedRow, ...]:
    return tuple(
        _ours(_ZHANG[name], f"Zhang et al., {name}", PublishedLine("zhang2020", table, name)) for name in settings
    )


def _copied(paper: str, table: str, liu: str) -> tuple[PlannedRow, ...]:
    """Lines that the paper copied from other papers for comparison."""
    names = (("wang2017", "Wang et al."), ("li2018", "Li et al."), ("liu2019", liu))
    return tuple(
        PlannedRow(name, f"{row}, as the paper copied it (published only)", None, PublishedLine(paper, table, row))
        for name, row in names
    )


_HARD = "of section 4.2"  # its name in the published numbers
_RIVALS_NOTE = "the rows between SGL and the copied ones are ours; the published table does not have them"

TABLES: dict[str, TablePlan] = {
    plan.name: plan
    for plan in (
        TablePlan(
            "rozenberg1",
            "Rozenberg et al. 2019, Table 1: localisation at T = 0.1 by IoU and IoR, few boxes",
            "rozenberg2019",
            "rozenberg2019",
            ("accuracy",),
            tuple(_rozenberg(method, share) for method, share in _ROZENBERG),
            note="folds by image, as published: patients are in training and test",
        ),
        TablePlan(
            "seibold1",
            "Seibold et al. 2020, Table 1: AUROC",
            "seibold2020",
            "seibold2020",
            ("auroc",),
            _seibold("1"),
            note=_RIVALS_NOTE,
        ),
        TablePlan(
            "seibold2",
            "Seibold et al. 2020, Table 2: localisation by IoU",
            "seibold2020",
            "seibold2020",
            ("accuracy",),
            _seibold("2"),
            note=_RIVALS_NOTE,
        ),
        TablePlan(
            "zhang1",
            "Zhang et al. 2020, Table 1: AUROC, and its ablation",
            "zhang2020",
            "zhang2020",
            ("auroc",),
            (
                *_zhang("1", "both", "distance learning", "region verification", "neither"),
                *_copied("zhang2020", "1", "CIA-Net"),
            ),
        ),
        TablePlan(
            "zhang2",
            "Zhang et al. 2020, Table 2: localisation by IoU",
            "zhang2020",
            "zhang2020",
            ("accuracy",),
            (*_zhang("2", "both"), *_copied("zhang2020", "2", "CIA-Net")),
        ),
        TablePlan(
            "zhang3",
            "Zhang et al. 2020, Table 3: the ablation, localisation by IoU over all classes",
            "zhang2020",
            "zhang2020",
            ("accuracy",),
            _zhang("3", "both", "region verification", "distance learning"),
            note="the paper publishes the mean over the classes",
        ),
        TablePlan(
            "zhang-hard",
            "Zhang et al. 2020, section 4.2: learning with hard examples, mean AUROC",
            "zhang2020",
            "zhang2020",
            ("auroc",),
            (
                *_zhang(_HARD, "both"),
                _ours(
                    _WITHOUT_HARDNESS,
                    "Zhang et al., both, triplets drawn without hardness",
                    PublishedLine("zhang2020", _HARD, "both, positives and negatives drawn without hardness"),
                ),
                _ours(
                    _EXACT,
                    "Zhang et al., both, exact matches only",
                    PublishedLine("zhang2020", _HARD, "both, exact matches only"),
                ),
            ),
            note="the paper publishes the mean over the classes",
        ),
        TablePlan(
            "wang17",
            "Wang et al. 2017, Table 17: AUROC",
            "wang2017",
            "wang2017",
            ("auroc",),
            (_ours(_WANG, "Wang et al., ResNet-50", PublishedLine("wang2017", "17", "ResNet-50")),),
        ),
        TablePlan(
            "wang19",
            "Wang et al. 2017, Table 19: localisation by IoBB, and average number of false positives",
            "wang2017",
            "wang2017",
            ("accuracy", "afp"),
            (_ours(_WANG, "Wang et al., ResNet-50", PublishedLine("wang2017", "19", "")),),
            measures=("ior",),
        ),
    )
}
