"""What the shop's durable functions ask people."""

from __future__ import annotations

from django import forms


class SettlementForm(forms.Form):
    """How a complaint is settled."""

    amount = forms.DecimalField(
        min_value=0,
        max_digits=12,
        decimal_places=2,
        help_text="What the customer gets back, whatever was asked for.",
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
