"""Write captured tensors to files."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lib_dumpunet.captures import Capture
from lib_dumpunet.errors import HostError, SettingsError
from lib_dumpunet.kinds import KINDS, Kind
from lib_dumpunet.sinks.base import Sink
from lib_dumpunet.sinks.files import FIELD, explain, prepare_folder
from lib_dumpunet.sinks.manifest import Manifest
from lib_dumpunet.sinks.request import DumpRequest
from lib_dumpunet.sinks.writers import WRITERS, Written


class DumpSink(Sink):
    """Write every capture of some ``kinds`` to a folder, with a ``manifest.json`` that lists the files.

    ``kinds`` None means all. Intermediate kinds (``is_passing`` in ``kinds.py``) are never written.

    - ``bin``: raw little-endian float32, one file for each channel (for attention: each index of the first axis), row
      by row.
    - ``npy``: one array for each tensor, such as a block's features "c h w" for each image and step, in the model's
      dtype; bfloat16, which NumPy lacks, becomes float32, which holds every value exactly.
    - ``safetensors``: one file for each image and step, with a tensor for each block in the model's dtype, and prompt,
      seed, sampler, block table and step as metadata; written once the last expected tensor has come, else at the end.

    Several runs can use the same folder without overwriting each other's files. ``bin`` names contain the run's start
    time, moved on by a second if another run has it; other names get ``-2``, ``-3`` ... from the second run on, like
    ``run`` in the manifest.

    Raises:
        SettingsError: if the folder cannot be used, or the format is unknown.
    """

    def __init__(
        self,
        folder: str | Path,
        file_format: str,
        request: DumpRequest,
        kinds: frozenset[Kind] | None = None,
    ) -> None:
        if file_format not in WRITERS:
            choices = ", ".join(WRITERS)
            raise SettingsError(f"{file_format!r} is not a format", remedy=f"Use {choices}.", field="Format")
        self._folder = prepare_folder(folder)
        self._kinds = {kind for kind in kinds or KINDS if not KINDS[kind].is_passing}
        self._count = threading.Lock()
        self._tensors = self._bytes = 0
        with self._as_user_error():
            self._manifest = Manifest(self._folder, {"format": file_format, **request.about_run()})
        writer = WRITERS[file_format]
        self._writer = writer(self._folder, request, self._manifest.run, self._manifest.started)

    @property
    def run(self) -> int:
        """Number of this run in its folder, from 1."""
        return self._manifest.run

    def accept(self, capture: Capture) -> None:
        """Write a capture, or keep it until its file is complete.

        Raises:
            HostError: if it cannot be written.
        """
        if capture.tag.kind not in self._kinds:
            return
        with self._as_user_error():
            for written in self._writer.put(capture.tag, capture.tensor.detach()):
                self._list(written)

    def close(self) -> None:
        """Write incomplete files and the final manifest.

        Raises:
            HostError: if they cannot be written.
        """
        with self._as_user_error():
            try:
                for written in self._writer.rest():
                    self._list(written)
            finally:
                self._manifest.close()

    def _list(self, written: Written) -> None:
        with self._count:
            self._tensors += len(written.entries)
            self._bytes += written.size
        self._manifest.add(written.entries)

    @contextmanager
    def _as_user_error(self) -> Iterator[None]:
        """Turn an OSError into a HostError that also says how much was written."""
        try:
            yield
        except OSError as error:
            problem, remedy = explain(error)
            done = f"{self._tensors} tensors ({self._bytes / 2**20:.1f} MiB) were written to {self._folder}"
            raise HostError(f"{problem}; {done} before", remedy=remedy, field=FIELD) from error
