"""The event log's steps in Redis, as Lua: each one is atomic, and each one compares the attempt first.

KEYS: the stream of the job's events; its fence: the number of the attempt that may append, `ended` or `erased`.
An entry of the stream is a batch of events under the ID `<sequence after the batch's last>-0`, so that the last ID says
where the log goes on. Answers are `{status, next sequence}`.

What is found under these keys and cannot be a log's is removed first: then it is as if Redis had lost the log, which is
sent again.
"""

DONE, STALE, ELSEWHERE = 0, 1, 2
"""Statuses: done; the attempt is not the one that may append; the log does not go on where the call thought."""

_PRELUDE = f"""
local DONE, STALE, ELSEWHERE = {DONE}, {STALE}, {ELSEWHERE}
local function clear_unless(kind, key)
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then redis.call('DEL', key) end
end
clear_unless('stream', KEYS[1])
clear_unless('string', KEYS[2])
local fence = redis.call('GET', KEYS[2])
if fence and fence ~= 'ended' and fence ~= 'erased' and not tonumber(fence) then fence = false end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local next = last[1] and tonumber(string.match(last[1][1], '^%d+')) or 0
-- A stream that was emptied remembers its last ID, and would take none before it. Without need nothing is deleted: when
-- a script has written once, a full Redis lets it go on.
if next == 0 and redis.call('EXISTS', KEYS[1]) == 1 then redis.call('DEL', KEYS[1]) end

local function add(upto, payload)
  redis.call('XADD', KEYS[1], upto .. '-0', 'e', payload)
  next = tonumber(upto)
end
local function keep(holder, ttl)
  redis.call('SET', KEYS[2], holder, 'EX', ttl)
  redis.call('EXPIRE', KEYS[1], ttl)
end
"""

# Attempts are numbered by the database, so a higher number is always the newer claim. It may pass even when the fence
# names a lower one or none: Redis may have forgotten it.
_FENCED = """
if fence == 'ended' or fence == 'erased' then return {STALE, next} end
if fence and tonumber(fence) > tonumber(ARGV[1]) then return {STALE, next} end
"""

# attempt, number of events, events, TTL in s
OPEN = (
    _PRELUDE
    + _FENCED
    + """
if next == 0 then add(ARGV[2], ARGV[3]) end
keep(ARGV[1], ARGV[4])
return {DONE, next}
"""
)

# attempt, first sequence, sequence after the last, events, TTL in s
APPEND = (
    _PRELUDE
    + _FENCED
    + """
if next ~= tonumber(ARGV[2]) then return {ELSEWHERE, next} end
add(ARGV[3], ARGV[4])
keep(ARGV[1], ARGV[5])
return {DONE, next}
"""
)

# first sequence of the events, sequence after their last, the events before the end, the end itself, TTL in s
END = (
    _PRELUDE
    + """
if fence == 'erased' then return {DONE, 0} end
if fence == 'ended' and next > 0 then return {DONE, next} end
if next < tonumber(ARGV[2]) then
  if next ~= tonumber(ARGV[1]) then return {ELSEWHERE, next} end
  add(ARGV[2], ARGV[3])
end
add(next + 1, ARGV[4])
keep('ended', ARGV[5])
return {DONE, next}
"""
)

# TTL in s
ERASE = """
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], 'erased', 'EX', ARGV[1])
return {0, 0}
"""
