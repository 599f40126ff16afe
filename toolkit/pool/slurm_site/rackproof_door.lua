-- Every job asks for certified nodes: a node that somebody resumes by hand gets none.
--
-- Where job_submit.lua is the site's own, it says so in two lines:
--   local rackproof = dofile("/etc/slurm/rackproof_door.lua")
--   and in slurm_job_submit and slurm_job_modify: if not rackproof.guard(job_desc) then return slurm.ERROR end
-- A job of several partitions is guarded if one of them is.

local door = {}

-- Names of the partitions whose nodes rackproof keeps; empty: all of them.
door.partitions = {}

local CERTIFIED = "rackproof_certified"
local RESERVATION = "^rackproof_" -- of burn-ins: Slurm gives it to rackproof's own user alone

local function is_kept(partition)
  if #door.partitions == 0 or not partition then
    return true
  end
  for asked in string.gmatch(partition, "[^,]+") do
    for _, kept in ipairs(door.partitions) do
      if asked == kept then
        return true
      end
    end
  end
  return false
end

-- What a job asks for, with a certificate; nil where Slurm has no way to ask for it of every node.
function door.asked(features)
  if not features or features == "" then
    return CERTIFIED
  end
  -- counts (a*2&b*4) and choices of one for all nodes ([a|b]) cannot be joined with something else for each node
  if string.find(features, "[%*%[%]]") then
    return nil
  end
  if string.find(features, "|", 1, true) then
    return "(" .. features .. ")&" .. CERTIFIED
  end
  local asks_already = string.find("&" .. features .. "&", "&" .. CERTIFIED .. "&", 1, true)
  return asks_already and features or features .. "&" .. CERTIFIED
end

-- Adds it to a job, submitted or modified; false for one that is to be refused.
function door.guard(job_desc, is_modified)
  if job_desc.reservation and string.find(job_desc.reservation, RESERVATION) then
    return true
  end
  if not is_kept(job_desc.partition) or (is_modified and not job_desc.features) then
    return true
  end
  local asked = door.asked(job_desc.features)
  if not asked then
    slurm.log_user("rackproof: --constraint with counts or brackets cannot be held to certified nodes: leave them out")
    return false
  end
  job_desc.features = asked
  return true
end

return door
