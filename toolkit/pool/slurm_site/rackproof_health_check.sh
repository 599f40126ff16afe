#!/bin/sh
# Drains this node if it takes jobs without a certificate in force: once its time is up, whether or not rackproof runs.
#
# slurm.conf: HealthCheckProgram=.../rackproof_health_check.sh (or called by the site's own), HealthCheckInterval=60,
# HealthCheckNodeState=ANY,CYCLE. It reads the record in the node's comment, which slurmctld keeps across restarts.
# Where slurmctld does not answer it does nothing: no job begins then either.
set -u
export LC_ALL=C PATH="${PATH:-/usr/bin:/bin}:/usr/bin:/bin"
node=${1:-${SLURMD_NODENAME:-$(hostname -s)}}

state=$(timeout 20 sinfo --noheader --Node --nodes="$node" --Format='StateComplete: ' 2>/dev/null | head -n 1) || exit 0
case "$state" in
'' | *drain* | *down* | *fail* | *maint*) exit 0 ;;
esac
comment=$(timeout 20 sinfo --noheader --Node --nodes="$node" --Format='Comment: ' 2>/dev/null | head -n 1) || exit 0
until=$(printf '%s\n' "$comment" |
  sed -n 's/.*\[rackproof [^]]*certificate=[0-9a-f]\{64\} [^]]*until=\([0-9]\{8\}T[0-9]\{6\}Z\)[^]]*\].*/\1/p')
now=$(date -u +%Y%m%dT%H%M%SZ)
if [ -z "$until" ]; then
  why="not certified: it took jobs, and no certificate lets it"
elif [ "$(printf '%s\n%s\n' "$now" "$until" | sort | head -n 1)" = "$until" ]; then
  why="not certified: its certificate expired at $until"
else
  exit 0
fi
exec timeout 20 scontrol update "NodeName=$node" State=DRAIN "Reason=rackproof: $why"
