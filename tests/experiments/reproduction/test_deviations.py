"""A run against what its paper states, with a register that the test writes itself."""

from dataclasses import replace

import pytest

from cxrfast.data import read_chestxray14
from cxrfast.errors import UsageError
from cxrfast.experiments.reproduction import TABLES, Overrides, deviations_of, run_config
from cxrfast.experiments.reproduction.register import configured, stated, statements_on, value_of

ZHANG = TABLES["zhang1"]


def run_of(name, plan=ZHANG):
    (row,) = plan.choose([name])
    return row.run


def texts(name="zhang", plan=ZHANG, *, data=None, folds=5, settings=None, options=None, **changes):
    """What is said of a row with these overrides; its configuration may be changed after that."""
    run = run_of(name, plan)
    config = run_config(run, plan, "data", Overrides(settings or {}, options or {}))
    return deviations_of(run, config.model_copy(update=changes), plan, folds, data).texts


def test_a_default_that_the_paper_states_is_compared_with_the_run(register):
    register(
        "zhang2020",
        "zhang",
        {"place": "§4.1", "setting": {"epochs": 30, "lr": "1e-3"}},
        {"place": "§3.2, Eq. 4", "setting": {"options.margin": 0.5}},
    )
    assert texts() == ()
    assert texts(settings={"epochs": 3}) == ("epochs 3 instead of 30 (§4.1)",)
    assert texts(options={"margin": 1.0}) == ("margin 1.0 instead of 0.5 (§3.2, Eq. 4)",)
    assert texts(settings={"lr": 0.01}) == ("lr 0.01 instead of 0.001 (§4.1)",)


def test_the_methods_own_defaults_are_no_papers_setting(register):
    register(
        "zhang2020",
        "zhang",
        {"status": "deviation", "place": "§4.1", "setting": {"batch_size": 7}},
        {"status": "deviation", "place": "§3.3", "does": "Regions are circles."},
    )
    assert run_config(run_of("zhang"), ZHANG, "data", Overrides()).batch_size == 7
    assert texts(settings={"batch_size": 48}) == ("batch size 48 instead of 7 (§4.1)", "Regions are circles (§3.3)")
    assert texts() == ("Regions are circles (§3.3)",)  # what no setting undoes


def test_a_statement_that_takes_an_option_is_followed(register):
    register("zhang2020", "zhang", {"status": "option", "place": "§4", "setting": {"options.margin": 0.7, "epochs": 9}})
    config = run_config(run_of("zhang"), ZHANG, "data", Overrides())
    assert (config.options["margin"], config.epochs, config.split) == (0.7, 9, "official")
    assert texts() == ()
    assert texts(settings={"epochs": 30}) == ("epochs 30 instead of 9 (§4)",)
    small = run_config(run_of("zhang"), ZHANG, "data", Overrides(scale="small"))
    assert (small.epochs, small.options["margin"]) == (2, 0.7)


def test_ablations_and_what_makes_the_row_are_not_deviations(register):
    register(
        "zhang2020",
        "zhang",
        {"kind": "ablation", "status": "option", "setting": {"options.triplet": 0.0, "epochs": 1}},
        {"kind": "ablation", "status": "deviation", "does": "No ablation of colours."},
        {"place": "Eq. 9", "setting": {"options.triplet": 1.0, "options.verification": 1.0}},
    )
    assert texts("zhang") == texts("zhang-distance") == texts("zhang-neither") == ()
    assert texts("zhang-distance", options={"triplet": 0.5}) == ("triplet 0.5 instead of 1.0 (Eq. 9)",)
    assert texts("zhang-verification", options={"triplet": 0.5}) == ()  # the row's own value goes first


def test_random_weights_and_other_weights_are_said(register):
    register("zhang2020", "zhang", {"status": "option", "place": "§4.1", "setting": {"pretrained": "imagenet"}})
    assert texts() == ("random initial weights instead of ImageNet's (§4.1; --pretrained imagenet)",)
    assert texts(options={"pretrained": True}) == ()
    (said,) = texts(options={"pretrained": "other.safetensors"})
    assert said == "initial weights of other.safetensors instead of ImageNet's (§4.1)"


