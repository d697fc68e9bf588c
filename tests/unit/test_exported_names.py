"""The public surface: small, sorted, and light to import."""

import inspect
import subprocess
import sys

import pytest

import job


def printed(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'ray', 'transformers', 'numpy', 'pandas', 'pyarrow', 'PIL', 'datasets'}"
    assert printed(f"import sys, job; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_errors_and_options_load_without_the_engine() -> None:
    script = (
        "import sys; from job import JobConfig, JobError;"
        "print(sorted({'torch', 'ray', 'transformers'} & set(sys.modules)))"
    )
    assert printed(script) == "[]"


def test_public_names_are_sorted_and_every_one_resolves() -> None:
    assert job.__all__ == sorted(job.__all__)
    assert len(set(job.__all__)) == len(job.__all__)
    for name in job.__all__:
        found = getattr(job, name)
        assert found.__name__ == name
        assert found.__module__.startswith("job.")
        assert found.__doc__, name


def test_whatever_a_user_may_call_of_them_has_a_docstring() -> None:
    for name in job.__all__:
        for method, member in vars(getattr(job, name)).items():
            called = member.__func__ if isinstance(member, classmethod) else member
            if not method.startswith("_") and inspect.isfunction(called):
                assert called.__doc__, f"{name}.{method}"


def test_names_are_listed_by_dir() -> None:
    assert set(job.__all__) <= set(dir(job))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'job' has no attribute 'Nope'"):
        job.Nope  # noqa: B018
    with pytest.raises(ImportError, match="Nope"):
        exec("from job import Nope")


def test_submodules_are_reached_by_importing_them() -> None:
    assert (
        printed("from job.outputs.palette import palette; print(palette(['a']).shape)") == "(1, 3)"
    )


def test_star_import_brings_the_public_names_and_no_other() -> None:
    script = "from job import *; print(sorted(n for n in dir() if not n.startswith('_')))"
    assert printed(script) == str(job.__all__)
