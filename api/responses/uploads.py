"""Where the bytes of a request's media are: stored from data: URLs, or among the tenant's files."""

from dataclasses import dataclass

from api.file_reference import media_source
from jobs.files import FileStore
from jobs.ports import Blobs


@dataclass(frozen=True, slots=True)
class Uploads:
    blobs: Blobs
    files: FileStore
    tenant: str

    def keep(self, data: bytes) -> str:
        """Stores the bytes and returns their digest. Raises BlobsUnavailable."""
        return self.blobs.put(data)

    def source_of(self, file_id: str, param: str) -> str:
        """A file of the tenant as parts of a request have it. Raises ApiError that names `param`, StoreUnavailable."""
        return media_source(self.files, file_id, self.tenant, param)
