"""Files."""

from api.document.example import Example, Examples

ID = "file-01a200d2a1e37c0d9c5f3c1b7d9a4e21"
FILE = {
    "id": ID,
    "object": "file",
    "bytes": 34096,
    "created_at": 1795303200,
    "expires_at": None,
    "filename": "cat.jpg",
    "purpose": "vision",
    "status": "processed",
    "status_details": None,
}

EXAMPLES: Examples = {
    "POST /v1/files": Example({"purpose": "vision", "file": "(the bytes of cat.jpg)"}, {200: FILE}),
    "GET /v1/files": Example(
        None, {200: {"object": "list", "data": [FILE], "first_id": ID, "last_id": ID, "has_more": False}}
    ),
    "GET /v1/files/{file_id}": Example(None, {200: FILE}),
    "DELETE /v1/files/{file_id}": Example(None, {200: {"id": ID, "object": "file", "deleted": True}}),
}
