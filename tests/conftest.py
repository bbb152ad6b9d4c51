"""Fixtures shared by all tests."""

import logging
import os
from pathlib import Path

import pytest
from hypothesis import settings

# No test measures time: a busy machine is not a failure. A change is not to fail in CI by the luck of the draw;
# everywhere else every run draws new examples.
settings.register_profile("anywhere", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "anywhere")


@pytest.fixture
def logged(caplog) -> pytest.LogCaptureFixture:
    """What the package logs from INFO on; `logged.messages` has the lines."""
    caplog.set_level(logging.INFO, logger="cxrfast")
    return caplog


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of public data that lies beside the project; tests that need it skip where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CXRFAST_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no public test data in {folder}; set CXRFAST_TEST_DATA to where it lies")
    return folder


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> Path:
    """A data set of 40 phantoms with 64 pixels a side, in the layout of ChestX-ray14. Not to be changed."""
    from cxrfast.data import write_phantoms

    folder = tmp_path_factory.mktemp("data") / "phantoms"
    return write_phantoms(folder, images=40, image_size=64, boxed_fraction=0.6, seed=3, progress=False)


@pytest.fixture(scope="session")
def small_options() -> dict[str, object]:
    """Options of the patch methods with which a network trains in seconds."""
    return {"backbone": "resnetv2_nano", "grid": 8, "hidden": 16, "output_stride": 8}


@pytest.fixture(scope="session")
def small_settings(phantoms, small_options) -> dict[str, object]:
    """Settings of a run of rozenberg that takes seconds."""
    options = {**small_options, "guide_channels": 4, "crf_kernel_size": 5, "crf_epochs": 1, "fit_every": 1}
    return {
        "method": "rozenberg",
        "data": phantoms,
        "image_size": 64,
        "epochs": 2,
        "batch_size": 8,
        "device": "cpu",
        "options": options,
    }


@pytest.fixture(scope="session")
def trained(small_settings, tmp_path_factory) -> Path:
    """The folder of a finished run on the phantoms. Not to be changed."""
    from cxrfast.training import build_config, train

    return train(build_config(small_settings), tmp_path_factory.mktemp("runs") / "run").path
