"""The tables that can be reproduced: their rows, what they cost, and how far an override leads from the paper."""

import pytest

from cxrfast.errors import UsageError
from cxrfast.evaluation import PROTOCOLS
from cxrfast.experiments.reproduction import PLANS, TABLES, Overrides, find_plan, listing, run_config, run_cost
from cxrfast.methods import METHODS

RUNS = {row.run.name: (plan, row.run) for plan in TABLES.values() for row in plan.rows if row.run is not None}


def test_every_table_of_the_papers_is_there():
    assert {"rozenberg1", "seibold1", "seibold2", "zhang1", "zhang2", "zhang3", "zhang-hard"} <= set(TABLES)
    assert [row.name for row in TABLES["rozenberg1"].rows] == ["li-0", "rozenberg-0", "li-20", "rozenberg-20"]
    for plan in TABLES.values():
        assert plan.protocol in PROTOCOLS
        for row in plan.rows:
            assert row.run is None or row.run.method in METHODS
            assert row.run is not None or row.published is not None
            # A row that names a published line finds it, and no other, for every metric and T that the table shows.
            for metric in plan.metrics if row.published else ():
                places = [(None, None)] if metric == "auroc" else []
                for criterion in PROTOCOLS[plan.protocol].criteria if not places else ():
                    if criterion.measure in plan.measures:
                        places += [(criterion.measure, t) for t in criterion.thresholds]
                for measure, t in places:
                    line = row.published.at(metric, measure, t)
                    assert line is not None, (plan.name, row.name, measure, t)
                    assert (line.paper, line.table, line.row) == (
                        row.published.paper,
                        row.published.table,
                        row.published.row,
                    )


def test_rows_stand_beside_their_own_published_lines():
    def line(table, row, metric, measure=None, t=None):
        (found,) = TABLES[table].choose([row])
        return found.published.at(metric, measure, t)

    assert line("seibold1", "sgl", "auroc").mean == 0.83
    assert line("seibold1", "sgl", "auroc").values["Emphysema"] == 0.95
    assert line("seibold1", "wang2017", "auroc").values["Emphysema"] == 0.83  # as Seibold et al. copied it
    assert line("seibold2", "sgl", "accuracy", "iou", 0.3).mean == 0.36
    assert line("seibold2", "liu2019", "accuracy", "iou", 0.3).mean == 0.38
    assert line("rozenberg1", "li-20", "accuracy", "ior", 0.1).values["Nodule"] == 0.271
    assert line("rozenberg1", "rozenberg-0", "accuracy", "iou", 0.1).values["Nodule"] == 0.404
    assert line("zhang1", "zhang-neither", "auroc").mean == 0.789
    assert line("zhang1", "zhang-distance", "auroc").mean == 0.798
    assert line("zhang1", "zhang-verification", "auroc").mean == 0.833
    assert line("zhang3", "zhang-verification", "accuracy", "iou", 0.7).mean == 0.06
    assert line("zhang-hard", "zhang-random", "auroc").mean == 0.84
    assert line("zhang-hard", "zhang-exact", "auroc").mean == 0.853
    assert [row.name for row in TABLES["zhang3"].rows] == ["zhang", "zhang-verification", "zhang-distance"]
    assert {row.name for row in TABLES["zhang2"].rows} == {"zhang", "wang2017", "li2018", "liu2019"}


def test_runs_of_one_name_are_the_same_run():
    for plan in TABLES.values():
        for row in plan.rows:
            if row.run is not None:
                assert RUNS[row.run.name][1] == row.run
                assert RUNS[row.run.name][0].protocol == plan.protocol  # or one evaluation would overwrite the other


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_the_methods_defaults_and_what_makes_it_this_row(name, tmp_path):
    plan, run = RUNS[name]
    config = run_config(run, plan, tmp_path, Overrides())
    assert config.labels == "2017"
    assert config.split == ("patient" if run.cross_validated else "official")
    assert {name: config.options[name] for name in run.options} == dict(run.options)
    small = run_config(run, plan, tmp_path, Overrides(scale="small"))
    assert (small.image_size, small.epochs) == (64, 2)
    assert {name: small.options[name] for name in run.options} == dict(run.options)


def test_options_go_to_the_methods_that_have_them(tmp_path):
    table, rozenberg = RUNS["rozenberg-20"]
    _, li = RUNS["li-20"]
    overrides = Overrides({"epochs": 3}, {"crf_steps": 2, "hidden": 8})
    overrides.check([rozenberg, li])
    assert run_config(rozenberg, table, tmp_path, overrides).options["crf_steps"] == 2
    config = run_config(li, table, tmp_path, overrides)
    assert (config.epochs, config.options["hidden"]) == (3, 8)
    assert "crf_steps" not in config.options
    with pytest.raises(UsageError, match="crf_steps: expected an option of li; list them: cxrfast info"):
        overrides.check([li])
    with pytest.raises(UsageError, match="scale: expected small, got 'tiny'"):
        Overrides(scale="tiny")


def test_cost_is_steps_over_the_assumed_rates():
    plan, run = RUNS["sgl"]
    cost = run_cost(run, plan)
    train, val, test = 86_524 * 7 / 8, 86_524 / 8, 25_596
    images = 20 * train + 20 * val / 3 + 2 * test / 3
    assert cost.images == 20 * train
    assert cost.hours == pytest.approx(images * 125.3e9 / 20e12 / 3600)  # the GPU is the slower one
    plan, run = RUNS["zhang"]
    # Three images for every anchor; three E are tried in 65 epochs; 10 % validate
    images = 65 * 3 * 0.9 * 86_524 + 65 * 0.1 * 86_524 / 3 + 2 * test / 3
    assert run_cost(run, plan).hours == pytest.approx(images / (16 * 50) / 3600)  # reading is
    plan, run = RUNS["rozenberg-20"]
    pool = 880 * 4 / 5 + 0.2 * (112_120 - 880)
    assert run_cost(run, plan).images == pytest.approx(5 * (30 + 10) * pool)  # nothing validates


def test_operations_of_a_network_are_those_that_torch_counts():
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from cxrfast.experiments.reproduction.cost import GFLOP, PARAMETERS

    method = METHODS["chexnet"](tuple("abcdefghijklmn"), 224, METHODS["chexnet"].Options())
    with FlopCounterMode(display=False) as counter:
        method(torch.rand(1, 1, 224, 224), method.stages(1)[0].name).sum().backward()
    assert counter.get_total_flops() / 1e9 == pytest.approx(GFLOP["chexnet"], rel=0.02)
    assert sum(p.numel() for p in method.parameters()) == pytest.approx(PARAMETERS["chexnet"], rel=0.02)


def test_the_list_names_tables_rows_hours_and_that_they_are_estimates():
    text = listing()
    for plan in PLANS.values():
        assert f"\n{plan.name} " in f"\n{text}"
        assert all(line in text for line in plan.listing())
    for plan in TABLES.values():
        assert all(row.name in text for row in plan.rows)
    assert "estimates" in text
    assert "not measurements" in text
    assert max(map(len, text.splitlines())) <= 100


def test_names_are_checked():
    with pytest.raises(UsageError, match="table: expected one of rozenberg1, seibold1, .*, got 'rozenberg2'"):
        find_plan("rozenberg2")
    with pytest.raises(UsageError, match="rows: expected some of li-0, rozenberg-0, .* for rozenberg1, got 'li'"):
        TABLES["rozenberg1"].choose(["rozenberg-0", "li"])
    assert [row.name for row in TABLES["rozenberg1"].choose(["rozenberg-0", "li-0"])] == ["li-0", "rozenberg-0"]
