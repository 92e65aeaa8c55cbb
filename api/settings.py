"""Settings of the API process: where it listens and how much one request may ask for."""

import ipaddress
from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from jobs.settings import FileSettings, Names


class ApiSettings(FileSettings):
    """Table `[api]`, environment `VLMQ_API_…`."""

    table: ClassVar[str] = "api"
    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="VLMQ_API_")

    host: str = Field(default="127.0.0.1", description="Address to listen on. Not loopback: needs an API key.")
    port: int = Field(default=8700, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    max_body_bytes: int = Field(default=64 * 2**20, ge=1024, description="Longest request body.")
    max_file_bytes: int = Field(default=512 * 2**20, ge=1, description="Longest uploaded file.")
    max_batch_file_bytes: int = Field(default=200 * 2**20, ge=1, description="Longest input file of a batch.")
    max_batch_lines: int = Field(default=50_000, ge=1, description="Requests in one batch.")
    max_batches: int = Field(default=100, ge=1, description="Batches of one tenant that have not ended.")
    max_image_bytes: int = Field(default=20 * 2**20, ge=1, description="Longest decoded picture of a data: URL.")
    max_images: int = Field(default=32, ge=0, description="Pictures in one request.")
    max_video_bytes: int = Field(default=40 * 2**20, ge=1, description="Longest decoded video of a data: URL.")
    max_videos: int = Field(default=4, ge=0, description="Videos in one request.")
    max_video_segments: int = Field(default=32, ge=1, description="Frames of one video that a request may ask for.")
    max_choices: int = Field(default=8, ge=1, le=128, description="Choices (`n`) of one request.")
    max_messages: int = Field(default=256, ge=1, description="Messages in one request.")
    max_text_chars: int = Field(default=1_000_000, ge=1, description="Characters of text in one request.")
    max_tools: int = Field(default=128, ge=1, description="Functions that one request may declare.")
    max_tool_bytes: int = Field(
        default=128 << 10, ge=1, description="Names, descriptions and schemas of a request's functions together."
    )
    image_schemes: Names = Field(default=("data", "https", "http", "file"), description="Schemes of media URLs.")
    max_queued: int = Field(default=10_000, ge=1, description="Waiting jobs of a model above which new ones get 429.")
    max_deadline_s: float = Field(default=7 * 86400.0, gt=0, description="Furthest deadline that a job may have.")
    max_wait_s: float = Field(default=60.0, ge=0, description="Longest ?wait= of GET /v1/jobs/{id}.")
    keepalive_s: float = Field(default=10.0, gt=0, description="Silence after which a stream gets a comment.")
    stream_head_s: float = Field(
        default=2.0, ge=0, description="How long a chat stream may wait for its first event, to answer errors as such."
    )
    stream_buffer: int = Field(default=1024, ge=1, description="Events held for one slow reader.")
    store_threads: int = Field(default=16, ge=1, description="Threads that talk to database, Redis and blobs.")
    batch_poll_s: float = Field(default=1.0, gt=0, description="How often the batch process looks for what to do.")
    file_threads: int = Field(default=8, ge=1, description="Threads that read and write files.")
    count_threads: int = Field(default=4, ge=1, description="Requests to /v1/tokenize that are answered at once.")
    count_timeout_s: float = Field(
        default=10.0, gt=0, le=60, description="How long /v1/tokenize waits for a worker's answer."
    )
    key_cache_s: float = Field(default=5.0, ge=0, description="How long a checked API key is trusted.")
    metrics_token: str = Field(
        default="", repr=False, description="What /metrics asks for as a Bearer token; empty: it asks for none."
    )
    shutdown_s: int = Field(default=10, ge=0, description="Time that open requests get to end after SIGTERM.")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
