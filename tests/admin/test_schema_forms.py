"""A pydantic model as a form: one field each, with the model's errors."""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from django import forms
from django.db import models
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    RootModel,
    field_validator,
    model_validator,
)

from durable_jobs import serialization
from durable_jobs.admin.forms import JSONText, SchemaForm, form_for, read


class Speed(Enum):
    """A speed."""

    SLOW = 1
    VERY_FAST = 2


class Colour(models.TextChoices):
    """A colour."""

    RED = "red", "Deep red"
    BLUE = "blue", "Pale blue"


class Refund(BaseModel):
    """The data of a refund."""

    amount: Decimal = Field(gt=0, le=500, description="At most 500 < the total")
    reason: Literal["broken", "late"]
    note: str = "none"
    notify: bool = True
    insured: bool | None = None
    retries: int = Field(3, ge=0, title="How often")
    weight: float | None = None
    day: date | None = None
    at: datetime | None = None
    opens: time | None = None
    speed: Speed = Speed.SLOW
    colour: Colour | None = None
    token: UUID | None = None
    link: HttpUrl | None = None
    lines: list[int] = Field(default_factory=lambda: [1, 2])


FULL = {
    "amount": "19.90",
    "reason": "late",
    "note": "",
    "insured": "false",
    "retries": "5",
    "weight": "1.5",
    "day": "2026-03-01",
    "at": "2026-03-01T10:00:00",
    "opens": "08:30",
    "speed": "2",
    "colour": "blue",
    "token": str(UUID(int=7)),
    "link": "https://example.com/a",
    "lines": "[3, 4]",
}


def bound(model: type[BaseModel], data: dict[str, Any]) -> SchemaForm:
    return form_for(model)(data)


def said(model: type[BaseModel], data: dict[str, Any]) -> Any:
    form = bound(model, data)
    assert form.is_valid(), form.errors.as_json()
    return model.model_validate(read(form))


def errors(model: type[BaseModel], data: dict[str, Any]) -> dict[str, list[str]]:
    form = bound(model, data)
    assert not form.is_valid()
    return {name: list(map(str, found)) for name, found in form.errors.items()}


def test_every_type_has_its_field():
    kinds = {name: type(one) for name, one in form_for(Refund).base_fields.items()}
    assert kinds == {
        "amount": forms.DecimalField,
        "reason": forms.TypedChoiceField,
        "note": forms.CharField,
        "notify": forms.BooleanField,
        "insured": forms.NullBooleanField,
        "retries": forms.IntegerField,
        "weight": forms.FloatField,
        "day": forms.DateField,
        "at": forms.DateTimeField,
        "opens": forms.TimeField,
        "speed": forms.TypedChoiceField,
        "colour": forms.TypedChoiceField,
        "token": forms.CharField,
        "link": forms.CharField,
        "lines": JSONText,
    }


def test_input_becomes_an_instance_of_the_model():
    found = said(Refund, FULL)
    assert found.amount == Decimal("19.90")
    assert found.reason == "late"
    assert found.note == ""
    assert found.notify is False
    assert found.insured is False
    assert found.retries == 5
    assert found.weight == 1.5
    assert found.day == date(2026, 3, 1)
    assert found.at.utcoffset() is not None
    assert found.at.replace(tzinfo=None) == datetime(2026, 3, 1, 10)  # noqa: DTZ001  # the wall's
    assert found.opens == time(8, 30)
    assert found.speed is Speed.VERY_FAST
    assert found.colour is Colour.BLUE
    assert found.token == UUID(int=7)
    assert str(found.link) == "https://example.com/a"
    assert found.lines == [3, 4]


def test_input_can_be_stored_and_is_not_rounded():
    form = bound(Refund, FULL)
    assert form.is_valid()
    kept = read(form)
    assert kept["amount"] == "19.90"
    assert serialization.loads(serialization.dumps(kept, what="it")) == kept


def test_empty_input_is_the_default_or_none():
    found = said(Refund, {"amount": "1", "reason": "late", "speed": "1"})
    assert found.retries == 3
    assert found.lines == [1, 2]
    assert found.weight is None
    assert found.colour is None
    assert found.insured is None
    assert found.at is None


def test_form_shows_titles_help_and_defaults():
    html = form_for(Refund)().as_p()
    assert "How often" in html
    assert "At most 500 &lt; the total" in html
    assert 'value="3"' in html
    assert 'max="500"' in html
    assert "Deep red" in html
    assert "VERY FAST" in html
    assert "checked" in html
    required = [n for n, f in form_for(Refund).base_fields.items() if f.required]
    assert required == ["amount", "reason"]


