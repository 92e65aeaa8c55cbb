"""A file as OpenAI shows it. Renders only."""

from collections.abc import Sequence

from pydantic import BaseModel

from jobs.files import File


class FileObject(BaseModel):
    """`status` is OpenAI's, who keep it for old clients: a file is `processed` as soon as it is there."""

    id: str
    object: str
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: str
    status_details: str | None


class FileList(BaseModel):
    object: str
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFile(BaseModel):
    id: str
    object: str
    deleted: bool


def file_object(file: File) -> FileObject:
    return FileObject(
        id=file.id,
        object="file",
        bytes=file.bytes,
        created_at=int(file.created_at.timestamp()),
        expires_at=None if file.expires_at is None else int(file.expires_at.timestamp()),
        filename=file.filename,
        purpose=file.purpose.value,
        status="processed",
        status_details=None,
    )


def file_list(files: Sequence[File], has_more: bool) -> FileList:
    data = [file_object(file) for file in files]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return FileList(object="list", data=data, first_id=first, last_id=last, has_more=has_more)
