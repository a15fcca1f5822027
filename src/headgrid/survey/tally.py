"""Findings of parts -> the survey so far, which can be saved and taken up again."""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headgrid.capture.files import replace_file
from headgrid.capture.folders import Place
from headgrid.capture.quantiles import QuantileSketch
from headgrid.capture.statistic import STATISTICS
from headgrid.errors import CaptureError, HeadgridError
from headgrid.survey.moments import CaptureMoments
from headgrid.survey.parts import COLUMNS, Failed, Findings, Form, Measured
from headgrid.survey.spool import Spool

_STATE = "state.npz"
_ROWS = "rows.bin"


class Tally:
    """What a survey knows after some of its parts.

    Memory grows with the number of layers and sets. Of every file it keeps a
    digest and two numbers; its rows lie in the spool.

    Parameters
    ----------
    folder : Path, optional
        Where rows and saved states lie; by default in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.sources: list[str] = []
        self.places: list[Place] = []
        self.parts = 0
        self.order = array("q")  # of each record in the spool: the number of its file
        self.layers = array("q")  # of each file; -1 where it is not read yet, or not usable
        self.digests: list[str] = []
        self.form: Form | None = None
        self.moments: dict[tuple[str, int], CaptureMoments] = {}
        self.sketch = QuantileSketch.of([])
        self.value_range = math.inf, -math.inf
        self.failures: dict[int, HeadgridError] = {}
        self.odd: dict[str, tuple[int, int]] = {}  # a warning: its first file, how many files
        self.spool = Spool(len(COLUMNS), None if folder is None else folder / _ROWS)
        self._first: dict[tuple[Place, int], int] = {}
        self._first_of_form = 0
        self._whole = True

    def expect(self, source: str, place: Place) -> int:
        """Make room for one more file; return its number.

        Parameters
        ----------
        source : str
            The file, for messages.
        place : Place
            Of which set and run it is.
        """
        self.sources.append(source)
        self.places.append(place)
        self.layers.append(-1)
        self.digests.append("")
        return len(self.sources) - 1

    def add(self, findings: Findings) -> None:
        """Take up what the next part has found.

        Raises
        ------
        CaptureError
            Where a capture can not be compared with the others, or is there twice.
        OutputError
            Where its rows can not be written.
        """
        self._whole = False
        for number, form in findings.forms:
            self._check_form(number, form)
        for found in findings.files:
            self.digests[found.number] = found.digest
            if isinstance(found, Failed):
                self.failures[found.number] = found.error
            else:
                self._add_capture(found)
        for layer, moments in findings.moments.items():
            key = self.places[findings.files[0].number].set, layer
            known = self.moments.get(key)
            self.moments[key] = known.merge(moments) if known else moments
        self.sketch = self.sketch.merge(findings.sketch)
        low, high = findings.value_range
        self.value_range = min(low, self.value_range[0]), max(high, self.value_range[1])
        self.parts += 1
        self._whole = True

    def _add_capture(self, found: Measured) -> None:
        place = self.places[found.number]
        first = self._first.setdefault((place, found.layer), found.number)
        if first != found.number:
            both = f"{self.sources[first]} and {self.sources[found.number]}"
            where = f"{place.text}, " if place.text else ""
            raise CaptureError(
                f"{both} are both {where}layer {found.layer}, expected one capture for each set, "
                "run and layer; leave one out, or give the runs other names (their folders, or "
                "capture.replace(run=...))"
            )
        self._expect_mean(found, place)
        self.layers[found.number] = found.layer
        self.order.append(found.number)
        self.spool.append(found.record)
        for text in found.warnings:
            number, count = self.odd.get(text, (found.number, 0))
            self.odd[text] = min(number, found.number), count + 1

    def _expect_mean(self, found: Measured, place: Place) -> None:
        """Refuse a second run of what has no mean over runs."""
        if self.form is None or STATISTICS[self.form.statistic].has_mean:
            return
        for (other, layer), number in self._first.items():
            if layer == found.layer and other.set == place.set and number != found.number:
                raise CaptureError(
                    f"{self.sources[number]} and {self.sources[found.number]} hold "
                    f"{self.form.statistic} of several runs, which has no mean over runs; survey "
                    "the captures that they were made of"
                )

    def _check_form(self, number: int, form: Form) -> None:
        if self.form is None:
            self.form, self._first_of_form = form, number
        for what, mine, theirs in self.form.differences(form):
            first = self.sources[self._first_of_form]
            raise CaptureError(
                f"{first} and {self.sources[number]} differ in {what}: {mine} and {theirs}; "
                "expected captures that can be compared, so survey them separately"
            )

    @property
    def warnings(self) -> list[str]:
        """What was odd in the files, once for each kind, in the order of the files."""
        texts = []
        for text, (number, count) in sorted(self.odd.items(), key=lambda item: item[1]):
            more = f" (and {count - 1:,} more files)" if count > 1 else ""
            texts.append(f"{self.sources[number]}: {text}{more}")
        return texts

    def save(self, fingerprint: str) -> None:
        """Write the state to the folder, whole or not at all; not amid `add`.

        Raises
        ------
        OutputError
            Where that is not possible.
        """
        if self.folder is None or not self._whole:
            return
        self.spool.flush()
        arrays: dict[str, npt.NDArray[Any]] = {
            "order": np.asarray(self.order),
            "layers": np.asarray(self.layers),
            "about": _pack({"fingerprint": fingerprint, **self._describe()}),
        }
        arrays |= {f"sketch/{name}": value for name, value in self.sketch.to_arrays().items()}
        for position, moments in enumerate(self.moments.values()):
            for name, value in moments.to_arrays().items():
                arrays[f"{position}/{name}"] = value
        arrays["checksum"] = np.asarray(_checksum(arrays))
        with replace_file(self.folder / _STATE) as file:
            np.savez(file, allow_pickle=False, **arrays)

    def _describe(self) -> dict[str, Any]:
        return {
            "parts": self.parts,
            "digests": self.digests,
            "form": None if self.form is None else asdict(self.form),
            "first_of_form": self._first_of_form,
            "value_range": self.value_range,
            "failures": {
                number: [type(error).__name__, str(error)]
                for number, error in self.failures.items()
            },
            "odd": self.odd,
            "moments": list(self.moments),
            "spool": [self.spool.count, self.spool.rows, self.spool.checksum],
        }

    def take_up(self, fingerprint: str) -> bool:
        """Continue from the state that the folder holds.

        Returns
        -------
        bool
            Whether there was one, whole and with this fingerprint. Otherwise
            nothing has changed.
        """
        if self.folder is None:
            return False
        try:
            with np.load(self.folder / _STATE, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            if str(arrays.pop("checksum")) != _checksum(arrays):
                return False
            about = _unpack(arrays["about"])
            if about["fingerprint"] != fingerprint or not self.spool.keep(*about["spool"]):
                return False
            self._restore(about, arrays)
        except Exception:  # noqa: BLE001 - a file that `save` did not write can fail in any way
            return False
        return True

    def _restore(self, about: dict[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        sketch = QuantileSketch.from_arrays(_below(arrays, "sketch"))
        moments = {
            (str(set), int(layer)): CaptureMoments.from_arrays(_below(arrays, str(position)))
            for position, (set, layer) in enumerate(about["moments"])
        }
        form = None if about["form"] is None else _read_form(about["form"])
        self.sketch, self.moments, self.form = sketch, moments, form
        self.order = array("q", arrays["order"].tolist())
        self.layers = array("q", arrays["layers"].tolist())
        self.digests = about["digests"]
        self._first_of_form = about["first_of_form"]
        self.value_range = about["value_range"][0], about["value_range"][1]
        self.failures = {
            int(number): (CaptureError if kind == "CaptureError" else HeadgridError)(text)
            for number, (kind, text) in about["failures"].items()
        }
        self.odd = {text: (first, count) for text, (first, count) in about["odd"].items()}
        self._first = {
            (self.places[number], layer): number
            for number, layer in enumerate(self.layers)
            if layer >= 0
        }
        self.parts = about["parts"]


def _below(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> dict[str, npt.NDArray[Any]]:
    return {key.partition("/")[2]: arrays[key] for key in arrays if key.partition("/")[0] == name}


def _checksum(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return what tells whether any name, shape, type or value has changed."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {arrays[name].shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _pack(value: Any) -> npt.NDArray[np.uint8]:
    return np.frombuffer(json.dumps(value).encode("ascii"), dtype=np.uint8)


def _unpack(packed: npt.NDArray[np.uint8]) -> dict[str, Any]:
    value = json.loads(packed.tobytes())
    if not isinstance(value, dict):
        raise TypeError("a saved state is a JSON object")
    return value


def _read_form(value: dict[str, Any]) -> Form:
    lists: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
    return Form(**lists)