def test_validation_is_the_models_and_its_messages_are_at_the_field():
    found = errors(Refund, FULL | {"amount": "0", "lines": '[1, "x"]', "token": "7"})
    assert set(found) == {"amount", "lines", "token"}
    assert "greater than 0" in found["amount"][0]
    assert found["lines"][0].startswith("1: ")


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"amount": "much"}, "amount"),
        ({"amount": "NaN"}, "amount"),
        ({"amount": ""}, "amount"),
        ({"reason": "other"}, "reason"),
        ({"reason": ""}, "reason"),
        ({"retries": "1.5"}, "retries"),
        ({"retries": "9" * 5000}, "retries"),
        ({"weight": "inf"}, "weight"),
        ({"day": "2026-02-30"}, "day"),
        ({"at": "yesterday"}, "at"),
        ({"speed": "3"}, "speed"),
        ({"note": "a\x00b"}, "note"),
        ({"lines": "[1,"}, "lines"),
        ({"lines": "[NaN]"}, "lines"),
        ({"lines": "[" * 200 + "]" * 200}, "lines"),
        ({"lines": '{"a": 1, "a": 2}'}, "lines"),
        ({"lines": '["\\u0000"]'}, "lines"),
    ],
)
def test_invalid_input_is_one_error_of_its_field(wrong, name):
    found = errors(Refund, FULL | wrong)
    assert list(found) == [name]
    assert len(found[name]) == 1


class Address(BaseModel):
    """A nested model."""

    city: str
    zip: str = Field(pattern=r"^\d{5}$")


class Parcel(BaseModel):
    """Nested models, aliases, and custom validators."""

    model_config = ConfigDict(extra="forbid")

    to: Address
    sender: str = Field(alias="from")
    width: int = Field(validation_alias=AliasChoices("w", "width"))
    height: Annotated[int, Field(gt=0)] | None = None

    @field_validator("width")
    @classmethod
    def even(cls, value: int) -> int:
        """Refuse odd numbers."""
        if value % 2:
            raise ValueError("odd <b>widths</b> do not fit")
        return value

    @model_validator(mode="after")
    def flat(self) -> Parcel:
        """Refuse high numbers."""
        if self.height and self.height > self.width:
            raise ValueError("higher than wide")
        return self


def test_nested_model_is_json_and_its_errors_have_a_place():
    good = {"to": '{"city": "Ulm", "zip": "89073"}', "sender": "me", "width": "2"}
    assert said(Parcel, good).to.city == "Ulm"
    found = errors(Parcel, good | {"to": '{"city": "Ulm", "zip": "x"}'})
    assert found["to"][0].startswith("zip: ")


def test_data_has_the_names_that_the_model_reads():
    form = bound(Parcel, {"to": "{}", "sender": "me", "width": "2"})
    assert not form.is_valid()
    good = {"to": '{"city": "Ulm", "zip": "89073"}', "sender": "me", "width": "2"}
    form = bound(Parcel, good)
    assert form.is_valid()
    assert set(read(form)) == {"to", "from", "w", "height"}


def test_validators_speak_at_their_field_or_above_the_form_and_are_escaped():
    good = {"to": '{"city": "Ulm", "zip": "89073"}', "sender": "me", "width": "2"}
    form = bound(Parcel, good | {"width": "3"})
    assert "width" in form.errors
    assert "<b>widths" not in form.as_p()
    assert "higher than wide" in errors(Parcel, good | {"height": "4"})["__all__"][0]


def test_prefix_separates_the_inputs_of_two_forms():
    form = form_for(Parcel)({"it-width": "3"}, prefix="it")
    assert 'name="it-width"' in form.as_p()
    assert "odd" in str(form.errors["width"])


def test_root_model_is_one_input():
    class Names(RootModel[list[str]]):
        pass

    assert said(Names, {"root": '["a"]'}).root == ["a"]
    form = bound(Names, {"root": '["a"]'})
    assert form.is_valid()
    assert form.payload == ["a"]


def test_form_is_filled_with_existing_data_even_if_invalid():
    now = "2026-03-01T10:00:00+00:00"
    data = {"amount": "7.5", "reason": "late", "lines": ["x"], "at": now, "more": 1}
    html = form_for(Refund).filled(data).as_p()
    assert 'value="7.5"' in html
    assert "&quot;x&quot;" in html
    assert 'value="late" selected' in html
    assert "T10:00:00" in html or "2026-03-01T" in html
    assert form_for(Refund).filled(["nothing", "like", "it"]).as_p()


def test_value_needs_a_valid_form():
    with pytest.raises(ValueError, match="Expected a valid form"):
        read(bound(Refund, {}))
