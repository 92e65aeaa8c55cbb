"""`file_id` in a request: the tenant's own file becomes a reference to its bytes."""

from api.errors import ApiError
from api.query import JOB_ID
from jobs.errors import FileNotFound
from jobs.files import FileStore, Purpose

READABLE = frozenset({Purpose.VISION, Purpose.USER_DATA})


def media_source(files: FileStore, file_id: str, tenant: str, param: str) -> str:
    """`blob:<digest>` as parts of a request have it. The job keeps the bytes when the file is deleted. Raises ApiError
    that names `param`, StoreUnavailable."""
    try:
        # What cannot be an id is not looked for: PostgreSQL takes no U+0000.
        if JOB_ID.fullmatch(file_id) is None:
            raise FileNotFound(file_id)
        file = files.get(file_id, tenant)
    except FileNotFound:
        message = f"Invalid value for {param!r}: there is no file {file_id[:100]!r}."
        raise ApiError(message, param=param, code="image_file_not_found") from None
    if file.purpose not in READABLE:
        message = (
            f"Invalid value for {param!r}: the file {file.id!r} was uploaded with the purpose {file.purpose.value!r}; "
            "a request can hold files of the purposes 'vision' and 'user_data'."
        )
        raise ApiError(message, param=param, code="invalid_value")
    return f"blob:{file.digest}"
