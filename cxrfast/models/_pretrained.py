"""What loading pretrained weights says when it cannot, from whichever library they come."""

from pathlib import Path

from cxrfast.errors import CxrfastError


def weights_file(name: str, path: str) -> Path:
    """The file of `--pretrained PATH`; CxrfastError unless it is a safetensors file."""
    file = Path(path)
    if file.suffix != ".safetensors" or not file.is_file():
        raise CxrfastError(f"pretrained: expected a .safetensors file of {name}, got {path}")
    return file


def cannot_load(name: str, error: Exception) -> CxrfastError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return CxrfastError(
        f"pretrained: cannot load weights for {name} ({reason}); connect to the network once, give a .safetensors "
        "file, or leave --pretrained out to start from random weights"
    )
