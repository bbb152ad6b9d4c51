"""Wrong usage of every command: one line, and an exit code."""

import pytest


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["tarin"], 2, "No such command 'tarin'"),
        (["train"], 2, "method: expected the name of a method, got none; for example --method rozenberg"),
        (["train", "--method=rozenberg"], 2, "data: expected the folder of a data set, got none; add --data DIR"),
        (["train", "--method=zhou", "--data=x"], 2, "method: expected one of li, rozenberg, "),
        (["train", "--method=li", "--data=nowhere"], 1, "no folder or file nowhere"),
        (["train", "--method=li", "--data=.", "--epochs=0"], 2, "epochs"),
        (["train", "--method=li", "--data=.", "--set", "grid"], 2, "set: expected NAME=VALUE, got 'grid'"),
        (
            ["train", "--method=li", "--data=.", "--set", "grit=3"],
            2,
            "options.grit: unknown option; did you mean grid?",
        ),
        (["train", "--method=li", "--data=.", "--device=gpu"], 2, "device: expected 'auto', 'cpu' or 'cuda'"),
        (
            ["train", "--method=li", "--data=.", "--folds=1"],
            2,
            "folds: expected a number greater than or equal to 2, got 1",
        ),
        (
            ["train", "--method=li", "--data=.", "--folds=3", "--fold=3"],
            2,
            "fold: expected 0 to 2, because there are 3 folds",
        ),
        (
            ["train", "--method=li", "--data=.", "--seeds=3"],
            2,
            "seeds: expected only for a cross-validation; add --folds",
        ),
        (
            ["train", "--method=li", "--data=.", "--fold=0"],
            2,
            "fold: expected only for a cross-validation; add --folds",
        ),
        (
            ["train", "--method=li", "--data=.", "--split=folds"],
            2,
            "split: expected patient or official for a single run",
        ),
        (
            ["train", "--method=li", "--data=.", "--val=some"],
            2,
            "val_share: expected none, or a share from 0 to below 1",
        ),
        (
            ["train", "--method=li", "--data=.", "--val-share=1"],
            2,
            "val_share: expected none, or a share from 0 to bel",
        ),
        (
            ["train", "--method=li", "--data=.", "--lr-milestones=3,2"],
            2,
            "lr_milestones: expected increasing epochs, got 3",
        ),
        (
            ["train", "--method=li", "--data=.", "--lr-milestones=a"],
            2,
            "lr_milestones.0: expected a valid integ",
        ),
        (["train", "--method=li", "--data=.", "--lr-schedule=cosine"], 2, "lr_schedule: expected 'steps', 'mi"),
        (
            ["train", "--method=li", "--data=.", "--lr-schedule=milestones"],
            2,
            "lr_milestones: expected epochs for lr_schedule milestones, got none",
        ),
        (["train", "--resume", "nowhere"], 1, "nowhere is not a run of cxrfast train"),
        (["evaluate", "runs/a", "--checkpoint", "b"], 2, "checkpoint: expected one model, got b and the run runs/a"),
        (
            ["train", "--method=li", "--data=.", "--precision=16", "--device=cpu"],
            2,
            "precision: expected bf16 or 32 on the CPU",
        ),
        (["localize", "a.png"], 1, "no trained model under runs/"),
        (["localize"], 2, "Missing argument"),
        (["evaluate", "--checkpoint", "w.safetensors"], 1, "checkpoint: no file w.safetensors"),
        (["synth", "phantoms", "--images=3"], 2, "images"),
        (["demo", "--method=lee"], 2, "method: expected one of rozenberg, li, "),
        (["import-weights", "model.pt", "--preset=chexnet"], 1, "import: no file model.pt"),
        (["import-weights", "model.pt"], 2, "classes: expected the class of each output, got none; add --classes, or"),
    ],
)
def test_wrong_usage_is_one_line(cli, arguments, code, message):
    got, _, err = cli(*arguments)
    assert (got, err.count("\n")) == (code, 1), err
    assert err.startswith("cxrfast: ")
    assert message in err
