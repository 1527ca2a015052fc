"""Forms of the shop's approvals."""

from __future__ import annotations

from django import forms


class SettlementForm(forms.Form):
    """The decision about a complaint."""

    amount = forms.DecimalField(
        min_value=0,
        max_digits=12,
        decimal_places=2,
        help_text="The amount to refund. It may differ from the requested amount.",
    )
    why = forms.ChoiceField(
        choices=[("broken", "broken"), ("late", "late"), ("goodwill", "goodwill")],
        widget=forms.RadioSelect,
    )
    letter = forms.CharField(
        label="To the customer",
        required=False,
        widget=forms.Textarea(attrs={"rows": 4}),
    )
