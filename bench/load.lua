-- What wrk asks for: wrk -s load.lua URL -- KIND TRAFFIC PREFIX SIZE
--   receipts   one receipt a request (SIZE 1), or an array of SIZE
--   status     one number of the population
--   bulk       the same SIZE numbers each time
-- It says what it saw as one line of JSON, times in microseconds.

local kinds, traffic, prefix, size = {}, nil, nil, nil
local serial, sent_at, at = 0, 0, ""

function init(args)
  local kind = args[1]
  traffic, prefix, size = dofile(args[2]), args[3], tonumber(args[4])
  math.randomseed(os.time())
  wrk.headers["Content-Type"] = "application/json"
  request = kinds[kind]()
end

local function receipt()
  serial = serial + 1
  if serial % 64 == 1 then at = os.date("!%Y-%m-%dT%H:%M:%SZ") end
  local place = math.random(0, traffic.population - 1)
  return string.format(
    '{"message_id": "%s-%d", "number": "+1555%07d", "sender": "%s", "carrier": "%s", "occurred_at": "%s", %s',
    prefix, serial, place, traffic.senders[place % #traffic.senders + 1],
    traffic.carriers[place % #traffic.carriers + 1], at, traffic.outcomes[math.random(#traffic.outcomes)])
end

function kinds.receipts()
  wrk.method = "POST"
  if size == 1 then
    return function() return wrk.format(nil, nil, nil, receipt()) end
  end
  return function()
    local many = {}
    for place = 1, size do many[place] = receipt() end
    return wrk.format(nil, nil, nil, "[" .. table.concat(many, ",") .. "]")
  end
end

function kinds.status()
  local path = wrk.path
  return function()
    return wrk.format("GET", string.format("%s/+1555%07d", path, math.random(0, traffic.population - 1)))
  end
end

function kinds.bulk()
  local many = {}
  for place = 1, size do many[place] = string.format('"+1555%07d"', (place * 7919) % traffic.population) end
  wrk.method = "POST"
  local same = wrk.format(nil, nil, nil, '{"numbers": [' .. table.concat(many, ",") .. "]}")
  return function() return same end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "refused": %d, "broken": %d, "duration": %d, "p50": %d, "p99": %d}\n',
    summary.requests, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    summary.duration, latency:percentile(50), latency:percentile(99)))
end
