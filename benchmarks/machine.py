"""The name of this machine, and its copy bandwidth and matrix-multiply throughput, which results are related to."""

import platform
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch

from cxrfast.benchmarks.measure import Call, Clock

_COPIED_BYTES = 256 * 2**20  # well over a core's own cache, and over a GPU's L2
_MATRIX = {"cpu": 2048, "cuda": 8192}  # rows of the product: enough to keep the device busy


@dataclass(frozen=True)
class Machine:
    device: str
    copy: float  # bytes read and written a second, into memory that is there already
    allocating_copy: float  # the same into new memory, which is what an operator's output is
    fma: float  # float32 multiplications and additions a second, of a large matrix product without TF32

    def limit(self, name: str) -> float:
        return {"copy": self.copy, "fma": self.fma}[name]


def measure_machine(device: torch.device, clock: Clock, quick: bool) -> Machine:
    size, side, rounds = (2**20, 256, 1) if quick else (_COPIED_BYTES, _MATRIX[device.type], 9)
    source = torch.ones(size // 4, device=device)
    target = torch.ones_like(source)
    matrix = torch.ones(side, side, device=device)
    product = torch.empty_like(matrix)

    def seconds(call: Call) -> float:
        call()
        return statistics.median(clock.seconds(call) for _ in range(rounds))

    return Machine(
        device=device_name(device),
        copy=2 * size / seconds(lambda: target.copy_(source)),
        allocating_copy=2 * size / seconds(source.clone),
        fma=2 * side**3 / seconds(lambda: torch.mm(matrix, matrix, out=product)),
    )


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    return model[1].strip() if model else platform.processor() or platform.machine()


def file_stem(device: str) -> str:
    """A device's name as that of a file: `Intel(R) Xeon(R) Processor` is intel-xeon-processor."""
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm|c)\)", " ", device.lower())).strip("-") or "unknown"
