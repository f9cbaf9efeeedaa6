"""The two tiers of a file's cases: `tests/run --fast` leaves out those marked slow (CONTRIBUTING.md says what is in which)."""
import pytest


def slow_but(fast, cases):
    """The cases of a parametrize (values, or tuples of them), all marked slow but those in `fast`."""
    cases, fast = list(cases), list(fast)
    unknown = [case for case in fast if case not in cases]
    assert not unknown, f"there are no cases {unknown}"
    return [case if case in fast else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow) for case in cases]
