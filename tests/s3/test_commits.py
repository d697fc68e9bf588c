"""Commits: nothing double or half after any crash, on S3 as well."""

import itertools

from job.errors import JobError
from job.outputs.claims import OutputClaim
from job.outputs.commits import Commits
from job.storage.opening import locate
from tests.conftest import S3
from tests.faults import FaultyProxy
from tests.runs import RUNS, Hands, attempt, expecting, ids_in, run
from tests.unit.test_commits import COMMITTED, MAPS, PENDING, leave


def test_recovery_works_on_s3_as_well(s3: S3) -> None:
    place = locate("s3://bucket/recovered")
    names = [name.replace("000000", "000001") for name in (COMMITTED, MAPS)]
    leave(place, PENDING, MAPS, *names)
    (place / "maps" / "notes.txt").write_bytes(b"mine")
    assert run(place, range(4), failed=[3]).done().tolist() == [1, 2]
    assert names[1].removeprefix("maps/") in (place / "maps").names()
    assert MAPS.removeprefix("maps/") not in (place / "maps").names()
    assert "notes.txt" in (place / "maps").names()
    assert Commits.read(place).done().tolist() == [0, 1, 2, 3]
    assert (place / "attempts").names() == []


def test_a_commit_whose_requests_are_cut_off_anywhere_is_whole_or_nothing(s3: S3) -> None:
    whole = []
    with FaultyProxy(s3.endpoint) as proxy:
        for number in itertools.count():
            output = locate(f"s3://bucket/cut-{number}")
            with OutputClaim(output, RUNS[0], clock=Hands()) as claim:
                ours = attempt(output, claim, range(4), failed=[1])
                cut_off = locate(output.uri, proxy.options)
                claim._output = cut_off
                proxy.rules.clear()
                proxy.refuse(403, "*", "bucket/cut-", after=number)
                committer = expecting(cut_off, claim, range(4))
                try:
                    committer.commit([ours])
                except (JobError, OSError):
                    pass
                else:
                    break
                claim._output = output
            committed = Commits.read(output).done().tolist()
            whole.append(committed == [0, 1, 2, 3])
            assert whole[-1] or not committed
            assert not committer.maps or whole[-1]
            assert run(output, range(5), run_id=RUNS[1]).done().tolist() == committed
            assert sorted([*ids_in(output, "maps"), *ids_in(output, "errors")]) == list(range(5))
    assert whole == sorted(whole)
    assert {True, False} == set(whole)
