"""Build Django forms from pydantic models, with one form field per model field.

Types without a form field, such as lists and nested models, become JSON in a text area.
The form only parses its inputs. The model validates the values, and its errors are
shown at the fields that they belong to.
"""

from __future__ import annotations

import enum
import functools
import json
import operator
import types
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Union, cast, get_args, get_origin
from uuid import UUID

from django import forms
from django.contrib.admin import widgets
from django.utils.dateparse import parse_datetime
from django.utils.html import escape
from django.utils.translation import gettext_lazy as _
from pydantic import AliasChoices, BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from durable_jobs.conf import settings
from durable_jobs.exceptions import DurableError
from durable_jobs.http_input import read_json

#: The input is empty, so the model's default applies.
_UNSET: Any = object()
#: HTML attributes of pydantic constraints.
_ATTRIBUTES = {
    "ge": "min",
    "le": "max",
    "multiple_of": "step",
    "max_length": "maxlength",
}


class Reason(forms.Form):
    """A form that asks for the reason of a change."""

    reason = forms.CharField(
        label=_("Reason"),
        required=False,
        max_length=500,
        help_text=_("Shown to other users and kept in the history."),
        widget=forms.TextInput(attrs={"class": "vTextField"}),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("label_suffix", "")
        super().__init__(*args, **kwargs)


class JSONText(forms.CharField):
    """JSON in a text area, parsed as strictly as input from the network."""

    widget = forms.Textarea(
        attrs={
            "rows": 10,
            "class": "vLargeTextField durable-code",
            "spellcheck": "false",
        }
    )

    def clean(self, value: Any) -> Any:
        """Return the parsed JSON, or None if the input is blank."""
        text = super().clean(value)
        if not text.strip():
            return None
        try:
            return read_json(
                text.encode(errors="replace"),
                what=str(_("the text")),
                most=settings.MAX_REQUEST_BYTES,
            )
        except DurableError as error:
            raise forms.ValidationError(error.message) from None


class SchemaForm(forms.Form):
    """The base class of forms that ``form_for`` builds."""

    schema: ClassVar[type[BaseModel]]
    names: ClassVar[dict[str, str]]
    nullable: ClassVar[frozenset[str]]
    text_fields: ClassVar[frozenset[str]]

    @classmethod
    def filled(cls, payload: Any, **kwargs: Any) -> SchemaForm:
        """Return a form filled with a payload, which may be invalid."""
        known = payload if isinstance(payload, dict) else {"root": payload}
        initial = {
            name: _initial_value(cls.base_fields[name], known[key])
            for name, key in cls.names.items()
            if key in known
        }
        return cls(initial=initial, **kwargs)

    def clean(self) -> dict[str, Any]:
        """Validate the parsed values with the model."""
        cleaned = super().clean() or self.cleaned_data
        self.payload = self._payload(cleaned)
        try:
            self.schema.model_validate(self.payload)
        except ValidationError as error:
            for one in error.errors(include_url=False, include_input=False):
                self._add_schema_error(one["loc"], one["msg"])
        return cleaned

    def _payload(self, cleaned: Mapping[str, Any]) -> Any:
        payload = {}
        for name, key in self.names.items():
            value = self._value(name, cleaned.get(name))
            if value is not _UNSET:
                payload[key] = to_jsonable_python(value)
        # A root model's data is its single value.
        root = self.schema.__pydantic_root_model__
        return payload.get("root") if root else payload

    def _value(self, name: str, value: Any) -> Any:
        if value not in (None, ""):
            return value
        if name in self.nullable:
            return None
        # An empty string is a valid string, but not a valid number.
        return "" if name in self.text_fields and value == "" else _UNSET

    def _add_schema_error(self, place: tuple[int | str, ...], message: str) -> None:
        first, rest = (place[0], place[1:]) if place else (None, ())
        keys = {key: name for name, key in self.names.items()}
        name = keys.get(str(first)) or (first if first in self.names else None)
        if name is None:
            rest = place
        elif str(name) in self.errors:
            return  # the field already shows a parse error
        text = f"{'.'.join(map(str, rest))}: {message}" if rest else message
        self.add_error(None if name is None else str(name), text)


def form_for(model: type[BaseModel]) -> type[SchemaForm]:
    """Return a form class for a pydantic model.

    Pass its instances a ``prefix`` if the same ``<form>`` has other inputs.
    """
    fields: dict[str, Any] = {}
    nullable, text_fields = set(), set()
    for name, info in model.model_fields.items():
        kind, may_be_none = _without_none(info.annotation)
        made = _field(kind, info)
        fields[name] = _configure(made, name, info, may_be_none)
        if may_be_none:
            nullable.add(name)
        elif kind is str:
            text_fields.add(name)
    known = {
        "schema": model,
        "names": {name: _key(name, info) for name, info in model.model_fields.items()},
        "nullable": frozenset(nullable),
        "text_fields": frozenset(text_fields),
    }
    return type(f"{model.__name__}Form", (SchemaForm,), {**fields, **known})


def read(form: forms.Form) -> dict[str, Any]:
    """Return a valid form's data as JSON values that the model accepts."""
    assert isinstance(form, SchemaForm)
    if not form.is_valid():
        msg = f"Expected a valid form, got {form.errors.as_json()}."
        raise ValueError(msg)
    payload: dict[str, Any] = form.payload
    return payload


def _key(name: str, info: FieldInfo) -> str:
    alias = info.validation_alias or info.alias
    if isinstance(alias, AliasChoices):
        alias = next((one for one in alias.choices if isinstance(one, str)), None)
    return alias if isinstance(alias, str) else name


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """Return a type without ``Annotated`` and None, and whether it included None."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation, annotation is type(None)
    parts = [part for part in get_args(annotation) if part is not type(None)]
    none = len(parts) < len(get_args(annotation))
    if len(parts) > 1:
        return functools.reduce(operator.or_, parts), none
    inner, also = _without_none(parts[0])
    return inner, none or also


def _field(kind: Any, info: FieldInfo) -> forms.Field:
    """Return the form field for a type. Types without one use JSON."""
    choices = _choices(kind)
    if choices is not None:
        return _select(choices)
    if isinstance(kind, type) and kind in _FIELDS:
        return _FIELDS[kind]()
    return _text() if _is_text(kind) else JSONText()


def _is_text(kind: Any) -> bool:
    """Return whether a type is a string in JSON, such as a URL or a UUID."""
    try:
        found = TypeAdapter(kind).json_schema()
    except PydanticUserError:
        return False  # a type without a JSON schema uses JSON input
    return found.get("type") == "string"


def _choices(kind: Any) -> list[tuple[str, str, Any]] | None:
    """Return text, label and value of each choice of a ``Literal`` or an enum."""
    if get_origin(kind) is Literal:
        members = [one for one in get_args(kind) if one is not None]
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        members = list(kind)
    else:
        return None
    found = []
    for one in members:
        value = one.value if isinstance(one, enum.Enum) else one
        label = getattr(one, "label", None) or getattr(one, "name", None)
        if not isinstance(value, str | int):
            return None
        found.append((str(value), str(label or value).replace("_", " "), value))
    return found if len({text for text, _, _ in found}) == len(found) else None


def _select(choices: list[tuple[str, str, Any]]) -> forms.Field:
    values = {text: value for text, _, value in choices}
    return forms.TypedChoiceField(
        choices=[(text, label) for text, label, _ in choices],
        coerce=lambda text: values[text],
        empty_value=None,
    )


def _text() -> forms.Field:
    return forms.CharField(widget=widgets.AdminTextInputWidget, strip=False)


def moment_field(**options: Any) -> forms.DateTimeField:
    """Return a field for a date and time, with the browser's own input."""
    attrs = {"type": "datetime-local", "step": "1"}
    widget = forms.DateTimeInput(attrs=attrs, format="%Y-%m-%dT%H:%M:%S")
    return forms.DateTimeField(widget=widget, **options)


def _day() -> forms.Field:
    widget = forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")
    return forms.DateField(widget=widget)


def _clock() -> forms.Field:
    widget = forms.TimeInput(attrs={"type": "time", "step": "1"}, format="%H:%M:%S")
    return forms.TimeField(widget=widget)


def _number(field: Callable[..., forms.Field], step: str) -> Callable[[], forms.Field]:
    return lambda: field(widget=forms.NumberInput(attrs={"step": step}))


_FIELDS: dict[type, Callable[[], forms.Field]] = {
    bool: forms.BooleanField,
    date: _day,
    datetime: moment_field,
    Decimal: _number(forms.DecimalField, "any"),
    float: _number(forms.FloatField, "any"),
    int: _number(forms.IntegerField, "1"),
    str: _text,
    time: _clock,
    UUID: _text,
}


def _configure(
    field: forms.Field, name: str, info: FieldInfo, may_be_none: bool
) -> forms.Field:
    """Set a field's label, help text, default and required flag."""
    if isinstance(field, forms.BooleanField) and may_be_none:
        field = forms.NullBooleanField()
    default = _default(info)
    checkbox = isinstance(field, forms.BooleanField)
    field.required = info.is_required() and not may_be_none and not checkbox
    if isinstance(field, forms.TypedChoiceField) and (
        may_be_none or default is _UNSET or default is None
    ):
        choices = cast("list[tuple[str, str]]", field.choices)
        field.choices = [("", "---------"), *choices]
    field.label = info.title or name.replace("_", " ").capitalize()
    field.help_text = escape(info.description or "")
    field.initial = None if default is _UNSET else _initial_value(field, default)
    for limit in info.metadata:
        for known, attribute in _ATTRIBUTES.items():
            value = getattr(limit, known, None)
            if isinstance(value, int | float | Decimal):
                field.widget.attrs[attribute] = str(value)
    return field


def _default(info: FieldInfo) -> Any:
    """Return the default as a JSON value."""
    if info.is_required() or info.default_factory_takes_validated_data:
        return _UNSET
    default = info.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return _UNSET
    try:
        return to_jsonable_python(default)
    except ValueError:
        return _UNSET


def _initial_value(field: forms.Field, value: Any) -> Any:
    """Return a JSON value in the form that its field displays."""
    if isinstance(field, JSONText):
        if value is None:
            return ""
        return json.dumps(value, indent=2, ensure_ascii=False)
    if isinstance(field, forms.DateTimeField) and isinstance(value, str):
        try:
            return parse_datetime(value)
        except ValueError:
            return value
    return value