def test_the_same_value_at_two_places_is_said_once_and_of_two_values_the_first(register):
    register(
        "zhang2020",
        "zhang",
        {"place": "§3", "setting": {"epochs": 30}},
        {"place": "§4", "setting": {"epochs": 30}},
        {"place": "§3", "setting": {"epochs": 30}},
        {"place": "§5", "status": "option", "setting": {"options.margin": 0.5}},
        {"place": "§6", "setting": {"options.margin": 0.5}},
    )
    assert texts(settings={"epochs": 1}, options={"margin": 0.1}) == (
        "epochs 1 instead of 30 (§3; §4)",
        "margin 0.1 instead of 0.5 (§5; §6)",
    )


def test_what_the_user_changed_where_the_paper_is_silent_is_said(register):
    register("zhang2020", "zhang", {"silent": True, "place": "§4", "setting": {"batch_size": 48}}, {"place": "§1"})
    assert texts(settings={"batch_size": 6, "augment": False}, options={"upsample": 2}) == (
        "batch size 6 instead of the planned 48",
        "augment false instead of the planned true",
        "upsample 2 instead of the planned 8",
    )
    assert texts(settings={"seed": 3, "workers": 2}) == ()


def test_no_augmentation_is_a_deviation_where_the_paper_augments(register):
    register("zhang2020", "zhang", {"place": "§4.1", "setting": {"augment": True}})
    assert texts(settings={"augment": False}) == ("augment false instead of true (§4.1)",)
    register("zhang2020", "zhang", {"place": "§4.1", "status": "option", "setting": {"augment": False}})
    assert run_config(run_of("zhang"), ZHANG, "data", Overrides()).augment is False
    assert texts() == ()


def test_a_paper_without_statements_on_the_method(register):
    plan = TABLES["wang17"]
    register("zhang2020", "zhang", {"place": "§4"})
    run = run_of("wang", plan)
    found = deviations_of(run, run_config(run, plan, "data", Overrides({"epochs": 2})), plan, 5, None)
    assert found.unchecked == "the register has no statements of wang2017 on method wang"
    assert found.texts == ("epochs 2 instead of the planned 10",)


def test_another_papers_method_is_held_against_its_own_paper(register):
    plan = TABLES["rozenberg1"]
    register("rozenberg2019", "rozenberg", {"place": "§4", "setting": {"epochs": 1}})
    register("li2018", "li", {"place": "§3.2", "status": "deviation", "setting": {"options.floor": 0.98}})
    assert texts("li-0", plan) == ()
    assert texts("li-0", plan, options={"floor": 0.0}) == ("floor 0.0 instead of 0.98 (li2018, §3.2)",)
    assert {of.paper for of in statements_on("rozenberg2019", "li")} == {"li2018"}
    register("rozenberg2019", "rozenberg", {"place": "§4", "method": "li", "setting": {"epochs": 1}})
    # What the table's paper says goes first.
    assert texts("li-0", plan, settings={"epochs": 30}) == ("epochs 30 instead of 1 (§4)",)


def test_data_folds_and_labels(register, phantoms):
    plan = TABLES["rozenberg1"]
    register("rozenberg2019", "rozenberg", {"place": "§4", "setting": {"split": "folds"}})
    assert texts("rozenberg-0", plan) == ()
    data = read_chestxray14(phantoms, labels="2017")
    found = texts("rozenberg-0", plan, data=data, folds=2, labels="2020")
    assert found == (
        "labels 2020 instead of 2017",
        "folds 2 instead of 5",
        "40 images instead of the 112,120 of ChestX-ray14",
    )
    assert texts("zhang", folds=2) == ()  # not cross-validated


def test_settings_are_read_as_a_configuration_reads_them(register):
    register(
        "zhang2020", "zhang", {"setting": {"lr": "1e-3", "labels": 2017, "options.margin": 1, "pretrained": "imagenet"}}
    )
    (statement,) = statements_on("zhang2020", "zhang")
    assert stated(statement) == {"lr": 0.001, "labels": "2017", "options.margin": 1.0, "pretrained": True}
    config = configured("zhang", {"epochs": 3})
    assert (value_of(config, "epochs"), value_of(config, "pretrained")) == (3, False)
    for setting, reason in (({"epoch": 3}, "epoch: unknown option"), ({"options.edges": 1}, "options.edges: unknown")):
        with pytest.raises(UsageError, match=reason):
            configured("zhang", setting)


def test_a_row_that_is_not_compared_has_no_settings(register):
    register("zhang2020", "zhang", {"place": "§4"})
    assert (
        deviations_of(replace(run_of("zhang"), method="li"), configured("li", {}), ZHANG, 5, None).unchecked
        == "the register has no statements of zhang2020 on method li"
    )
