"""The query parameter `include[]`, which clients repeat."""

from fastapi import Request

INCLUDE = ("include", "include[]")


def includes(request: Request) -> list[str]:
    return [value for name in INCLUDE for value in request.query_params.getlist(name)]
