"""Which runs a study is made of."""

from pathlib import Path

import pytest

from cxrfast.errors import UsageError
from cxrfast.experiments.study import CONTRIBUTIONS, ROWS, SHARES, Study, StudyRun, choose_rows

OUT = Path("study")


def options_of(row: str, share: float = 0.05):
    return StudyRun(ROWS[row], share, 0).config(OUT, {}).options


def test_every_row_at_every_share_with_every_seed_and_once_where_boxes_make_no_difference():
    cells = Study().cells
    assert len(cells) == len({cell.folder for cell in cells}) == 3 * (5 * 3 + 4)
    assert {cell.share for cell in cells if cell.row.boxes} == set(SHARES)
    assert {cell.share for cell in cells if not cell.row.boxes} == {0.0}
    assert all(cell.config(OUT, {}).annotated == cell.share for cell in cells)


@pytest.mark.parametrize("without", [name for _, name in CONTRIBUTIONS.values() if name != "li"])
def test_a_row_lacks_one_contribution_and_nothing_else(without):
    whole, part = options_of("rozenberg"), options_of(without)
    different = {name for name in whole if whole[name] != part[name]}
    assert different == set(ROWS[without].options)
    configs = [
        StudyRun(ROWS[name], 0.05, 7).config(OUT, {}).model_dump(exclude={"options"}) for name in ("rozenberg", without)
    ]
    assert configs[0] == configs[1]


def test_li_has_the_network_and_the_training_of_the_others():
    rozenberg, li = options_of("rozenberg"), options_of("li")
    for name in ("backbone", "output_stride", "grid", "hidden", "patch_rule", "region_threshold"):
        assert li[name] == rozenberg[name], name
    assert not li["antialias"]
    configs = [StudyRun(ROWS[name], 0.05, 7).config(OUT, {}) for name in ("rozenberg", "li")]
    for name in ("epochs", "lr", "lr_decay", "lr_step", "batch_size", "weight_decay", "image_size", "augment"):
        assert getattr(configs[0], name) == getattr(configs[1], name), name


def test_a_contribution_compares_rows_that_exist():
    for with_it, without in CONTRIBUTIONS.values():
        assert {with_it, without} <= set(ROWS)


def test_settings_of_all_runs_go_before_those_of_a_method():
    assert StudyRun(ROWS["zhang"], 0.0, 0).config(OUT, {"epochs": 2}).epochs == 2


def test_what_is_refused():
    with pytest.raises(UsageError, match="rows: expected some of rozenberg, no-crf, .*, got 'crf'"):
        choose_rows(["rozenberg", "crf"])
    with pytest.raises(UsageError, match="annotated: expected shares above 0 and up to 1, got 5"):
        Study(shares=(0.05, 5.0))


def test_every_row_has_a_colour_and_a_mark_of_its_own():
    from cxrfast.experiments.study.plots import _STYLES

    assert set(_STYLES) == set(ROWS)
    assert len(set(_STYLES.values())) == len(_STYLES)
