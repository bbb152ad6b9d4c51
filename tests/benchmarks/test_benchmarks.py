"""The benchmarks run, compare what they say they compare, and write what they found. No test asks for a speed."""

import inspect
import itertools
import math
import sys

import pytest
import torch

import cxrfast.ops
from cxrfast.benchmarks import peers, results, runner
from cxrfast.benchmarks.case import BOTH, FORWARD, BenchmarkCase, Goal, Peer, Problem, Work
from cxrfast.benchmarks.machine import Machine, file_stem
from cxrfast.benchmarks.measure import Clock, difference, error_to_float64, extra_memory, in_turns, make_call
from cxrfast.benchmarks.plot import fastest_peers, plot_results
from cxrfast.benchmarks.registry import CASES, FAMILIES, select_cases
from cxrfast.cli.main import run as command
from cxrfast.errors import CxrfastError, UsageError
from tests.tolerances import TOLERANCES

CPU = torch.device("cpu")


def test_every_operator_has_a_case_and_a_call_overhead():
    operators = {name for name in cxrfast.ops.__all__ if inspect.isfunction(getattr(cxrfast.ops, name))}
    assert {case.operator for case in CASES} == operators
    assert {case.operator for case in FAMILIES["overhead"]} == operators


def test_names_are_unique_and_goals_belong_to_something():
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
    for case in CASES:
        assert set(case.goals) <= set(case.work)
        known = {"*", *(peer.name for peer in case.peers), *(peer.library for peer in case.peers)}
        for goal in case.goals.values():
            assert set(goal.ratios) <= known, case.name
        assert {peer.library for peer in case.peers} <= set(peers.LIBRARIES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_case_agrees_with_its_specification(case):
    problem = case.make(case.small_shape, CPU, torch.float64)
    for passes in case.work:
        assert error_to_float64(problem, passes, torch.float64) < 1e-9
    if not any(x.requires_grad for x in problem.inputs):
        assert BOTH not in case.work


def test_every_case_counts_its_work():
    for case in CASES:
        for passes, work in case.work.items():
            needed = {"copy": work.bytes(torch.float32), "fma": work.operations, "": 1}[case.limit]
            assert needed > 0, (case.name, passes)


def test_operations_of_the_published_case_are_those_of_its_formula():
    (case,) = select_cases(["pac_crf/full/48x14x20x20/k19"])
    pairs = sum(20 - abs(offset) for offset in range(-9, 10)) ** 2
    messages, distances = 2 * 48 * pairs * 5 * 14 * 14, 48 * pairs * 64
    assert case.work[FORWARD].operations == messages + distances
    assert messages == pytest.approx(7.9e9, rel=0.01)
    assert case.work[BOTH].operations == 3 * case.work[FORWARD].operations


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    """Run `cxrfast bench` in an empty folder: cli("blur_pool", …) -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()

    def call(*arguments):
        code = command(["bench", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield call
    torch.set_num_threads(threads)


def test_a_run_writes_every_column(cli, tmp_path):
    selection = ["overhead/blur_pool2d", "pac_crf/full/2*", "mil_pool/max/*", "component_boxes/64x14x20*"]
    code, out, err = cli(*selection, "--quick", "--device=cpu", "--peers=aten,unfold,opencv", "--threads=1", "--plot")
    assert code == 0, err
    (path,) = (tmp_path / "results").glob("*.csv")
    assert f"written: {path.relative_to(tmp_path)}" in out
    assert path.with_suffix(".png").stat().st_size > 10_000
    assert path.read_text().splitlines()[0].split(",") == results.COLUMNS
    rows = results.read(path)
    assert {row.case for row in rows} == {case.name for case in select_cases(selection) if "cpu" in case.devices}
    assert {row.threads for row in rows} == {1}
    assert {row.dtype for row in rows} == {"float32"}
    for row in rows:
        assert row.median_ms > 0
        assert row.lower_quartile_ms <= row.median_ms <= row.upper_quartile_ms
        assert row.ratio > 0
        assert row.torch == torch.__version__
        assert row.extra_mb is None or row.extra_mb >= 0
        if row.implementation == results.OURS:
            assert row.error < TOLERANCES[torch.float32][0]
        elif not row.note.startswith("not the same function"):
            assert row.error < 1e-3
            assert row.note == ""
    assert {row.implementation for row in rows} >= {"aten (avg_pool2d)", "unfold", "opencv (boxes, scores)"}


def test_a_second_run_replaces_its_own_lines_only(cli, tmp_path):
    for case in ("overhead/mil_pool", "overhead/region_sums", "overhead/mil_pool"):
        assert cli(case, "--quick", "--device=cpu", "--peers=none", "--out=here")[0] == 0
    (path,) = (tmp_path / "here").glob("*.csv")
    found = [(row.case, row.passes) for row in results.read(path)]
    assert sorted(found) == [(f"overhead/{name}", p) for name in ("mil_pool", "region_sums") for p in (FORWARD, BOTH)]


def test_a_missing_peer_is_named(cli, monkeypatch, tmp_path):
    library = peers.Library("a_module_that_nobody_has", "pip install something")
    monkeypatch.setitem(peers.LIBRARIES, "opencv", library)
    code, out, err = cli("component_boxes/64x14x20x20", "--quick", "--device=cpu", "--peers=opencv")
    assert code == 0, err
    assert "opencv: not installed; pip install something" in out
    (path,) = (tmp_path / "results").glob("*.csv")
    notes = {row.implementation: row.note for row in results.read(path)}
    assert notes["opencv (labels alone)"] == "not installed; pip install something"


def test_a_broken_or_different_peer_is_said_and_does_not_stop_the_run(tmp_path, monkeypatch, logged):
    def broken(problem):
        raise ImportError("libsomething.so:\nnot found")

    case = BenchmarkCase(
        name="doubling",
        operator="none",
        shape=(4,),
        small_shape=(4,),
        make=lambda shape, device, dtype: Problem((torch.ones(shape, dtype=dtype),), lambda x: 2 * x, lambda x: 2 * x),
        work={FORWARD: Work(8)},
        limit="copy",
        peers=(
            Peer("kornia", broken, devices=("cpu",)),
            Peer("aten", lambda problem: lambda x: 3 * x),
            Peer("unfold", lambda problem: lambda x: x + x, memory={FORWARD: 2**60}),
            Peer("compiled", lambda problem: lambda x: x + x),
        ),
        goals={FORWARD: Goal({"compiled": 0.0, "*": 1e9})},
    )
    monkeypatch.setitem(peers.LIBRARIES, "kornia", peers.Library(None, ""))
    monkeypatch.setattr(runner, "measure_machine", lambda *arguments: Machine("test", 1e9, 1e9, 1e9))
    path = runner.run([case], runner.BenchmarkSettings(CPU, torch.float32, list(peers.LIBRARIES)), tmp_path)
    rows = {row.implementation: row for row in results.read(path)}
    assert rows["kornia"].note == "failed: ImportError: libsomething.so: not found"
    assert rows["aten"].note == "its result differs by 0.3"
    assert rows["unfold"].note.startswith("skipped: needs about 1152921504.6 GB")
    assert rows["compiled"].note == ""
    assert rows["cxrfast"].fraction_of_limit > 0
    assert "goal 0×: met" in next(line for line in logged.messages if line.startswith("  compiled"))
    assert "MISSED" in next(line for line in logged.messages if line.startswith("  aten"))
    assert [row.implementation for row in fastest_peers(list(rows.values()))] == ["compiled"]


def test_list_and_help(cli):
    code, out, _ = cli("--list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [case.name for case in CASES]
    code, out, _ = cli("--help")
    assert code == 0
    for option in ("--quick", "--peers", "--peer-path", "--threads", "--dtype", "--device", "--out", "--plot"):
        assert option in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["blurpool"], "cases: unknown 'blurpool'; did you mean blur_pool? Known: pac_crf, blur_pool, mil_pool"),
        (["blur_pool/*x*"], "cases: unknown 'blur_pool/*x*'"),
        (["--peers=kornja"], "peers: expected some of aten, compiled,"),
        (["--dtype=int8"], "dtype: expected one of float32, float64, float16, bfloat16, got 'int8'"),
        (["--peer-path=nowhere"], "peer-path: expected a folder, got nowhere"),
        (["--device=gpu"], "device"),
        (["--threads=0"], "threads"),
    ],
)
def test_wrong_usage_is_one_line(cli, arguments, message, tmp_path):
    code, _, err = cli(*arguments)
    assert (code, err.count("\n")) == (2, 1), err
    assert message in err
    assert not (tmp_path / "results").exists()


def test_selection():
    assert select_cases([]) == CASES
    assert select_cases(["overhead", "mil_pool"]) == FAMILIES["mil_pool"] + FAMILIES["overhead"]
    assert {case.operator for case in select_cases(["max_blur_pool2d"])} == {"max_blur_pool2d"}
    with pytest.raises(UsageError):
        select_cases(["nothing"])


def test_a_peer_can_come_from_a_folder(cli, tmp_path, monkeypatch):
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "paccrf.py").write_text("raise ImportError('an old torch is needed')")
    monkeypatch.setattr(sys, "path", list(sys.path))
    code, out, err = cli("pac_crf/full/2*", "--quick", "--device=cpu", "--peers=paccrf", "--peer-path=published")
    assert code == 0, err
    assert "failed: ImportError: an old torch is needed" in out


def test_difference():
    a, b = torch.tensor([1.0, -4.0]), torch.tensor([1.5, -4.0])
    assert difference(a, b) == 0.125
    assert difference((a, a), (a, b)) == 0.125
    assert difference(a, a[:1]) == math.inf
    assert difference(a, (a, a)) == math.inf
    assert difference(a.new_empty(0), a.new_empty(0)) == 0


def test_passes():
    x = torch.tensor([2.0, 3.0], requires_grad=True)
    assert not make_call(lambda x: x * x, (x,), FORWARD, torch.float32)().requires_grad
    both = make_call(lambda x: (x * x, x.detach()), (x,), BOTH, torch.float32)
    (value, gradient), (_, again) = both(), both()
    assert value.tolist() == [4, 9]
    assert gradient.shape == x.shape
    assert torch.equal(gradient, again)  # the same incoming gradient every time
    assert x.grad is None


def test_calls_are_timed_in_turns():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    times = in_turns(calls, Clock(CPU), budget=0, at_most=4, launches=False)
    assert [len(each) for each in times.values()] == [4, 4]
    turns = [name for name, _ in itertools.groupby(order)]
    assert "".join(turns) == "ababa"  # a b, b a, a b, b a


def test_extra_memory_sees_a_buffer_that_is_gone_afterwards():
    size = 64 * 2**20
    grown = extra_memory(lambda: torch.ones(size // 4).sum(), CPU)
    if grown is None:
        pytest.skip("the peak of a process can be reset only on Linux")
    assert 0.9 * size < grown < 1.5 * size
    assert extra_memory(lambda: torch.ones(10).sum(), CPU) < size / 8


def test_file_stem():
    assert file_stem("Intel(R) Xeon(R) Processor") == "intel-xeon-processor"
    assert file_stem("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    assert file_stem("???") == "unknown"


def test_a_foreign_file_is_refused(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CxrfastError, match=r"other\.csv is not a result of cxrfast bench"):
        plot_results(tmp_path / "other.csv")
