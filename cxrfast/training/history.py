"""The epochs of a run so far: their numbers, the best one, and whether training explodes or never improves."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cxrfast.training.checkpoint import rows_of, validation_of, validation_state
from cxrfast.training.validation import Validation

LIMIT = 100.0
"""An epoch has exploded if its mean loss is more than this multiple of the loss before the first step, or of 1 if that
is smaller."""


def has_exploded(start: float | None, loss: float) -> bool:
    """Whether the mean loss of an epoch has exploded. `start` is the loss of the stage's first batch, which no step has
    preceded; None (a run of an earlier version): unknown, so False."""
    return start is not None and not loss <= LIMIT * max(start, 1.0)


def has_stalled(start: float | None, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a stage never improved over its start. `rows` are all its epochs.

    This holds if no epoch had a lower loss than the first batch or the first epoch, and validation never ranked better
    than chance (AUROC ≤ 0.5). One epoch without validation says too little.
    """
    scores = [row["val_auroc"] for row in rows if row["val_auroc"] is not None]
    if start is None or not (scores or len(rows) > 1):
        return False
    losses = [row["train_loss"] for row in rows]
    return min(losses) >= start and min(losses) >= losses[0] and max(scores, default=0.0) <= 0.5


class History:
    """What a run keeps of its epochs.

    Attributes:
        rows: one for each finished epoch, as in `metrics.jsonl`.
        best: best validation score of the current stage.
        best_row: index in `rows` of the epoch whose weights are the best ones; None if the stage has none yet.
        start: loss of the first batch of the current stage, before the first step.
        validation: of the last epoch.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.validation: Validation | None = None
        self.begin_stage()

    def begin_stage(self) -> None:
        self.best = float("-inf")
        self.best_row: int | None = None
        self.start: float | None = None

    def of_stage(self, name: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["stage"] == name]

    def add(self, row: Mapping[str, Any], *, last: bool, **more: Any) -> bool:
        """Add an epoch, with `more` at the end of its row; returns whether its weights are the best so far.

        Without a validation score the latest epoch counts as the best, and the `last` one of a stage is marked. An
        epoch that has exploded is never the best.
        """
        score = row["val_score"]
        exploded = has_exploded(self.start, row["train_loss"])
        improved = not exploded and (score is None or score >= self.best)
        if improved and score is not None:
            self.best = max(score, self.best)
        marked = improved and (score is not None or last)
        self.rows.append({**row, "best": marked, **more, **({"exploded": True} if exploded else {})})
        if improved:
            self.best_row = len(self.rows) - 1
        return improved

    def close_stage(self, name: str) -> bool:
        """To be called after the last epoch of a stage; returns whether it never improved. Then no epoch is marked."""
        rows = self.of_stage(name)
        if any(row.get("exploded") for row in rows) or not has_stalled(self.start, rows):
            return False
        for row in rows:
            row["best"] = False
        rows[-1]["never_improved"] = True
        return True

    def state(self) -> dict[str, Any]:
        """The part of a checkpoint that :meth:`load_state` reads."""
        return {
            "best": self.best,
            "best_row": self.best_row,
            "start_loss": self.start,
            "rows": json.dumps(self.rows),
            "validation": validation_state(self.validation) if self.validation is not None else None,
        }

    def load_state(self, state: Mapping[str, Any], written: Sequence[dict[str, Any]]) -> None:
        """`written` are the rows of `metrics.jsonl`, for checkpoints of earlier versions, which have none."""
        rows = rows_of(state)
        self.rows = list(written) if rows is None else rows
        self.best, self.best_row, self.start = state["best"], state.get("best_row"), state.get("start_loss")
        self.validation = validation_of(state)
