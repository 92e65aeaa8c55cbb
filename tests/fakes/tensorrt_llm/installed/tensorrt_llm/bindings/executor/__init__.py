"""The executor: TensorRT-LLM's engine with its own thread and batching, as `tensorrt_llm.bindings.executor`."""

from tensorrt_llm.bindings.executor.config import (
    DecodingConfig,
    DynamicBatchConfig,
    ExecutorConfig,
    ExtendedRuntimePerfKnobConfig,
    GuidedDecodingConfig,
    KvCacheConfig,
    LogitsPostProcessorConfig,
    LookaheadDecodingConfig,
    OrchestratorConfig,
    ParallelConfig,
    PeftCacheConfig,
    SchedulerConfig,
)
from tensorrt_llm.bindings.executor.enums import (
    BatchingType,
    CapacitySchedulerPolicy,
    CommunicationMode,
    CommunicationType,
    ContextChunkingPolicy,
    FinishReason,
    KvCacheTransferMode,
    ModelType,
    RequestType,
)
from tensorrt_llm.bindings.executor.enums import GuidedDecodingBackend as _Backend
from tensorrt_llm.bindings.executor.enums import GuideType as _GuideType
from tensorrt_llm.bindings.executor.executor import Executor
from tensorrt_llm.bindings.executor.request import (
    GuidedDecodingParams,
    KvCacheRetentionConfig,
    LoraConfig,
    MultimodalInput,
    OutputConfig,
    PromptTuningConfig,
    Request,
    SamplingConfig,
)
from tensorrt_llm.bindings.executor.response import KvCacheMetrics, RequestPerfMetrics, Response, Result
from tensorrt_llm.bindings.executor.statistics import InflightBatchingStats, IterationStats, KvCacheStats

GuidedDecodingConfig.GuidedDecodingBackend = _Backend
GuidedDecodingParams.GuideType = _GuideType

__all__ = [
    "BatchingType",
    "CapacitySchedulerPolicy",
    "CommunicationMode",
    "CommunicationType",
    "ContextChunkingPolicy",
    "DecodingConfig",
    "DynamicBatchConfig",
    "Executor",
    "ExecutorConfig",
    "ExtendedRuntimePerfKnobConfig",
    "FinishReason",
    "GuidedDecodingConfig",
    "GuidedDecodingParams",
    "InflightBatchingStats",
    "IterationStats",
    "KvCacheConfig",
    "KvCacheMetrics",
    "KvCacheRetentionConfig",
    "KvCacheStats",
    "KvCacheTransferMode",
    "LogitsPostProcessorConfig",
    "LookaheadDecodingConfig",
    "LoraConfig",
    "ModelType",
    "MultimodalInput",
    "OrchestratorConfig",
    "OutputConfig",
    "ParallelConfig",
    "PeftCacheConfig",
    "PromptTuningConfig",
    "Request",
    "RequestPerfMetrics",
    "RequestType",
    "Response",
    "Result",
    "SamplingConfig",
    "SchedulerConfig",
]
