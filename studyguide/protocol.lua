-- The queue protocol of f and g: every change of state, each one atomic script call.
--
-- KEYS[1] is the prefix P, for example {sg}: ; its hash tag keeps a cluster's keys on one shard.
-- ARGV[1] is the command, the rest are its arguments.
--
--   P tasks      stream   tiles to do (spec, tile, attempt); group `workers`; a hint, not the truth
--   P delayed    zset     tiles waiting for their retry; score: due time in ms, server clock
--   P dlq        stream   dead letters, for people
--   P ready      stream   jobs whose tiles are all done or dead; group `assemblers`
--   P hb:<name>  string   heartbeat of a consumer, expires
--   P jobs       hash     name of an image -> its job; set outside of the scripts
--   P state:<job> string  how the image ended: saved, partial or failed
--   P enq:<job>  set      tiles that were put into the stream
--   P done:<job> set      tiles that are finished: the checkpoint
--   P res:<job>  hash     tile -> digest of its result; the truth
--   P src:<job>  hash     tile -> pixels of its window, where roles share no folder
--   P out:<job>  hash     tile and digest -> pixels of its result, likewise
--   P dead:<job> hash     tile -> error of its last attempt
--
-- Redis may replay a script only in part after a crash (the tail of its append-only file is torn),
-- so the effects of each command stand in an order in which every prefix is safe: first what must
-- not be lost, last what lets go of the entry. XDEL comes before XACK because an entry that is
-- acknowledged but still there would count as work for ever; the reverse is cleared by `reclaim`.

local prefix, command = KEYS[1], ARGV[1]
local commands = {}

local function key(name, job)
  return job and (prefix .. name .. ':' .. job) or (prefix .. name)
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function put(spec, tile, attempt)
  redis.call('XADD', key('tasks'), '*', 'spec', spec, 'tile', tile, 'attempt', attempt)
end

local function let_go(stream, group, entry)
  redis.call('XDEL', key(stream), entry)
  redis.call('XACK', key(stream), group, entry)
end

local function announce_if_complete(job, spec, total)
  local over = redis.call('HLEN', key('res', job)) + redis.call('HLEN', key('dead', job))
  if over >= tonumber(total) and redis.call('EXISTS', key('state', job)) == 0 then
    redis.call('XADD', key('ready'), '*', 'spec', spec)
  end
end

-- What follows a result; done again by whoever comes next if the script was torn.
local function conclude(job, spec, tile, total)
  redis.call('SADD', key('done', job), tile)
  redis.call('HDEL', key('dead', job), tile)
  announce_if_complete(job, spec, total)
end

-- enqueue job spec tile...  -> how many were new
function commands.enqueue(job, spec, ...)
  local added = 0
  for _, tile in ipairs({...}) do
    if redis.call('SISMEMBER', key('enq', job), tile) == 0 then
      put(spec, tile, 1)
      redis.call('SADD', key('enq', job), tile)
      added = added + 1
    end
  end
  return added
end

-- commit entry job spec tile result total  -> 1 for the first result of this tile, 0 for a later one
function commands.commit(entry, job, spec, tile, result, total)
  local first = redis.call('HSETNX', key('res', job), tile, result)
  conclude(job, spec, tile, total)
  let_go('tasks', 'workers', entry)
  return first
end

-- fail entry job spec tile attempt max_attempts delay_ms error total  -> retry | dead | done
-- Of an image that has ended nothing is tried again: its pixels may be gone.
function commands.fail(entry, job, spec, tile, attempt, max_attempts, delay_ms, error, total)
  local verdict = 'done'
  if redis.call('HEXISTS', key('res', job), tile) == 1 then
    conclude(job, spec, tile, total)
  elseif redis.call('EXISTS', key('state', job)) == 1 then
    -- nothing to do
  elseif tonumber(attempt) < tonumber(max_attempts) then
    local member = tile .. '|' .. (attempt + 1) .. '|' .. spec
    redis.call('ZADD', key('delayed'), now_ms() + delay_ms, member)
    verdict = 'retry'
  else
    if redis.call('HEXISTS', key('dead', job), tile) == 0 then
      redis.call('XADD', key('dlq'), '*', 'spec', spec, 'tile', tile, 'error', error)
    end
    redis.call('HSET', key('dead', job), tile, error)
    announce_if_complete(job, spec, total)
    verdict = 'dead'
  end
  let_go('tasks', 'workers', entry)
  return verdict
end

-- give_back consumer entry spec tile attempt  -> queue a tile again that its consumer did not begin
-- The consumer may have lost it meanwhile; then it is another's.
function commands.give_back(consumer, entry, spec, tile, attempt)
  local lease = redis.call('XPENDING', key('tasks'), 'workers', entry, entry, 1)
  if lease[1] and lease[1][2] == consumer then
    put(spec, tile, attempt)
    let_go('tasks', 'workers', entry)
  end
end

