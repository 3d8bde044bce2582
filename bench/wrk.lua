-- Asks for the addresses of a file in turn, and prints the figures in one line.

local asked = {}
for line in io.lines(os.getenv("ADDRESSES")) do
  local address, name, value = line:match("^([^\t]+)\t([^:]+): (.*)$")
  local headers = { Host = "localhost" }
  if name then headers[name] = value end
  asked[#asked + 1] = wrk.format("GET", address or line, headers)
end

local turn = 0

request = function()
  turn = turn % #asked + 1
  return asked[turn]
end

done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("figures %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
