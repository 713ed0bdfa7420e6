"""What all sections of the configuration have in common, and the kinds of names in them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Ids become folder names, wildcards and column names.
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]
# A class name becomes a column `p_<class>`; it may hold spaces, and must not read like a missing value.
ClassName = Annotated[str, Field(min_length=1, pattern=r"^[^\s,/].*$")]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
OpenShare = Annotated[float, Field(gt=0.0, lt=1.0)]


class Section(BaseModel):
    """A section of the configuration: unknown keys are errors, values cannot be changed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
