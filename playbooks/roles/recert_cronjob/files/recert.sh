# $0 RACK SECONDS: until it is decided; the pod's deadline ends it at last. A pod that is stopped interrupts the run as
# Ctrl-C would, so that it gives its nodes back; what sh starts in the background ignores that unless it is told not to.
rack=$1 pause=$2 run=
trap 'trap "" TERM; [ -z "$run" ] || { kill -INT "$run"; wait "$run"; }; exit 3' TERM
while :; do
  env --default-signal=INT rackproof recert run "$rack" --due --json & run=$!
  wait "$run"; status=$? run=
  [ "$status" = 3 ] || exit "$status"
  echo "undecided: again in $pause s" >&2
  sleep "$pause" & wait $!
done
