"""The executor's closed sets of values."""

from enum import Enum, auto


class ModelType(Enum):
    DECODER_ONLY = 0
    ENCODER_ONLY = 1
    ENCODER_DECODER = 2


class BatchingType(Enum):
    STATIC = 0
    INFLIGHT = 1


class CapacitySchedulerPolicy(Enum):
    MAX_UTILIZATION = 0
    GUARANTEED_NO_EVICT = 1
    STATIC_BATCH = 2


class ContextChunkingPolicy(Enum):
    FIRST_COME_FIRST_SERVED = 0
    EQUAL_PROGRESS = 1


class CommunicationType(Enum):
    MPI = 0


class CommunicationMode(Enum):
    LEADER = 0
    ORCHESTRATOR = 1


class RequestType(Enum):
    REQUEST_TYPE_CONTEXT_AND_GENERATION = 0
    REQUEST_TYPE_CONTEXT_ONLY = 1
    REQUEST_TYPE_GENERATION_ONLY = 2


class FinishReason(Enum):
    NOT_FINISHED = 0
    END_ID = auto()
    STOP_WORDS = auto()
    LENGTH = auto()
    TIMED_OUT = auto()
    CANCELLED = auto()


class KvCacheTransferMode(Enum):
    DRAM = 0


class GuideType(Enum):
    JSON = 0
    JSON_SCHEMA = auto()
    REGEX = auto()
    EBNF_GRAMMAR = auto()
    STRUCTURAL_TAG = auto()


class GuidedDecodingBackend(Enum):
    XGRAMMAR = 0
    LLGUIDANCE = 1
