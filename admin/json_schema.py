"""Shapes as OpenAPI 3.0 schemas: pydantic speaks the JSON Schema of OpenAPI 3.1, which Swagger UI 4 does not read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

REFERENCE: Final = "#/components/schemas/{model}"


class OpenApiSchema(GenerateJsonSchema):
    """`nullable` instead of a union with null, one example instead of several, no titles made of names."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        inner = self.generate_inner(schema["schema"])
        return {"allOf": [inner], "nullable": True} if "$ref" in inner else {**inner, "nullable": True}

    def none_schema(self, schema: core_schema.NoneSchema) -> JsonSchemaValue:
        return {"type": "string", "nullable": True, "enum": [None]}

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        found = super().literal_schema(schema)
        if "const" in found:
            found["enum"] = [found.pop("const")]
        return found

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        found = super().default_schema(schema)
        return {name: value for name, value in found.items() if name != "default" or value is not None}


def schemas(shapes: Sequence[type[BaseModel]]) -> dict[str, Any]:
    """The schema of each shape by its class name, with those that they refer to."""
    kinds: list[Any] = [(shape, "validation") for shape in shapes]
    _, found = models_json_schema(kinds, ref_template=REFERENCE, schema_generator=OpenApiSchema)
    return {name: _without_titles(schema) for name, schema in found["$defs"].items()}


def _without_titles(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != "title"}
