"""Our kernels on the current GPU: loaded from the images that are packed with the burn-in, started by name.

Each source of burnin/kernels is one image (NAME.fatbin) with machine code for several GPUs. One that has none for this
GPU is passed over: FP8 of another generation, for example.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from importlib import resources
from typing import Any

from burnin.device.cuda import NO_BINARY_FOR_GPU, SM_COUNT, Cuda, CudaError, CudaUnavailableError

_SUFFIX = ".fatbin"


def packaged_images() -> dict[str, bytes]:
    """The images beside this program, by name; none in a source tree, which has sources only."""
    folder = resources.files("burnin") / "kernels"
    if not folder.is_dir():
        return {}
    files = sorted((f for f in folder.iterdir() if f.name.endswith(_SUFFIX)), key=lambda f: f.name)
    return {f.name.removesuffix(_SUFFIX): f.read_bytes() for f in files}


class Kernels:
    """What can be started on the current GPU."""

    def __init__(self, cuda: Cuda, images: Mapping[str, bytes] | None = None) -> None:
        """Load `images`, by default the packaged ones. Raises CudaUnavailableError where there are none, CudaError."""
        self._cuda = cuda
        self.sms = cuda.attribute(SM_COUNT)
        self._functions: dict[str, int] = {}
        images = packaged_images() if images is None else images
        if not images:
            raise CudaUnavailableError("no kernels are packed with this burn-in: build it by `rackproof burnin`")
        self._modules: dict[str, int] = {}
        missing: CudaError | None = None
        for name, image in images.items():
            try:
                self._modules[name] = cuda.load_module(image)
            except CudaError as error:
                if error.code != NO_BINARY_FOR_GPU:
                    raise
                missing = error
        if not self._modules and missing is not None:
            raise missing

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the images that have code for this GPU."""
        return tuple(self._modules)

    def launch(
        self, name: str, blocks: int, *arguments: ctypes._SimpleCData[Any], threads: int = 256, stream: int = 0
    ) -> None:
        """Start the kernel `name` on `blocks` blocks; returns before it is done. Raises CudaError (`not_found`)."""
        self._cuda.launch(self._function(name), blocks, threads, arguments, stream)

    def _function(self, name: str) -> int:
        if name not in self._functions:
            self._functions[name] = self._look_up(name)
        return self._functions[name]

    def _look_up(self, name: str) -> int:
        missing: CudaError | None = None
        for module in self._modules.values():
            try:
                return self._cuda.function(module, name)
            except CudaError as error:
                missing = error
        assert missing is not None  # noqa: S101 - there is a module
        raise missing
