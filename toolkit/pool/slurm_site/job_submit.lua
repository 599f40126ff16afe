-- For a site without a job_submit.lua of its own (JobSubmitPlugins=lua); both files lie beside slurm.conf.

local here = string.match(debug.getinfo(1, "S").source, "^@?(.*/)") or "/etc/slurm/"
local rackproof = dofile(here .. "rackproof_door.lua")

function slurm_job_submit(job_desc, part_list, submit_uid)
  return rackproof.guard(job_desc, false) and slurm.SUCCESS or slurm.ERROR
end

function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
  return rackproof.guard(job_desc, true) and slurm.SUCCESS or slurm.ERROR
end

return slurm.SUCCESS
