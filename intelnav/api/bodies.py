"""Request bodies, checked against a schema; whatever is not in it is refused by name."""

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from intelnav.api.errors import ApiError


class StrictBody(BaseModel):
    """A JSON object with these fields, of these types, and no others."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


Shape = TypeVar("Shape", bound=StrictBody)


def parse(shape: type[Shape], data: bytes) -> Shape:
    """Read a request body; raises ApiError 400 naming the field. JSON nested too deeply is malformed."""
    try:
        return shape.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])[:200]
        if first["type"] == "json_invalid":
            raise ApiError(400, "invalid_json", f"The body is not JSON: {first['ctx']['error']}") from None
        if first["type"] == "extra_forbidden":
            reason = f"{where} is not supported here"
            raise ApiError(400, "unsupported_parameter", reason, param=where) from None
        reason = f"{where}: {first['msg']}" if where else first["msg"]
        raise ApiError(400, "invalid_value", reason, param=where or None) from None
