"""The table of what the operating points achieve."""

from cxrfast.evaluation.record import ClassRecord, EvaluationRecord
from cxrfast.report.facts import Evaluated
from cxrfast.report.html.tables import ReportTable, TableCell, TableRow, interval, number
from cxrfast.report.terminal.layout import short

_RATES = {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV"}


def operating_table(evaluated: Evaluated) -> ReportTable | None:
    """Threshold, calls, sensitivity, specificity and predictive values of every class; None without them."""
    record = evaluated.record
    rows = [_row(record, name, row) for name, row in record.classes.items() if row.at_operating_point is not None]
    if not rows:
        return None
    notes = ["PPV and NPV hold for the share of positives among these images."]
    if record.learnt_from is not None:
        notes.append("Thresholds are from the run's validation images, their intervals from resamples of these.")
    learnt = {} if record.learnt_from is None else record.learnt_from.classes
    why = [f"{name} ({of.operating_point_note})" for name, of in learnt.items() if of.operating_point_note]
    if why:
        notes.append(f"Threshold 0.5, because validation images could not choose one: {', '.join(why)}.")
    header = ["class", "score ≥", "called", "positive", *_RATES.values()]
    return ReportTable("At the operating point", header, rows, notes)


def _row(record: EvaluationRecord, name: str, row: ClassRecord) -> TableRow:
    found = row.at_operating_point
    assert found is not None
    of_class = None if record.learnt_from is None else record.learnt_from.classes.get(name)
    limits = None if of_class is None else of_class.operating_point_interval
    small = "" if limits is None else "–".join(map(short, limits))
    cells = [
        TableCell(short(row.operating_point), small),
        TableCell(f"{found.called:,}"),
        TableCell(f"{row.n_positive:,}"),
    ]
    for key in _RATES:
        rate = getattr(found, key)
        cells.append(TableCell(number(rate.value, 2), interval(*rate.interval)))
    return TableRow(name, cells)
