"""The result as text: warnings first, operating points, and no line that a terminal would break."""

from dataclasses import replace

import torch

from cxrfast.evaluation import EvaluationMetadata, find_protocol, score_predictions
from cxrfast.regions.rule import MethodDefaults, RegionRule
from cxrfast.report.terminal import evaluation_to_text
from cxrfast.report.terminal.layout import WIDTH, short
from cxrfast.runs.provenance import Provenance
from tests.report.made_up import made_up

LEARNT = Provenance(data="phantoms", layout="chestxray14", synthetic=True, images=9, boxed_images=2)


def test_warnings_come_first_and_operating_points_have_intervals(tmp_path):
    names = ("Pleural_Thickening", "Mass")
    made = made_up(tmp_path, 200, names)
    own = MethodDefaults(RegionRule(), torch.full((2,), 0.5), torch.tensor([0.00037, 0.5], dtype=torch.float64))
    facts = EvaluationMetadata("test", "2017", "m", "w.safetensors", warnings=LEARNT.warnings, learnt_from=LEARNT)
    result = score_predictions(
        find_protocol("own"), made.ground_truth, made.predictions.prob, None, own, facts, resamples=100
    )
    text = evaluation_to_text(result)
    lines = text.splitlines()
    assert lines[0].startswith("WARNING: weights learnt from drawings, not from people")
    assert "learnt from: 9 phantoms (drawings) of phantoms" in " ".join(text.split())
    assert max(map(len, lines)) <= WIDTH
    at = next(n for n, line in enumerate(lines) if line.startswith("operating point"))
    assert lines[at].split()[2:] == ["score", "≥", "called", "sensitivity", "specificity", "PPV", "NPV"]
    first = lines[at + 2].split()
    assert first[:5] == ["Pleural_Thickening", "0.00037", "200", "1.00", f"{result.rates.sensitivity.low[0]:.2f}–1.00"]
    assert first[-1] == "-"  # no image is called negative
    quiet = evaluation_to_text(replace(result, warnings=(), learnt_from=None, rates=None))
    assert "WARNING" not in quiet
    assert "operating point " not in quiet


def test_a_threshold_is_never_shown_as_0():
    assert [short(value) for value in (0.0, 0.00037, 0.004999, 0.005, 0.31, 1.0, float("nan"))] == [
        "0.00", "0.00037", "0.005", "0.01", "0.31", "1.00", "-",
    ]  # fmt: skip
