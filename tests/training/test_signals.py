"""A signal lets the batch finish; the resumed run has the numbers of one that nothing has stopped."""

import os
import signal
import threading

import pytest
import torch
from safetensors.torch import load_file

from cxrfast.errors import CxrfastError, Interrupted
from cxrfast.methods import get_method
from cxrfast.runs import RunDirectory
from cxrfast.runs.lock import locked
from cxrfast.training import build_config, resume, train
from cxrfast.training.signals import SIGNALS, StopRequest
from tests.training.faults import run_in_child


def numbers(run):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in run.read_metrics()]


def same(run, other):
    pairs = [(load_file(a), load_file(b)) for a, b in ((run.best, other.best), (run.last, other.last))]
    return numbers(run) == numbers(other) and all(torch.equal(a[name], b[name]) for a, b in pairs for name in b)


def signal_at_call(monkeypatch, method, function, number, call):
    """The process gets a signal during this call of a function of the method."""
    cls = get_method(method)
    real, calls = getattr(cls, function), []

    def counted(*args, **options):
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return real(*args, **options)

    monkeypatch.setattr(cls, function, counted)


STOPS = [  # with 4 batches in an epoch: in the first epoch, after its last batch, in the second, in the next stage
    (signal.SIGTERM, 2),
    (signal.SIGUSR1, 4),
    (signal.SIGINT, 6),
    (signal.SIGTERM, 10),
]


@pytest.mark.parametrize(("number", "call"), STOPS)
def test_training_goes_on_with_the_next_batch(trained, small_settings, tmp_path, monkeypatch, logged, number, call):
    signal_at_call(monkeypatch, "rozenberg", "loss", number, call)
    with pytest.raises(Interrupted) as stop:
        train(build_config(small_settings), tmp_path / "run")
    monkeypatch.undo()
    assert stop.value.exit_code == (130 if number == signal.SIGINT else 75)
    assert (tmp_path / "run" / "partial.ckpt").exists()
    run = resume(tmp_path / "run")
    assert any(" and batch " in line for line in logged.messages)
    assert same(run, RunDirectory(trained))
    assert {path.name for path in run.path.iterdir()} == {path.name for path in trained.iterdir()}


@pytest.mark.parametrize("function", ["predict", "forward"])  # in validation; in the pass that fits thresholds
def test_it_goes_on_after_the_batches(trained, small_settings, tmp_path, monkeypatch, function):
    signal_at_call(monkeypatch, "rozenberg", function, signal.SIGTERM, 1 if function == "predict" else 6)
    with pytest.raises(Interrupted, match="stopped by SIGTERM; epoch 1 is saved after batch 4"):
        train(build_config(small_settings), tmp_path / "run")
    monkeypatch.undo()
    assert same(resume(tmp_path / "run"), RunDirectory(trained))


def test_it_may_be_stopped_again_and_again(trained, small_settings, tmp_path, monkeypatch):
    run = RunDirectory(tmp_path / "run")
    for _ in range(3):
        signal_at_call(monkeypatch, "rozenberg", "loss", signal.SIGTERM, 1)
        with pytest.raises(Interrupted):
            resume(run.path) if run.exists else train(build_config(small_settings), run.path)
        monkeypatch.undo()
    assert same(resume(run.path), RunDirectory(trained))


@pytest.fixture(scope="module")
def classifier(phantoms):
    """Its augmentation is drawn by two workers."""
    return {
        "method": "chexnet", "data": phantoms, "image_size": 64, "epochs": 2, "batch_size": 8, "device": "cpu",
        "workers": 2, "options": {"backbone": "densenet_nano", "output_stride": 8},
    }  # fmt: skip


def test_workers_repeat_what_they_drew(classifier, tmp_path, monkeypatch, logged):
    whole = train(build_config(classifier), tmp_path / "whole")
    for name, workers in (("same", 2), ("other", 0)):
        signal_at_call(monkeypatch, "chexnet", "loss", signal.SIGTERM, 6)
        with pytest.raises(Interrupted):
            train(build_config(classifier), tmp_path / name)
        monkeypatch.undo()
        again = resume(tmp_path / name, workers=workers)
        if workers == 2:
            assert same(again, whole)
    assert "workers: 2 before, 0 now; the epoch that was stopped after batch 2 starts again" in logged.messages


@pytest.mark.xfail(strict=True, reason="each worker draws the augmentation from a generator of its own")
def test_the_number_of_workers_does_not_change_the_numbers(classifier, tmp_path):
    runs = [train(build_config({**classifier, "epochs": 1, "workers": w}), tmp_path / str(w)) for w in (0, 2)]
    assert numbers(runs[0]) == numbers(runs[1])


def test_the_exit_code_and_the_line(small_settings, tmp_path):
    import yaml

    file, log = tmp_path / "settings.yaml", tmp_path / "log"
    file.write_text(yaml.safe_dump({**small_settings, "data": str(small_settings["data"])}))
    arguments = ["train", "--config", str(file), "--out", str(tmp_path / "run")]

    def prepare():
        signal_at_call(pytest.MonkeyPatch(), "rozenberg", "loss", signal.SIGUSR1, 3)

    assert run_in_child(arguments, log, prepare) == 75
    lines = log.read_text().splitlines()
    assert lines[-1] == "cxrfast: stopped by SIGUSR1; epoch 1 is saved after batch 3"
    assert f"Resume with: cxrfast train --resume {tmp_path / 'run'}" in lines[-2]
    assert "Traceback" not in log.read_text()


def test_a_second_interrupt_does_not_wait():
    request = StopRequest()
    before = [signal.getsignal(number) for number in SIGNALS]
    with request.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.number == signal.SIGTERM
    assert [signal.getsignal(number) for number in SIGNALS] == before
    request = StopRequest()
    with request.listening():
        os.kill(os.getpid(), signal.SIGINT)
        assert request.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_other_threads_leave_signals_alone():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def listen():
        with StopRequest().listening():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [before]


def test_two_do_not_train_in_one_folder(trained):
    with locked(RunDirectory(trained).lock), pytest.raises(CxrfastError, match=r"is in use by process \d+ on "):
        resume(trained)
