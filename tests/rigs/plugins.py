"""What sites do to jobs when they are submitted, as job_submit.lua (Slurm's contribs/lua/job_submit.lua shows the interface)."""

from __future__ import annotations

_FRAME = """
function slurm_job_submit(job, partitions, uid)
{body}
   return slurm.SUCCESS
end

function slurm_job_modify(job, record, partitions, uid)
   return slurm.SUCCESS
end

slurm.log_info("loaded")
return slurm.SUCCESS
"""


def _plugin(*lines: str) -> str:
    return _FRAME.format(body="\n".join(f"   {line}" for line in lines))


REWRITES_NAME = _plugin('job.name = "u" .. uid .. "_" .. string.sub(job.name or "", 1, 8)')
REWRITES_COMMENT = _plugin('job.comment = "charged to " .. (job.account or "nobody")')
STRIPS_DEPENDENCY = _plugin('job.dependency = ""')
CUTS_TIME = _plugin("job.time_limit = 5")
REWRITES_NAME_AND_COMMENT = _plugin('job.name = "job"', 'job.comment = "site"')
REFUSES_WITHOUT_ACCOUNT = _plugin(
    "if job.account == nil then",
    '   slurm.log_user("Please name an account with --account (ask the helpdesk).")',
    "   return slurm.ERROR",
    "end",
)

PLUGINS = {
    "leaves-jobs-alone": _plugin(),
    "rewrites-name": REWRITES_NAME,
    "rewrites-comment": REWRITES_COMMENT,
    "strips-dependency": STRIPS_DEPENDENCY,
    "cuts-time": CUTS_TIME,
    "rewrites-name-and-comment": REWRITES_NAME_AND_COMMENT,
    "refuses-without-account": REFUSES_WITHOUT_ACCOUNT,
}
