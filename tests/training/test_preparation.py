"""What a configuration makes of a data set."""

import pytest

from cxrfast.data import read_chestxray14
from cxrfast.errors import UsageError
from cxrfast.training import build_config
from cxrfast.training.preparation import limit_annotation, prepare_data


def boxed(records):
    return {record.image for record in records if record.boxes}


def test_a_share_of_the_training_images_keeps_its_boxes_and_a_larger_share_keeps_them_too(phantoms):
    records = read_chestxray14(phantoms).records
    assert len(boxed(records)) > 8
    kept = {share: limit_annotation(records, share, seed=0) for share in (0.0, 0.1, 0.2, 1.0)}
    assert [len(boxed(kept[share])) for share in kept] == [0, 4, 8, len(boxed(records))]  # of 40 images
    assert boxed(kept[0.1]) < boxed(kept[0.2]) < boxed(records)
    assert kept[1.0] == list(records)
    for share, found in kept.items():
        assert [record.image for record in found] == [record.image for record in records], share
        assert [record.labels for record in found] == [record.labels for record in records], share
    assert boxed(limit_annotation(records, 0.1, seed=1)) != boxed(kept[0.1])


def test_annotated_limits_training_and_validation_and_leaves_the_test_images_alone(small_settings):
    whole, limited, none = (
        prepare_data(build_config({**small_settings, "annotated": share})) for share in (None, 0.1, 0.0)
    )
    assert limited.splits == whole.splits
    for part in ("train", "val"):
        assert len(boxed(limited.records[part])) == round(0.1 * len(whole.records[part])), part
        assert not boxed(none.records[part]), part
    assert limited.records["test"] == whole.records["test"]
    train = limited.records["train"]
    assert f"train {len(train)} images ({len(boxed(train))} with boxes)" in limited.notes[-1]


@pytest.mark.parametrize("share", [-0.1, 1.5, "many"])
def test_annotated_is_a_share(small_settings, share):
    with pytest.raises(UsageError, match=r"annotated: .*got"):
        build_config({**small_settings, "annotated": share})
