"""Where the bytes of a request's media are: stored from data: URLs, among the tenant's files, or those of an earlier
turn."""

from dataclasses import dataclass

from api.errors import ApiError
from api.file_reference import media_source
from api.pictures import Pictures
from jobs.errors import BlobNotFound
from jobs.files import FileStore
from jobs.ports import Blobs


@dataclass(frozen=True, slots=True)
class Uploads:
    blobs: Blobs
    pictures: Pictures
    files: FileStore
    tenant: str

    def keep(self, data: bytes) -> str:
        """Stores the bytes and returns their digest. Raises BlobsUnavailable."""
        return self.pictures.keep(data)

    def source_of(self, file_id: str, param: str) -> str:
        """A file of the tenant as parts of a request have it. Raises ApiError that names `param`, StoreUnavailable,
        BlobsUnavailable."""
        source = media_source(self.files, file_id, self.tenant, param)
        self.hold(source.removeprefix("blob:"), param)
        return source

    def hold(self, digest: str, param: str) -> None:
        """Keeps bytes that were put by somebody else until the job that refers to them is recorded, whatever becomes
        of who refers to them now. Raises ApiError that names `param`, BlobsUnavailable."""
        try:
            self.blobs.touch(digest)
        except BlobNotFound:
            message = f"The bytes of {param!r} are not kept any more."
            raise ApiError(message, param=param, code="image_file_not_found") from None