-- promote limit  -> how many retries came due and are in the stream again
function commands.promote(limit)
  local due = redis.call('ZRANGEBYSCORE', key('delayed'), '-inf', now_ms(), 'LIMIT', 0, limit)
  for _, member in ipairs(due) do
    local tile, attempt, spec = string.match(member, '^(%d+)|(%d+)|(.*)$')
    put(spec, tile, attempt)
    redis.call('ZREM', key('delayed'), member)
  end
  return #due
end

-- beat stream group consumer ttl_ms entry...  -> renew the leases that are still the consumer's
function commands.beat(stream, group, consumer, ttl_ms, ...)
  redis.call('SET', key('hb', consumer), 1, 'PX', ttl_ms)
  for _, entry in ipairs({...}) do
    local lease = redis.call('XPENDING', key(stream), group, entry, entry, 1)
    if lease[1] and lease[1][2] == consumer then
      redis.call('XCLAIM', key(stream), group, consumer, 0, entry, 'JUSTID')
    end
  end
end

-- reclaim stream group consumer idle_ms count  -> {entry, last owner, deliveries, fields}...
function commands.reclaim(stream, group, consumer, idle_ms, count)
  local taken = {}
  local idle = redis.call('XPENDING', key(stream), group, 'IDLE', idle_ms, '-', '+', count)
  for _, lease in ipairs(idle) do
    local entry, owner, deliveries = lease[1], lease[2], lease[4]
    local claimed = redis.call('XCLAIM', key(stream), group, consumer, idle_ms, entry)
    if claimed[1] then
      taken[#taken + 1] = {entry, owner, deliveries + 1, claimed[1][2]}
    else
      redis.call('XACK', key(stream), group, entry)
    end
  end
  return taken
end

-- reap stream group  -> forget consumers that hold nothing and no longer beat
function commands.reap(stream, group)
  if redis.call('EXISTS', key(stream)) == 0 then
    return
  end
  for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', key(stream), group)) do
    local name, pending = info[2], info[4]
    if pending == 0 and redis.call('EXISTS', key('hb', name)) == 0 then
      redis.call('XGROUP', 'DELCONSUMER', key(stream), group, name)
    end
  end
end

-- How many tiles have a result or a death. Few are dead; one may have both if a script was torn.
local function count_over(job)
  local over = redis.call('HLEN', key('res', job))
  for _, tile in ipairs(redis.call('HKEYS', key('dead', job))) do
    over = over + 1 - redis.call('HEXISTS', key('res', job), tile)
  end
  return over
end

-- audit job spec total first count  -> tiles from `first` on that must be enqueued again, and before
-- them where the next call has to begin: at `total` if all was looked at
-- Anti-entropy: with the stream and the delayed set empty nothing is in flight, so what has neither
-- a result nor a death is missing, whatever made it so. Tiles are looked at only if some are missing,
-- and `count` of them in one call, so that others are not kept waiting.
function commands.audit(job, spec, total, first, count)
  total, first = tonumber(total), tonumber(first)
  local found = {total}
  if redis.call('XLEN', key('tasks')) > 0 or redis.call('ZCARD', key('delayed')) > 0 then
    return found
  end
  if count_over(job) >= total then
    if redis.call('XLEN', key('ready')) == 0 then
      announce_if_complete(job, spec, total)
    end
    return found
  end
  found[1] = math.min(total, first + count)
  for tile = first, found[1] - 1 do
    local res, dead = key('res', job), key('dead', job)
    if redis.call('HEXISTS', res, tile) == 0 and redis.call('HEXISTS', dead, tile) == 0 then
      redis.call('SREM', key('enq', job), tile)
      found[#found + 1] = tile
    end
  end
  return found
end

-- reject job spec tile result  -> a result proved corrupt: do its tile again
-- The assembler keeps the announcement until it has rejected all that is corrupt, then lets go. One
-- that comes late finds the results gone of an image that another has saved: they stay as they are.
function commands.reject(job, spec, tile, result)
  if redis.call('EXISTS', key('state', job)) == 1 then
    return
  end
  if redis.call('HGET', key('res', job), tile) == result then
    put(spec, tile, 1)
    redis.call('SREM', key('done', job), tile)
    redis.call('HDEL', key('res', job), tile)
  end
end

-- withdraw entry  -> let go of an announcement whose job turned out not to be complete
function commands.withdraw(entry)
  let_go('ready', 'assemblers', entry)
end

-- finish entry job state  -> the image's end is on disk: say so, let go of its announcement and
-- pixels. Digests stay: they tell a second result from the first. What follows a result is completed:
-- the script that stored it may have been torn, and its entry lost with the stream.
function commands.finish(entry, job, state)
  redis.call('SET', key('state', job), state)
  redis.call('UNLINK', key('src', job), key('out', job))
  for _, tile in ipairs(redis.call('HKEYS', key('res', job))) do
    redis.call('SADD', key('done', job), tile)
    redis.call('HDEL', key('dead', job), tile)
  end
  let_go('ready', 'assemblers', entry)
end

-- discard stream group entry error  -> an entry that nobody can read is a dead letter
function commands.discard(stream, group, entry, error)
  redis.call('XADD', key('dlq'), '*', 'entry', entry, 'error', error)
  let_go(stream, group, entry)
end

return commands[command](unpack(ARGV, 2))
