"""The served models in OpenAI's shape."""

from fastapi import APIRouter, Request
from pydantic import BaseModel

from api.auth import Tenant
from api.backend import backend_of
from api.submission import check_model

router = APIRouter(prefix="/v1/models", tags=["models"])

CREATED = 0
"""A served model has no birthday here; OpenAI's shape wants an integer."""


class ModelObject(BaseModel):
    id: str
    object: str = "model"
    created: int = CREATED
    owned_by: str = "vlmq"


class ModelList(BaseModel):
    object: str = "list"
    data: list[ModelObject]


@router.get("", summary="All served models")
async def list_models(request: Request, tenant: Tenant) -> ModelList:
    return ModelList(data=[ModelObject(id=name) for name in backend_of(request).services.models])


@router.get("/{model:path}", summary="One served model")
async def get_model(model: str, request: Request, tenant: Tenant) -> ModelObject:
    check_model(model, backend_of(request).services.models)
    return ModelObject(id=model)
