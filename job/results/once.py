"""Once: whether each image has one map, and no error row that its runs would not have written."""

from collections.abc import Sequence

import numpy as np

from job.outputs import names
from job.results.committed_rows import FileRows
from job.results.verdict import Verdict

_SHOWN = 5


def check_once(files: Sequence[FileRows], verdict: Verdict) -> None:
    """See whether any image has more than it may have, wherever its rows lie.

    It may have one map in all of ``maps/``, and one error row of each run before the map's.

    Args:
        files: of ``maps/`` and ``errors/``.
        verdict: is told what is wrong.
    """
    maps = _Rows([file for file in files if file.name.startswith("maps/")])
    errors = _Rows([file for file in files if file.name.startswith("errors/")])
    twice = np.unique(maps.ids[1:][maps.ids[1:] == maps.ids[:-1]])
    _blame("images with more than one map", twice, [maps], verdict)
    runs, claims = _runs([*maps.all, *errors.all])
    of_map, of_error = runs[maps.files], runs[errors.files + len(maps.all)]
    order = np.lexsort((of_error, errors.ids))
    ids, run = errors.ids[order], of_error[order]
    again = (ids[1:] == ids[:-1]) & (run[1:] == run[:-1]) & (run[1:] >= 0)
    _blame("images with two error rows of one run", np.unique(ids[1:][again]), [errors], verdict)
    if not len(maps.ids):
        return
    places = np.searchsorted(maps.ids, errors.ids, "right") - 1
    both = (places >= 0) & (maps.ids[places] == errors.ids)
    both &= (of_map[places] >= 0) & (of_error >= 0)
    same = both & (of_map[places] == of_error)
    later = both & (claims[of_map[places]] < claims[of_error])
    for kind, which in (
        ("images with a map and an error row of one run", same),
        ("images with an error row later than their map", later),
    ):
        _blame(kind, np.unique(errors.ids[which]), [maps, errors], verdict)


class _Rows:
    """The rows of some files, by id.

    Attributes:
        all: the files.
        ids: of the rows, sorted.
        files: of each row its file, as a place in ``all``.
    """

    def __init__(self, files: Sequence[FileRows]) -> None:
        self.all = files
        ids = np.concatenate([np.empty(0, np.int64), *(file.ids for file in files)])
        lengths = np.array([len(file.ids) for file in files], np.int64)
        of = np.repeat(np.arange(len(files), dtype=np.int32), lengths)
        order = np.argsort(ids, kind="stable")
        self.ids, self.files = ids[order], of[order]

    def files_of(self, number: int) -> list[str]:
        begin, end = np.searchsorted(self.ids, [number, number + 1])
        return [self.all[place].name for place in self.files[begin:end]]


def _runs(files: Sequence[FileRows]) -> tuple[np.ndarray, np.ndarray]:
    """The run of each file, as a number (-1: not committed by any), and each run's claim, likewise.

    The numbers of claims are in their order; formats 1 and 2 had no claims, and all have the first.
    """
    parts = [names.parts_of(file.name) if file.is_committed else None for file in files]
    every = sorted({(names.order(part.claim), part.run_id) for part in parts if part})
    numbers = {run: number for number, run in enumerate(every)}
    runs = [numbers[names.order(part.claim), part.run_id] if part else -1 for part in parts]
    orders = {order: number for number, order in enumerate(sorted({order for order, _ in every}))}
    claims = [orders[order] for order, _ in every]
    return np.array(runs, np.int32), np.array(claims or [0], np.int32)


def _blame(kind: str, ids: np.ndarray, where: Sequence[_Rows], verdict: Verdict) -> None:
    named = []
    for number in ids[:_SHOWN].tolist():
        found = [name for rows in where for name in rows.files_of(number)]
        named.append(f"image {number}: {', '.join(dict.fromkeys(found))}")
    verdict.blame(kind, named, len(ids))
