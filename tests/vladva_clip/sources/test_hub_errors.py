"""What of the Hub client's errors may be shown."""

import pytest

from vladva_clip.sources.hub_errors import SourceError, failed, shown

TOKEN = "hf_" + "a" * 20


def chained(outer: str, inner: str) -> Exception:
    try:
        try:
            raise OSError(inner)
        except OSError as error:
            raise RuntimeError(outer) from error
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("outer", "inner", "is_shown"),
    [("no", "why", True), (f"no: {TOKEN}", "why", False), ("no", f"Bearer {TOKEN}", False)],
)
def test_a_cause_is_shown_unless_it_or_its_own_cause_has_a_token(outer, inner, is_shown):
    error = chained(outer, inner)
    assert shown(error) is (error if is_shown else None)
    with pytest.raises(SourceError) as caught:
        raise failed("org/name did not come", "org/name", None, error) from shown(error)
    assert TOKEN not in str(caught.value) and "org/name did not come" in str(caught.value)
    assert caught.value.__suppress_context__ and (caught.value.__cause__ is None) is not is_shown
