"""The messages of an approval's form whose own code fails."""

from __future__ import annotations

import pytest
from django import forms

from durable_jobs.control.approval_decisions import form_failed
from durable_jobs.project_code import contained


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, ValueError])
def test_error_of_a_form_is_named_as_the_form_raised_it(
    kind: type[BaseException],
) -> None:
    with pytest.raises(Exception, match="no") as caught, contained():
        raise kind("no")
    told = form_failed(forms.Form, caught.value)
    assert f"failed: {kind.__name__}. Correct it." in told.message
